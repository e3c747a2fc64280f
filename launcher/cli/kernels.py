"""`farkernel ps`, `stop`, `interrupt`, `logs`, `release`: what the keeper holds."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from typing import Any

from .. import configuration
from ..client import KeeperClient
from ..errors import FarkernelError
from ..text import clean
from . import table
from .arguments import add_json
from .asking import Asking
from .elsewhere import cancel, elsewhere, take_up
from .output import emit, say

STOP_DEADLINE = 60.0
RECENT = 3600.0  # seconds for which `ps` shows kernels that have ended, without being asked
SHORT = 8  # characters of an id that a listing shows; any unique beginning will do

Row = dict[str, Any]


class NoSuchId(FarkernelError):
    kind = "no-such-id"

    def __init__(self, what: str, text: str) -> None:
        super().__init__(f"there is no {what} {text[:80]!r}", "See `farkernel ps`.")


class AmbiguousId(FarkernelError):
    kind = "ambiguous-id"

    def __init__(self, what: str, text: str, found: list[str]) -> None:
        super().__init__(
            f"{text[:80]!r} could be any of {len(found)} {what}s ({', '.join(found[:5])})",
            "Give more of the ID.",
        )


def pick(what: str, text: str, known: Iterable[str]) -> str:
    """The one id that is or begins with this text; raises `NoSuchId`, `AmbiguousId`."""
    ids = sorted(set(known))
    if text in ids:
        return text
    found = [each for each in ids if text and each.startswith(text)]
    if not found:
        raise NoSuchId(what, text)
    if len(found) > 1:
        raise AmbiguousId(what, text, found)
    return found[0]


def listing(client: KeeperClient, everything: bool) -> dict[str, list[Row]]:
    """The keeper's kernels and allocations, whatever else it may say."""
    answer = client.request("list", all=everything)
    return {
        what: [row for row in answer.get(what) or [] if isinstance(row, dict)]
        for what in ("kernels", "allocations")
    }


# -- ps ----------------------------------------------------------------------------------------------------


def configure_ps(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="*", help="only of these targets or menu entries")
    parser.add_argument(
        "--all",
        action="store_true",
        help="also those that ended over an hour ago, and kernels and jobs of other keepers: asks the targets",
    )
    add_json(parser)


def run_ps(arguments: argparse.Namespace) -> int:
    if arguments.all:
        configuration.load()  # what is wrong with it is said before anybody is asked
    with Asking() as client:
        found = listing(client, True)
        if arguments.all:
            for what, rows in elsewhere(client).items():
                found[what] += rows
    if not arguments.all:
        found["kernels"] = [row for row in found["kernels"] if is_news(row, time.time())]
    if arguments.names:
        found = restrict(found, set(arguments.names))
    if arguments.json:
        emit(found)
        return 0
    if not any(found.values()):
        say(
            "There are no kernels."
            if arguments.all
            else "There are no kernels now; those that ended: farkernel ps --all"
        )
        return 0
    if found["kernels"]:
        table.show(KERNEL_COLUMNS, [kernel_cells(row) for row in found["kernels"]], aside="why")
    if found["allocations"]:
        if found["kernels"]:
            print()
        table.show(ALLOCATION_COLUMNS, [allocation_cells(row) for row in found["allocations"]], aside="why")
    return 0


def is_news(row: Row, now: float) -> bool:
    """What has ended is shown for an hour: somebody may wonder where it is."""
    since = row.get("since")
    return row.get("state") != "ended" or not isinstance(since, int | float) or now - since < RECENT


def restrict(found: dict[str, list[Row]], names: set[str]) -> dict[str, list[Row]]:
    kernels = [
        row for row in found["kernels"] if names & {row.get("target"), row.get("member"), row.get("entry")}
    ]
    held = {row.get("allocation") for row in kernels}
    allocations = [
        row for row in found["allocations"] if row.get("allocation") in held or row.get("target") in names
    ]
    return {"kernels": kernels, "allocations": allocations}


