"""`farkernel fleet reset`: kernels end, the lesson's directory is as its template says; cards are not touched."""

from __future__ import annotations

import argparse
import posixpath
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from ...backends.archive import errand_text
from ..errors import FarkernelError
from ..fleet.record import Recorded
from ..fleet.roster import board_name
from ..text import one_line
from . import copying_over
from .arguments import add_json
from .asking import Asking
from .elsewhere import take_up
from .far_command import FarCommand, reach
from .fleet_status import chosen
from .kernels import STOP_DEADLINE, listing
from .output import emit, say

_AT_A_TIME = 10
_BOOT = "import sys\nexec(compile(sys.stdin.buffer.read(int(sys.argv[1])), 'setting_aside', 'exec'))"


class NotAHost(FarkernelError):
    kind = "no-such-host"

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(
            f"no fleet has a host {one_line(name)[:80]!r}",
            f"There are: {', '.join(known)}" if known else "Make a fleet: farkernel fleet apply ROSTER",
        )


class NothingNamed(FarkernelError):
    kind = "usage"

    def __init__(self) -> None:
        super().__init__("no host is named", "Name hosts, or say --all")


class NotConfirmed(FarkernelError):
    kind = "not-confirmed"

    def __init__(self, count: int) -> None:
        super().__init__(
            f"{count} host{'s were' if count > 1 else ' was'} not reset: nobody said yes",
            "Say yes when asked, or give --yes",
        )


class NotReset(FarkernelError):
    kind = "not-reset"

    def __init__(self, failed: Sequence[str], total: int) -> None:
        super().__init__(
            f"{len(failed)} of {total} hosts could not be reset ({', '.join(failed[:10])})",
            "See why above, and reset them again",
        )


class SettingFailed(FarkernelError):
    kind = "reset"

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {one_line(why)[:300]}", "See to that on the host, and reset it again")


class Setback(NamedTuple):
    """What is to be done with one host."""

    host: str
    directory: str
    template: str


def configure_reset(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "End a host's kernels, those that other machines' keepers started too, and make the directory that its roster "
        "names ([reset] directory) what the template is. What was in it is kept beside it, until the next reset. The "
        "card is not touched."
    )
    parser.add_argument("names", metavar="HOST", nargs="*", help="hosts of a fleet")
    parser.add_argument("--all", action="store_true", help="all hosts of all fleets, or of --fleet")
    parser.add_argument("--fleet", metavar="FLEET", help="only hosts of this one")
    parser.add_argument("--reboot", action="store_true", help="and restart the machine (by sudo, if it must)")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    add_json(parser)


def run_reset(arguments: argparse.Namespace) -> int:
    wanted = _wanted(arguments)
    if not arguments.yes and not _confirmed(wanted, arguments.reboot):
        raise NotConfirmed(len(wanted))
    results = []
    with ThreadPoolExecutor(_AT_A_TIME) as workers:
        for result in workers.map(lambda each: _reset(each, arguments.reboot), wanted):
            results.append(result)
            if not arguments.json:
                _tell(result)
    if arguments.json:
        emit(results)
    failed = [str(result["host"]) for result in results if not result["ok"]]
    if failed:
        raise NotReset(failed, len(results))
    return 0


def _wanted(arguments: argparse.Namespace) -> list[Setback]:
    """Raises NothingNamed, NotAHost, NoSuchFleet."""
    known = {
        host.name: Setback(host.name, fleet.directory, fleet.template)
        for fleet in _fleets(arguments.fleet)
        for host in fleet.hosts
    }
    if arguments.all:
        if not known:
            raise NothingNamed
        return list(known.values())
    if not arguments.names:
        raise NothingNamed
    for name in arguments.names:
        if name not in known:
            raise NotAHost(name, list(known))
    return [known[name] for name in dict.fromkeys(arguments.names)]


def _fleets(name: str | None) -> Iterable[Recorded]:
    return chosen([name] if name else [])


def _confirmed(wanted: Sequence[Setback], reboot: bool) -> bool:
    if not sys.stdin.isatty():
        return False
    names = ", ".join(each.host for each in wanted[:8]) + (" …" if len(wanted) > 8 else "")
    lessons = sorted({each.directory for each in wanted if each.directory})
    also = f", ~/{', ~/'.join(lessons)} is set back" if lessons else ""
    print(f"{names}: all kernels end{also}{', and it restarts' if reboot else ''}.", file=sys.stderr)
    print("Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


# -- one host ----------------------------------------------------------------------------------------------


def _reset(each: Setback, reboot: bool) -> dict[str, Any]:
    """What became of it; never raises what concerns this host alone."""
    result: dict[str, Any] = {
        "host": each.host,
        "ok": False,
        "ended": 0,
        "directory": None,
        "restarted": False,
    }
    try:
        with Asking() as client:
            reach(client, each.host)
            result["ended"] = _end_kernels(client, each.host)
            if each.directory:
                result["directory"] = _set_back(client, each)
            if reboot:
                _restart(client, each.host)
                result["restarted"] = True
    except FarkernelError as error:
        return {**result, "what": error.what, "advice": error.advice}
    return {**result, "ok": True}


def _end_kernels(client: Asking, host: str) -> int:
    """Ours, then those of the same user's other keepers; returns how many."""
    places = (host, board_name(host))
    ended = 0
    for row in listing(client, False)["kernels"]:
        if row.get("state") != "ended" and (row.get("member") in places or row.get("target") in places):
            _end(client, str(row["kernel"]))
            ended += 1
    others = client.request("elsewhere", STOP_DEADLINE, targets=[host])
    for row in others.get("kernels") or []:
        if isinstance(row, dict):
            _end(client, take_up(client, row))
            ended += 1
    return ended


def _end(client: Asking, kernel: str) -> None:
    client.request("stop", STOP_DEADLINE, kernel=kernel, now=False, restart=False)
    client.request("cleanup", STOP_DEADLINE, kernel=kernel, restart=False)


def _set_back(client: Asking, each: Setback) -> str:
    """What was there goes aside, then the template comes."""
    program = errand_text("setting_aside").encode()
    command = FarCommand(
        client, each.host, ["{python}", "-I", "-c", _BOOT, str(len(program)), each.directory]
    )
    command.socket.sendall(program)
    command.read_all()
    status, said = command.ended()
    if status != 0:
        raise SettingFailed(f"~/{each.directory} could not be set aside", said or f"status {status}")
    if each.template:
        copied = copying_over.copy(client, each.host, each.template, each.directory, False, False)
        if copied["failures"]:
            raise SettingFailed(
                f"~/{each.directory} is not whole", f"{copied['failures']} files could not be copied"
            )
    return posixpath.join("~", each.directory)


def _restart(client: Asking, host: str) -> None:
    """The machine may be gone before the command has ended."""
    script = 'if [ "$(id -u)" = 0 ]; then reboot; else sudo -n reboot; fi'
    command = FarCommand(client, host, ["/bin/sh", "-c", script])
    command.read_all()
    try:
        status, said = command.ended()
    except FarkernelError:
        return
    if status not in (0, None) and said:
        raise SettingFailed("it was not restarted", said.splitlines()[-1])


def _tell(result: dict[str, Any]) -> None:
    if not result["ok"]:
        say(f"{result['host']}: not reset: {result['what'].rstrip('.')}. {result['advice']}".rstrip())
        return
    count = result["ended"]
    parts = [f"{count} kernel{'s' * (count != 1)} ended"]
    if result["directory"]:
        parts.append(f"{result['directory']} is set back")
    if result["restarted"]:
        parts.append("it restarts")
    say(f"{result['host']}: {', '.join(parts)}.")
