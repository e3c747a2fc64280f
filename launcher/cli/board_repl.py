"""`farkernel board reset|repl`."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import termios
import tty

from ..board.contract import Transport
from ..board.errors import BoardError
from ..board.raw_repl import CTRL_B
from ..board.session import Board
from .asking import Progress
from .board_where import add_where, transport_of, with_board
from .output import complain, say

LEAVE = b"\x1d"  # Ctrl-], as telnet and miniterm have it

# What the REPL's line editor needs of ECMA-48: moving, erasing and colours.  Titles, answers and the rest are left out.
_KEPT = re.compile(rb"\x1b\[[0-9;]{0,16}[A-DGHJKPm@]")
_ESCAPE = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-OQ-WYZ\\`-~])"
)
_LONGEST_HELD = 256


class NoTerminal(BoardError):
    """`repl` is for people."""

    kind = "usage"

    def __init__(self) -> None:
        super().__init__(
            "`farkernel board repl` needs a terminal", "For programs there is `farkernel launch`"
        )


def configure_reset(parser: argparse.ArgumentParser) -> None:
    parser.description = "Give a board a fresh interpreter; main.py does not run after it."
    add_where(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--hard", action="store_true", help="as if its reset button was pressed")
    how.add_argument("--bootloader", action="store_true", help="into its bootloader, to be flashed")


def run_reset(arguments: argparse.Namespace) -> int:
    async def act(board: Board) -> str:
        if arguments.bootloader:
            await board.bootloader()
            return "The board is in its bootloader."
        if arguments.hard:
            return f"The board has started again: {(await board.hard_reset()).firmware}."
        await board.soft_reset(lambda data: None)
        return "The board has a fresh interpreter."

    with Progress("resetting"):
        said = with_board(arguments.where, act)
    say(said)
    return 0


def configure_repl(parser: argparse.ArgumentParser) -> None:
    parser.description = "Talk to a board at this terminal; Ctrl-] leaves."
    add_where(parser)


def run_repl(arguments: argparse.Namespace) -> int:
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise NoTerminal
    transport = transport_of(arguments.where)
    before = termios.tcgetattr(sys.stdin)
    try:
        said = asyncio.run(Terminal(transport).run())
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
    print()
    if said:
        complain(said)
    return 1 if said else 0


class Terminal:
    """Keys to the board, and what it says to the screen.  A `Receiver`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._filter = ScreenFilter()
        self._over: asyncio.Future[str] | None = None

    async def run(self) -> str:
        """Until Ctrl-]; returns why it ended otherwise."""
        loop = asyncio.get_running_loop()
        self._over = loop.create_future()
        await self._transport.open(self)
        say(f"{self._transport.describe()}; Ctrl-] leaves.")
        sys.stdout.flush()
        tty.setraw(sys.stdin)
        loop.add_reader(sys.stdin.fileno(), self._typed)
        self._transport.write(CTRL_B)
        try:
            return await self._over
        finally:
            loop.remove_reader(sys.stdin.fileno())
            self._transport.close()

    def _typed(self) -> None:
        keys = os.read(sys.stdin.fileno(), 4096)
        before, leaves, _ = keys.partition(LEAVE)
        self._transport.write(before)
        if (leaves or not keys) and self._over is not None and not self._over.done():
            self._over.set_result("")

    def data_received(self, data: bytes) -> None:
        os.write(sys.stdout.fileno(), self._filter.feed(data))

    def writable(self) -> None:
        """What is typed is little."""

    def closed(self, said: str) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(said or "the board went away")


class ScreenFilter:
    """Lets through text and the escape sequences of a line editor; sequences may come in pieces."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        data, self._held = self._held + data, b""
        shown = b""
        while (place := data.find(b"\x1b")) >= 0:
            shown += _plain(data[:place])
            data = data[place:]
            found = _ESCAPE.match(data)
            if found is None and len(data) < _LONGEST_HELD:
                self._held = data
                return shown
            if found is not None and _KEPT.fullmatch(found[0]):
                shown += found[0]
            data = data[found.end() if found else 1 :]
        if data.endswith(b"\xc2"):  # perhaps the first half of a C1 control in UTF-8
            data, self._held = data[:-1], data[-1:]
        return shown + _plain(data)


def _plain(data: bytes) -> bytes:
    """Bytes above 127 are UTF-8 (a terminal that takes C1 controls from UTF-8 would need U+0080 to U+009F)."""
    return re.sub(rb"[\x00-\x06\x0b\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f]", b"", data)