KERNEL_COLUMNS = (
    table.Column("id", "KERNEL"),
    table.Column("entry", "ENTRY", shrinks=True),
    table.Column("state", "STATE"),
    table.Column("since", "SINCE", right=True),
    table.Column("left", "LEFT", right=True),
    table.Column("memory", "MEMORY", right=True),
    table.Column("gpu", "GPU", right=True),
    table.Column("asked", "ASKED FOR", shrinks=True),
    table.Column("engine", "ENGINE", shrinks=True),
    table.Column("where", "WHERE", shrinks=True),
    table.Column("notebook", "NOTEBOOK", shrinks=True),
    table.Column("why", "REASON", shrinks=True),
)

ALLOCATION_COLUMNS = (
    table.Column("allocation", "ALLOCATION", shrinks=True),
    table.Column("target", "TARGET", shrinks=True),
    table.Column("state", "LINK"),
    table.Column("since", "SINCE", right=True),
    table.Column("left", "LEFT", right=True),
    table.Column("kernels", "KERNELS", shrinks=True),
    table.Column("why", "REASON", shrinks=True),
)


def kernel_cells(row: Row) -> Row:
    usage = row.get("usage") if isinstance(row.get("usage"), dict) else {}
    reason = row.get("reason")
    return {
        "id": str(row.get("kernel", ""))[:SHORT],
        "entry": row.get("entry"),
        "state": row.get("state"),
        "since": table.ago(row.get("since")),
        "left": table.duration(row.get("left")),
        "memory": table.size((usage or {}).get("memory")),
        "gpu": gpus(row.get("devices")) or table.size((usage or {}).get("gpu_memory")),
        "asked": asked_for(row.get("answers")),
        "engine": engine(row.get("engine")),
        "where": where(row),
        "notebook": row.get("notebook"),
        "why": reason.get("text") if isinstance(reason, dict) else reason or row.get("why"),
    }


def where(row: Row) -> Any:
    """The allocation; for a kernel of another keeper also where that one is."""
    place = row.get("allocation")
    if row.get("member"):
        place = f"{row['member']} ({place})" if place else row["member"]
    if "attended" not in row:
        return place
    if row.get("spare"):
        return f"{place} (a warm spare)"
    host = row.get("host") or "elsewhere"
    return f"{place} (of {host}{', attached there' if row['attended'] else ''})"


def asked_for(answers: Any) -> str:
    """What its user answered when the first cell was run: "gpus 2, time 4h"."""
    if not isinstance(answers, dict):
        return ""
    return ", ".join(f"{name} {value}" for name, value in answers.items())


def gpus(devices: Any) -> str:
    """Those that were leased for a kernel: "GPU 0, MIG 1.4"."""
    if not isinstance(devices, list) or not devices:
        return ""
    from ..discovery.machine import read_machine
    from .machine_lines import gpu_label

    return ", ".join(gpu_label(gpu) for gpu in read_machine({"gpus": devices}).gpus)


def engine(said: Any) -> str:
    """The engine across several nodes: "Dask on 2 of 3 nodes, http://127.0.0.1:8787/status"."""
    if not isinstance(said, dict) or not said.get("title"):
        return ""
    if said.get("state") not in ("ready", "degraded"):
        return f"{said['title']}: {said.get('state')}"
    nodes = [each for each in said.get("nodes") or [] if isinstance(each, dict)]
    up = sum(each.get("state") == "up" for each in nodes)
    count = str(len(nodes)) if up == len(nodes) else f"{up} of {len(nodes)}"
    url = f", {said['url']}" if said.get("url") else ""
    return f"{said['title']} on {count} node{'s' * (len(nodes) != 1)}{url}"


def allocation_cells(row: Row) -> Row:
    kernels = row.get("kernels")
    return {
        "allocation": row.get("allocation"),
        "target": row.get("target"),
        "state": row.get("link") or row.get("state"),
        "since": table.ago(row.get("since")),
        "left": table.duration(row.get("left")),
        "kernels": ", ".join(str(each)[:SHORT] for each in kernels) if isinstance(kernels, list) else kernels,
        "why": row.get("why"),
    }


