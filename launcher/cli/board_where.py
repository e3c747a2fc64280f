"""Which board a word on the command line means: a target, an address, a device, or `auto`."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from .. import configuration
from ..address import parse_address
from ..board.contract import SerialOptions, Transport
from ..board.errors import BoardError, BoardGone
from ..board.password import password_from
from ..board.ports import SeveralBoards, list_ports
from ..board.reach import transport_to
from ..board.session import Board
from ..settings import Target

T = TypeVar("T")


class NotABoardHere(BoardError):
    """The word names something else."""

    kind = "board-elsewhere"

    def __init__(self, where: str, address: str) -> None:
        super().__init__(
            f"{where!r} ({address}) is not a board that can be reached from here",
            "Name a device like /dev/ttyUSB0, or a target whose address is serial:///… or webrepl://…",
        )


def add_where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "where",
        metavar="TARGET|DEVICE",
        help="a target, an address (serial:///…), a device (/dev/ttyUSB0), or auto: the only board there is",
    )


def target_of(where: str) -> Target:
    """Raises FarkernelError."""
    if where == "auto":
        return Target("auto", parse_address(_only_board()))
    if ":" in where:
        target = Target("board", parse_address(where))
    elif "/" in where:
        target = Target("board", parse_address(f"serial://{where}"))
    else:
        target = configuration.load().target(where)
    if target.address.scheme not in ("serial", "webrepl"):
        raise NotABoardHere(where, str(target.address))
    return target


def _only_board() -> str:
    ports = [port for port in list_ports() if port.vendor is not None]
    if not ports:
        raise BoardGone("USB")
    if len(ports) > 1:
        raise SeveralBoards("auto", ports)
    return f"serial://{ports[0].device}"


def transport_of(where: str) -> Transport:
    """Raises FarkernelError; asks for a WebREPL's password at the terminal when the configuration has none."""
    target = target_of(where)
    password = ""
    if target.password_command:
        password = password_from(target.password_command)
    elif target.address.scheme == "webrepl" and sys.stdin.isatty():
        password = getpass.getpass(f"Password of the WebREPL at {target.address.host}: ")
    return transport_to(target.address, SerialOptions(target.baud, target.dtr, target.rts), password)


def with_board(where: str, act: Callable[[Board], Awaitable[T]]) -> T:
    """Connect, act, and leave the board at its prompt."""
    transport = transport_of(where)

    async def run() -> T:
        board = Board(transport)
        await board.connect()
        try:
            return await act(board)
        finally:
            await board.close()

    return asyncio.run(run())
