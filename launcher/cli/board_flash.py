"""`farkernel board flash TARGET|DEVICE FILE`: an image onto a board, with progress, compared afterwards."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TextIO

from ...device_images import drive, firmware, flashing, manifest
from ...device_images.flashing import FlashJob, Step
from .. import configuration
from ..address import parse_address
from ..board import ports
from ..errors import FarkernelError
from ..settings import Target
from . import table
from .arguments import add_json
from .flash_far import far
from .output import complain, emit, say, terminal_columns


class NotABoardHere(FarkernelError):
    kind = "board-elsewhere"

    def __init__(self, name: str, address: str) -> None:
        super().__init__(
            f"{name!r} ({address}) is not a board on a cable",
            "Name a device like /dev/ttyUSB0, or a target whose address is serial:///dev/… or serial://host/dev/…",
        )


class BadBaud(FarkernelError):
    kind = "usage"

    def __init__(self, baud: int) -> None:
        super().__init__(
            f"{baud} is no speed for a serial line", "115200 works everywhere, 460800 on most boards"
        )


def configure_flash(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "where",
        metavar="TARGET|DEVICE",
        help="a target (serial:///dev/… or serial://host/dev/…), a device (/dev/ttyUSB0), rfc2217://HOST:PORT, "
        "or a board's drive (a folder)",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="what `farkernel image` made, or a firmware")
    parser.add_argument(
        "--baud",
        type=int,
        default=flashing.BAUD,
        help=f"speed; {flashing.BAUD} unless given, 115200 for bad cables",
    )
    add_json(parser)


def run_flash(arguments: argparse.Namespace) -> int:
    if not 300 <= arguments.baud <= 4_000_000:
        raise BadBaud(arguments.baud)
    data = firmware.read(arguments.file)
    manifest.refuse_bad_copy(arguments.file, data, manifest.load())
    display = Display(sys.stderr)
    target = target_of(arguments.where)
    open_tool = None
    if target is None:
        port = arguments.where
    elif target.address.host is not None:
        port = str(target.address)
        open_tool = far(target, lambda doing: display.show(Step(doing)))
    else:
        port = ports.locate(str(target.address.path))
    if Path(port).is_dir():
        return _copy(Path(port), data, arguments)
    try:
        done = flashing.flash(FlashJob(port, data, arguments.baud), display.show, open_tool)
    except KeyboardInterrupt:
        display.clear()
        if display.writing:
            complain("what is on the board now is incomplete. Flash it again.")
        raise
    finally:
        display.clear()
    if arguments.json:
        emit(
            {
                "port": port,
                "chip": done.chip,
                "mac": done.mac,
                "flash_size": done.flash_size,
                "bytes": done.size,
                "seconds": round(done.seconds, 1),
                "verified": True,
            }
        )
    else:
        say(
            f"{table.size(done.size)} are on the {done.chip} at {port} ({done.mac}), compared after writing, "
            f"in {table.duration(done.seconds)}; the board starts."
        )
    return 0


def target_of(where: str) -> Target | None:
    """None: what was named is a device or a drive itself.  Raises FarkernelError."""
    if where.startswith("serial:"):
        target = Target("board", parse_address(where))
    elif "/" in where:
        return None
    else:
        target = configuration.load().target(where)
    if target.address.scheme != "serial" or target.address.path is None:
        raise NotABoardHere(where, str(target.address))
    return target


def _copy(place: Path, data: bytes, arguments: argparse.Namespace) -> int:
    name = drive.copy(place, data)
    if arguments.json:
        emit({"drive": str(place), "file": name, "bytes": len(data)})
    else:
        say(
            f"{table.size(len(data))} were copied to the board's drive {place}; the board takes them in and starts."
        )
    return 0


class Display:
    """Progress for people: one line on a terminal, a line for each tenth elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._columns = terminal_columns(stream)
        self._tenth = -1
        self._doing = ""
        self.writing = False

    def show(self, step: Step) -> None:
        if step.percent is not None:
            self.writing = True
        line = step.doing if step.percent is None else f"{step.doing} {step.percent} %"
        if self._columns is not None:
            self._stream.write(f"\r{table.cut(line, self._columns - 1)}\x1b[K")
        elif step.percent is None:
            self._stream.write(line + "\n")
        elif step.percent // 10 != self._tenth or step.doing != self._doing:
            self._tenth = step.percent // 10
            self._stream.write(line + "\n")
        self._doing = step.doing
        self._stream.flush()

    def clear(self) -> None:
        if self._columns is not None:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