# -- one kernel --------------------------------------------------------------------------------------------


def configure_stop(parser: argparse.ArgumentParser) -> None:
    _one_kernel(parser)
    parser.add_argument("--now", action="store_true", help="without giving it time to end by itself")


def run_stop(arguments: argparse.Namespace) -> int:
    with Asking() as client:
        kernel = _kernel(client, arguments.id)
        client.request("stop", STOP_DEADLINE, kernel=kernel, now=arguments.now, restart=False)
        # Stopping keeps the allocation, for a restart; being done with the kernel gives it back.
        client.request("cleanup", STOP_DEADLINE, kernel=kernel, restart=False)
    return _done(arguments, kernel, "has been stopped")


def configure_interrupt(parser: argparse.ArgumentParser) -> None:
    _one_kernel(parser)


def run_interrupt(arguments: argparse.Namespace) -> int:
    with Asking() as client:
        kernel = _kernel(client, arguments.id)
        client.request("interrupt", kernel=kernel)
    return _done(arguments, kernel, "has been interrupted")


def configure_logs(parser: argparse.ArgumentParser) -> None:
    _one_kernel(parser)
    parser.add_argument(
        "--size", metavar="BYTES", type=int, default=65536, help="at most that much of its end"
    )


def run_logs(arguments: argparse.Namespace) -> int:
    with Asking() as client:
        kernel = _kernel(client, arguments.id, everything=True)
        log = str(client.request("logs", kernel=kernel, size=arguments.size).get("log") or "")
    if arguments.json:
        emit({"kernel": kernel, "log": log})
    else:
        sys.stdout.write(clean(log.replace("\r\n", "\n"), keep="\n\t"))
        if log and not log.endswith("\n"):
            print()
    return 0


def _one_kernel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="of a kernel, or its beginning, as `farkernel ps` shows it")
    add_json(parser)


def find_kernel(client: KeeperClient, text: str, everything: bool = False) -> Row:
    """The kernel with that id; one that only an agent at some target has is taken up.

    With `everything` also one that has ended (but not one that another keeper has taken: it lives).
    """
    rows = {str(row.get("kernel")): row for row in listing(client, everything)["kernels"]}
    here = {name: row for name, row in rows.items() if (row.get("reason") or {}).get("kind") != "taken"}
    try:
        return here[pick("kernel", text, here)]
    except NoSuchId:
        far = {str(row.get("kernel")): row for row in elsewhere(client)["kernels"]}
        row = far[pick("kernel", text, far)]
        return {**row, "kernel": take_up(client, row)}


def _kernel(client: KeeperClient, text: str, everything: bool = False) -> str:
    return str(find_kernel(client, text, everything)["kernel"])


def _done(arguments: argparse.Namespace, kernel: str, what: str) -> int:
    if arguments.json:
        emit({"kernel": kernel})
    else:
        say(f"Kernel {kernel[:SHORT]} {what}.")
    return 0


# -- allocations -------------------------------------------------------------------------------------------


def configure_release(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Give an allocation back; the kernels in it end.  Also a job that another keeper of yours submitted, as "
        "`farkernel ps --all` shows it."
    )
    parser.add_argument(
        "id", metavar="ID", help="of an allocation, or its beginning, as `farkernel ps` shows it"
    )
    add_json(parser)


def run_release(arguments: argparse.Namespace) -> int:
    with Asking() as client:
        known = [str(row.get("allocation")) for row in listing(client, False)["allocations"]]
        try:
            allocation = pick("allocation", arguments.id, known)
            client.request("release", STOP_DEADLINE, allocation=allocation)
        except NoSuchId:
            far = {str(row.get("allocation")): row for row in elsewhere(client)["allocations"]}
            allocation = pick("allocation", arguments.id, far)
            cancel(client, far[allocation])
    if arguments.json:
        emit({"allocation": allocation})
    else:
        say(f"Allocation {allocation} has been given back; the kernels in it have ended.")
    return 0
