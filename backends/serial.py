"""`serial://` and `webrepl://` targets: boards.  The kernel is ours and runs beside the keeper (DESIGN §2)."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
from collections.abc import Sequence

from ..launcher.address import parse_address
from ..launcher.board.errors import BoardGone, BoardPermission
from ..launcher.board.holding import current_holder, group_of
from ..launcher.board.password import password_from
from ..launcher.board.ports import locate
from ..launcher.board.webrepl import WebRepl
from ..launcher.configuration import Target
from ..launcher.text import one_line
from .contract import Step, User
from .local import LocalBackend


def host_of(target: Target) -> Target:
    """The machine that a board is plugged into, with the target's own settings of how it is reached."""
    address = target.address
    if address.host is None:
        return dataclasses.replace(target, address=parse_address("local:"))
    user = f"{address.user}@" if address.user else ""
    host = f"[{address.host}]" if ":" in address.host else address.host
    port = f":{address.port}" if address.port else ""
    return dataclasses.replace(target, address=parse_address(f"ssh://{user}{host}{port}"))


def device_there(path: str) -> str:
    """What is plugged in at an address's path here.  Raises `BoardGone`, `SeveralBoards`, `BoardPermission`."""
    device = locate(path)
    if not os.path.exists(device):
        raise BoardGone(device)
    if not os.access(device, os.R_OK | os.W_OK):
        raise BoardPermission(device, group_of(device))
    holder = current_holder(device)
    return f"{device}, in use by {one_line(holder)}" if holder else device


async def greeted(target: Target) -> str:
    """By a WebREPL: it is there, free, and takes the password.  Raises what `WebRepl.open` raises."""
    password = ""
    if target.password_command:
        password = await asyncio.to_thread(password_from, target.password_command)
    line = WebRepl(str(target.address.host), target.address.port, password)
    await line.open(_Deaf())
    line.close()
    return line.describe()


class _Deaf:
    """Wants no more than to be let in."""

    def data_received(self, data: bytes) -> None:
        """A prompt."""

    def writable(self) -> None:
        """Nothing is written."""

    def closed(self, said: str) -> None:
        """So it is."""


class SerialBackend(LocalBackend):
    """The allocation is this machine's, with the same agent and link as `local:`; who holds the board is known by
    its port."""

    async def steps(self, target: Target, user: User) -> Sequence[Step]:
        """Up to the board, or to the machine that it is plugged into."""
        if target.address.scheme == "webrepl":
            return [Step("board", lambda: greeted(target))]
        if target.address.host is not None:
            from . import steps_to

            return await steps_to(host_of(target), user)
        path = str(target.address.path)
        return [Step("board", lambda: asyncio.to_thread(device_there, path))]

    def kernel_argv(self, target: Target) -> list[str]:
        command = [
            # -P: the kernel starts in the notebook's directory, where a json.py must not stand in for Python's own.
            *(sys.executable, "-P", "-m", "farkernel.launcher.board_kernel"),
            *("-f", "{connection_file}", "--device", str(target.address), "--name", target.name),
            f"--baud={target.baud}",
        ]
        for name, state in (("dtr", target.dtr), ("rts", target.rts)):
            if state is not None:
                command.append(f"--{name}={'on' if state else 'off'}")
        if target.password_command:
            command.append(f"--password-command={json.dumps(target.password_command)}")
        return command + list(target.options)


BACKEND = SerialBackend()
