"""`farkernel fleet status`: the teacher's one look."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from ..client import KeeperClient
from ..fleet import here, status
from ..fleet.record import Recorded
from ..fleet.status import HostStatus
from . import table, watching
from .arguments import add_json
from .asking import Asking
from .kernels import listing
from .output import colours_wanted, emit, say, terminal_columns

DEADLINE = 10.0
INTERVAL = 5.0
_AT_A_TIME = 100  # that many hosts the keeper asks side by side

_COLUMNS = (
    table.Column("host", "HOST"),
    table.Column("student", "STUDENT", shrinks=True),
    table.Column("state", "STATE"),
    table.Column("temperature", "TEMP", right=True),
    table.Column("trouble", "TROUBLE", shrinks=True),
    table.Column("load", "LOAD", right=True),
    table.Column("memory", "FREE", right=True),
    table.Column("users", "LOGGED IN", shrinks=True),
    table.Column("kernels", "KERNELS", shrinks=True),
    table.Column("why", "WHY", shrinks=True),
)


def configure_status(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "How the hosts are that `farkernel fleet apply` made targets of: up, temperature, who is on them, kernels.  "
        "All are asked at the same time; one that does not answer costs its deadline."
    )
    parser.add_argument("fleets", metavar="FLEET", nargs="*", help="only these")
    parser.add_argument(
        "--watch", metavar="SECONDS", nargs="?", type=float, const=INTERVAL, help="look again and again"
    )
    parser.add_argument(
        "--deadline", metavar="SECONDS", type=float, default=DEADLINE, help="for each host (%(default)g)"
    )
    add_json(parser)


def run_status(arguments: argparse.Namespace) -> int:
    fleets = chosen(arguments.fleets)
    if not fleets and not arguments.json:
        say("There are no fleets yet. Make one: farkernel fleet apply ROSTER")
        return 0
    if arguments.watch is not None:
        with KeeperClient() as client:
            _watch(client, fleets, arguments)
    with Asking() as client:
        found = look(client, fleets, arguments.deadline)
    if arguments.json:
        emit([each.as_dict() for each in found])
    else:
        table.show(_COLUMNS, [_cells(each) for each in found], aside="why")
        print(f"\n{_summary(found)}")
    return 0


def chosen(names: Sequence[str]) -> list[Recorded]:
    """Those with these names, or all; raises NoSuchFleet."""
    known = here.recorded()
    for name in names:
        if name not in known:
            raise here.NoSuchFleet(name, list(known))
    return [known[name] for name in dict.fromkeys(names)] if names else list(known.values())


def look(client: KeeperClient, fleets: Sequence[Recorded], deadline: float) -> list[HostStatus]:
    names = list(dict.fromkeys(host.name for fleet in fleets for host in fleet.hosts))
    patience = deadline * (1 + len(names) // _AT_A_TIME) + 15
    answer = client.request("probe", patience, targets=names, deadline=deadline, wanted=list(status.PARTS))
    probed = answer.get("targets")
    probed = probed if isinstance(probed, dict) else {}
    kernels: list[Any] = listing(client, False)["kernels"]
    # Those that other keepers of the same user started: only where somebody answers.
    others = client.request("elsewhere", patience, targets=status.answering(probed))
    kernels += [row for row in others.get("kernels") or [] if isinstance(row, dict)]
    return status.statuses(fleets, probed, kernels)


def _cells(found: HostStatus) -> dict[str, Any]:
    machine = found.machine
    cells: dict[str, Any] = {
        "host": found.host.name,
        "student": found.host.student,
        "state": found.state,
        "kernels": ", ".join(_kernel(row) for row in found.kernels),
        "why": f"{found.what.rstrip('.')}. {found.advice}".strip(". ") if found.what else "",
    }
    if machine is None:
        return cells
    pi = machine.raspberrypi
    if pi is not None:
        cells["temperature"] = f"{pi.temperature:.0f} °C" if pi.temperature is not None else None
        past = [each for each in pi.throttled_before or () if each not in (pi.throttled or ())]
        cells["trouble"] = ", ".join([*(pi.throttled or ()), *(f"{each} before" for each in past)])
    cells["load"] = f"{machine.load[0]:.1f}" if machine.load else None
    cells["memory"] = table.size(machine.memory.available)
    cells["users"] = ", ".join(str(user.name) for user in machine.users)
    return cells


def _kernel(row: status.Row) -> str:
    notebook = os.path.basename(str(row.get("notebook") or ""))
    return notebook or str(row.get("entry") or row.get("kernel") or "")[:20]


def _summary(found: Sequence[HostStatus]) -> str:
    counts = {word: sum(each.state == word for each in found) for word in ("up", "hot", "throttled", "down")}
    parts = [f"{count} {word}" for word, count in counts.items() if count or word == "up"]
    kernels = sum(len(each.kernels) for each in found)
    return f"{len(found)} host{'s' * (len(found) != 1)}: {', '.join(parts)}; {kernels} kernel{'s' * (kernels != 1)}."


def _watch(client: KeeperClient, fleets: Sequence[Recorded], arguments: argparse.Namespace) -> NoReturn:
    """Until Ctrl-C."""

    def lines() -> list[str]:
        found = look(client, fleets, arguments.deadline)
        if arguments.json:
            return [json.dumps([each.as_dict() for each in found])]
        width, colours = terminal_columns(sys.stdout), colours_wanted(sys.stdout)
        rows = table.lay_out(_COLUMNS, [_cells(each) for each in found], width, colours)
        return [*rows, "", f"{_summary(found)}  {time.strftime('%H:%M:%S')}"]

    watching.repeat(lines, arguments.watch, sys.stdout.isatty() and not arguments.json)
