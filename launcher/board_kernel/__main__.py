"""`python -m farkernel.launcher.board_kernel -f CONNECTION_FILE --device DEVICE`: a `serial://` target's kernel."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence

from ..board.contract import SerialOptions
from ..board.holding import introduce
from ..board.password import password_from
from ..board.reach import board_at
from ..errors import FarkernelError
from ..local_end.contract import ConnectionInfo
from .held import PATIENCE, Boards
from .kernel import Kernel
from .magics.connection import place_of
from .wire import Wire

_SWITCH = {"on": True, "off": False, "driver": None}


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="farkernel.launcher.board_kernel", description=__doc__)
    parser.add_argument("-f", dest="file", required=True, metavar="CONNECTION_FILE")
    parser.add_argument(
        "--device", metavar="DEVICE", help="a device, or an address: serial:///… or webrepl://…"
    )
    parser.add_argument("--name", help="what the board is called in the notebook")
    parser.add_argument("--baud", type=int, default=115200)
    parser.add_argument(
        "--dtr", choices=_SWITCH, default="driver", help="the line DTR, when the port is opened"
    )
    parser.add_argument(
        "--rts", choices=_SWITCH, default="driver", help="the line RTS, when the port is opened"
    )
    parser.add_argument(
        "--password-command", type=json.loads, default=[], metavar="JSON", help="prints a WebREPL's password"
    )
    parser.add_argument(
        "--wait", type=float, default=PATIENCE, metavar="SECONDS", help="for a board that is away"
    )
    parser.add_argument("--resume", action="store_true", help="keep what is in the board's memory")
    return parser.parse_args(argv)


async def serve(given: argparse.Namespace) -> None:
    """Until a shutdown_request or SIGTERM.  Raises `FarkernelError` when it cannot start."""
    with open(given.file, encoding="utf-8") as file:  # noqa: ASYNC230 - a few hundred bytes, before anything runs
        connection = ConnectionInfo.from_dict(json.load(file))
    notebook = os.environ.get("JPY_SESSION_NAME", "")
    introduce(
        f"the notebook {notebook}" if notebook else f"a notebook with the kernel {given.name or 'for boards'}"
    )
    boards = Boards(board_at)
    kernel = Kernel(boards)
    wire = await Wire.open(connection, kernel.on_request)
    if given.device:
        place = place_of(given.device)
        options = SerialOptions(given.baud, _SWITCH[given.dtr], _SWITCH[given.rts])
        password = await _password(given.password_command)
        boards.add(given.name or place.name, place.address, options, password, given.wait, given.resume)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, kernel.interrupt)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(signum, kernel.ended.set)
    await kernel.open(wire)
    await kernel.ended.wait()
    await kernel.close(reset=True)


async def _password(command: list[str]) -> str:
    """Empty where it cannot be had: then the first cell says that the board wants one."""
    try:
        return await asyncio.to_thread(password_from, command) if command else ""
    except FarkernelError as error:
        logging.error("%s", error)
        return ""


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        asyncio.run(serve(arguments()))
    except FarkernelError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
