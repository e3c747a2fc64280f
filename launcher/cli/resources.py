"""`farkernel resources`: what the targets have and what of it is free."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from .. import configuration
from ..address import parse_address
from ..client import KeeperClient
from ..discovery.cluster import Cluster, read_cluster
from ..discovery.machine import Machine, read_machine
from ..errors import FarkernelError, RemoteError
from ..text import clean, one_line
from . import bars, cluster_lines, machine_lines, watching
from .arguments import add_json
from .asking import Asking
from .machine_lines import Line
from .output import colours_wanted, emit, fold, paint, say, terminal_columns

DEADLINE = 15.0
INTERVAL = 2.0
_WIDTH = 100  # where it is no terminal


@dataclass(frozen=True)
class Looked:
    """What came of looking at one target."""

    target: str
    address: str
    machine: Machine | None
    what: str = ""
    advice: str = ""
    cluster: Cluster | None = None

    @property
    def ok(self) -> bool:
        return self.machine is not None or self.cluster is not None

    @property
    def queue(self) -> str | None:
        """Where in its cluster the target sends its jobs; None: the default."""
        return None if self.cluster is None else parse_address(self.address).partition

    def as_dict(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "address": self.address,
            "ok": self.ok,
            "what": self.what,
            "advice": self.advice,
            "machine": None if self.machine is None else asdict(self.machine),
            "cluster": None if self.cluster is None else asdict(self.cluster),
            "queue": self.queue,
        }


class CannotWrite(FarkernelError):
    kind = "file"

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path} cannot be written: {why}", "Name another file: --html FILE")


def configure_resources(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "What is there and what is free: CPUs, memory, GPUs, disks, CUDA, OpenCL, boards; of clusters their queues, "
        "limits, accounts and your jobs.  Without NAME: of all targets.  They are asked at the same time, and no "
        "kernel is started."
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="targets")
    parser.add_argument(
        "--watch", metavar="SECONDS", nargs="?", type=float, const=INTERVAL, help="look again and again"
    )
    parser.add_argument("--nodes", action="store_true", help="each node of a cluster, too")
    parser.add_argument("--html", metavar="FILE", help="write a page that needs nothing else; - is stdout")
    parser.add_argument(
        "--deadline", metavar="SECONDS", type=float, default=DEADLINE, help="for each target (%(default)g)"
    )
    add_json(parser)


def run_resources(arguments: argparse.Namespace) -> int:
    found = configuration.load()
    names = list(dict.fromkeys(arguments.names)) or list(found.targets)
    addresses = {name: str(found.target(name).address) for name in names}
    if not names:
        say("There are no targets yet. Add one: farkernel add here local:")
        return 0
    if arguments.watch is not None:
        with KeeperClient() as client:
            watch(client, addresses, arguments)
    with Asking() as client:
        looked = look(client, addresses, arguments.deadline)
    if arguments.json:
        emit([one.as_dict() for one in looked])
    elif arguments.html:
        write(arguments.html, page(looked))
    elif len(looked) == 1 and not looked[0].ok:
        raise RemoteError("probe", looked[0].what, looked[0].advice)
    else:
        columns, colours = terminal_columns(sys.stdout) or _WIDTH, colours_wanted(sys.stdout)
        print("\n".join(render(looked, columns, colours, arguments.nodes)))
    return 0 if any(one.ok for one in looked) else 1


def look(
    client: KeeperClient, addresses: dict[str, str], deadline: float, wanted: list[str] | None = None
) -> list[Looked]:
    """``wanted``: parts of machines (docs/resources.md); all, if nothing is said."""
    # The keeper opens a hundred connections at a time; in the worst case each of them waits for its deadline.
    patience = deadline * (1 + len(addresses) // 100) + 15
    answer = client.request("probe", patience, targets=list(addresses), deadline=deadline, wanted=wanted)
    found = answer.get("targets")
    found = found if isinstance(found, dict) else {}
    return [_looked(name, address, found.get(name)) for name, address in addresses.items()]


def _looked(name: str, address: str, row: Any) -> Looked:
    row = row if isinstance(row, dict) else {}
    if row.get("ok") and isinstance(row.get("machine"), dict):
        return Looked(name, address, read_machine(row["machine"]))
    if row.get("ok") and isinstance(row.get("cluster"), dict):
        return Looked(name, address, None, cluster=read_cluster(row["cluster"]))
    what, advice = str(row.get("what") or "the keeper says nothing of it"), str(row.get("advice") or "")
    return Looked(name, address, None, what, advice)


# -- on a terminal -----------------------------------------------------------------------------------------


def render(looked: Sequence[Looked], columns: int, colours: bool, nodes: bool = False) -> list[str]:
    """A block for each machine and each cluster, and one line or two for each that could not be looked at."""
    shown: list[str] = []
    plain = not can_draw()
    for block in blocks(looked):
        if shown:
            shown.append("")
        if block[0].ok:
            shown += _block(block, columns, colours, plain, nodes)
        else:
            shown += _failure(block[0], columns, colours)
    return shown


def blocks(looked: Sequence[Looked]) -> list[list[Looked]]:
    """Targets that are parts of one cluster are shown together, where the first of them stands."""
    found: list[list[Looked]] = []
    for one in looked:
        same = [block for block in found if one.cluster is not None and block[0].cluster == one.cluster]
        if same:
            same[0].append(one)
        else:
            found.append([one])
    return found


def about(block: Sequence[Looked], nodes: bool = False) -> tuple[str, list[Line]]:
    """A block's title and lines."""
    machine, cluster = block[0].machine, block[0].cluster
    if cluster is None:
        assert machine is not None
        return machine_lines.title(machine), machine_lines.lines(machine)
    targets: dict[str | None, list[str]] = {}
    for one in block:
        targets.setdefault(one.queue, []).append(one.target)
    lines = cluster_lines.lines(cluster, targets)
    return cluster_lines.title(cluster), lines + (cluster_lines.node_lines(cluster.nodes) if nodes else [])


