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
from ..client import KeeperClient
from ..discovery.machine import Machine, read_machine
from ..errors import FarkernelError, RemoteError
from ..text import clean, one_line
from . import bars, machine_lines, watching
from .arguments import add_json
from .asking import Asking
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

    def as_dict(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "address": self.address,
            "ok": self.machine is not None,
            "what": self.what,
            "advice": self.advice,
            "machine": None if self.machine is None else asdict(self.machine),
        }


class CannotWrite(FarkernelError):
    kind = "file"

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path} cannot be written: {why}", "Name another file: --html FILE")


def configure_resources(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "What is there and what is free: CPUs, memory, GPUs, disks, CUDA, OpenCL, boards.  Without NAME: of all "
        "targets.  They are asked at the same time, and no kernel is started."
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="targets")
    parser.add_argument(
        "--watch", metavar="SECONDS", nargs="?", type=float, const=INTERVAL, help="look again and again"
    )
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
        from . import machine_page

        write(arguments.html, machine_page.page(looked, time.time()))
    elif len(looked) == 1 and looked[0].machine is None:
        raise RemoteError("probe", looked[0].what, looked[0].advice)
    else:
        print("\n".join(render(looked, terminal_columns(sys.stdout) or _WIDTH, colours_wanted(sys.stdout))))
    return 0 if any(one.machine is not None for one in looked) else 1


def look(client: KeeperClient, addresses: dict[str, str], deadline: float) -> list[Looked]:
    # The keeper opens a hundred connections at a time; in the worst case each of them waits for its deadline.
    patience = deadline * (1 + len(addresses) // 100) + 15
    answer = client.request("probe", patience, targets=list(addresses), deadline=deadline)
    found = answer.get("targets")
    found = found if isinstance(found, dict) else {}
    return [_looked(name, address, found.get(name)) for name, address in addresses.items()]


def _looked(name: str, address: str, row: Any) -> Looked:
    row = row if isinstance(row, dict) else {}
    if row.get("ok") and isinstance(row.get("machine"), dict):
        return Looked(name, address, read_machine(row["machine"]))
    what, advice = str(row.get("what") or "the keeper says nothing of it"), str(row.get("advice") or "")
    return Looked(name, address, None, what, advice)


# -- on a terminal -----------------------------------------------------------------------------------------


def render(looked: Sequence[Looked], columns: int, colours: bool) -> list[str]:
    """A block for each target, and one line or two for each that could not be looked at."""
    shown: list[str] = []
    plain = not can_draw()
    for one in looked:
        if shown:
            shown.append("")
        shown += _block(one, columns, colours, plain)
    return shown


def _block(one: Looked, columns: int, colours: bool, plain: bool) -> list[str]:
    name = one_line(one.target)
    if one.machine is None:
        text = f"{one.what.rstrip('.')}. {one.advice}".strip()
        first, *rest = fold(one_line(text), columns - len(name) - 10) or [""]
        failed = paint("failed", "red", colours)
        indent = " " * (len(name) + 10)
        return [f"{paint(name, 'bold', colours)}  {failed}  {first}", *(indent + line for line in rest)]
    about = fold(one_line(machine_lines.title(one.machine)), columns - len(name) - 2) or [""]
    head = [f"{paint(name, 'bold', colours)}  {about[0]}".rstrip()]
    head += [" " * (len(name) + 2) + line for line in about[1:]]
    return head + bars.draw(machine_lines.lines(one.machine), columns, colours, plain)


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
            from . import machine_page

            write(arguments.html, machine_page.page(looked, time.time(), interval))
            return []
        if screen:
            return render(looked, terminal_columns(sys.stdout) or _WIDTH, colours_wanted(sys.stdout))
        return [*render(looked, _WIDTH, False), ""]

    watching.repeat(lines, interval, screen and not arguments.html)


def write(path: str, page: str) -> None:
    if path == "-":
        print(page)
        return
    try:
        Path(path).write_text(page, "utf-8")
    except OSError as error:
        raise CannotWrite(clean(path), error.strerror or str(error)) from error