def _failure(one: Looked, columns: int, colours: bool) -> list[str]:
    name = one_line(one.target)
    text = f"{one.what.rstrip('.')}. {one.advice}".strip()
    first, *rest = fold(one_line(text), columns - len(name) - 10) or [""]
    failed = paint("failed", "red", colours)
    indent = " " * (len(name) + 10)
    return [f"{paint(name, 'bold', colours)}  {failed}  {first}", *(indent + line for line in rest)]


def _block(block: Sequence[Looked], columns: int, colours: bool, plain: bool, nodes: bool) -> list[str]:
    name = ", ".join(one_line(one.target) for one in block)
    title, lines = about(block, nodes)
    said = fold(one_line(title), columns - len(name) - 2) or [""]
    head = [f"{paint(name, 'bold', colours)}  {said[0]}".rstrip()]
    head += [" " * (len(name) + 2) + line for line in said[1:]]
    return head + bars.draw(lines, columns, colours, plain)


def can_draw() -> bool:
    """Whether stdout takes more than ASCII."""
    try:
        "█▏°".encode(sys.stdout.encoding or "ascii")
    except (UnicodeError, LookupError):
        return False
    return True


# -- again and again ---------------------------------------------------------------------------------------


def watch(client: KeeperClient, addresses: dict[str, str], arguments: argparse.Namespace) -> NoReturn:
    """Until Ctrl-C."""
    interval = max(arguments.watch, watching.SHORTEST)
    screen = sys.stdout.isatty() and not arguments.json

    def lines() -> list[str]:
        looked = look(client, addresses, arguments.deadline)
        if arguments.json:
            return [json.dumps([one.as_dict() for one in looked])]
        if arguments.html:
            write(arguments.html, page(looked, interval))
            return []
        if screen:
            columns = terminal_columns(sys.stdout) or _WIDTH
            return render(looked, columns, colours_wanted(sys.stdout), arguments.nodes)
        return [*render(looked, _WIDTH, False, arguments.nodes), ""]

    watching.repeat(lines, interval, screen and not arguments.html)


def page(looked: Sequence[Looked], again: float | None = None) -> str:
    """``again``: seconds after which the page loads itself anew."""
    from . import machine_page

    shown = []
    for block in blocks(looked):
        names, addresses = ", ".join(one.target for one in block), ", ".join(one.address for one in block)
        if block[0].ok:
            nodes = () if block[0].cluster is None else cluster_lines.node_lines(block[0].cluster.nodes)
            shown.append(machine_page.Block(names, addresses, *about(block), nodes))
        else:
            failed = f"{block[0].what.rstrip('.')}. {block[0].advice}".strip()
            shown.append(machine_page.Block(names, addresses, failed=failed))
    targets = f"{sum(one.ok for one in looked)} of {len(looked)} targets"
    return machine_page.page(shown, targets, time.time(), again)


def write(path: str, page: str) -> None:
    if path == "-":
        print(page)
        return
    try:
        Path(path).write_text(page, "utf-8")
    except OSError as error:
        raise CannotWrite(clean(path), error.strerror or str(error)) from error
