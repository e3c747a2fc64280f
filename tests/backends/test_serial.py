"""Targets with boards: the command of their kernel, and one agent with `local:`."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pty
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from farkernel.backends import find_backend, kernel_of, steps_to
from farkernel.backends.contract import BringsKernel, NotAnswered, Question
from farkernel.backends.serial import host_of
from farkernel.kernelspecs import entries
from farkernel.launcher.address import parse_address
from farkernel.launcher.board.errors import BoardGone
from farkernel.launcher.board.holding import Hold
from farkernel.launcher.board.webrepl import WrongPassword
from farkernel.launcher.board_kernel.__main__ import arguments
from farkernel.launcher.keeper.reach import reach
from farkernel.launcher.settings import Target

from ..sites.boards import VirtualBoard
from ..sites.webrepl import served


def target(address: str = "serial:///dev/ttyUSB0", **settings: Any) -> Target:
    return Target("board", parse_address(address), **settings)


def test_the_kernel_is_ours_and_its_command_says_everything() -> None:
    backend = find_backend("serial")
    assert isinstance(backend, BringsKernel)
    wanted = target(baud=9600, dtr=False, rts=True, password_command=("pass", "a b"), options=("--wait=5",))
    argv = kernel_of(wanted)["argv"]
    assert argv[:4] == [sys.executable, "-P", "-m", "farkernel.launcher.board_kernel"]
    given = arguments([word.replace("{connection_file}", "k.json") for word in argv[4:]])
    assert (given.file, given.device, given.name) == ("k.json", "serial:///dev/ttyUSB0", "board")
    assert (given.baud, given.dtr, given.rts, given.wait) == (9600, "off", "on", 5.0)
    assert given.password_command == ["pass", "a b"]
    plain = arguments([word.format(connection_file="k") for word in kernel_of(target())["argv"][4:]])
    assert (plain.baud, plain.dtr, plain.rts, plain.password_command) == (115200, "driver", "driver", [])


def test_one_agent_serves_boards_and_this_machine() -> None:
    assert find_backend("serial").key(target(), None) == find_backend("local").key(target("local:"), None)
    assert find_backend("webrepl") is find_backend("serial")


def test_other_targets_keep_their_kernels() -> None:
    assert kernel_of(target("local:")) == {"kernelspec": "python3"}
    assert kernel_of(target("local:", python="/usr/bin/python3")) == {"python": "/usr/bin/python3"}


@pytest.mark.parametrize("address", ["serial:///dev/ttyUSB0", "webrepl://board"])
def test_menu_entries_are_for_micropython(address: str) -> None:
    assert entries.guess_language(None, address) == "micropython"
    assert entries.default_display_name("left", None, address) == "left · MicroPython"
    assert "debugger" not in entries.build("left", "left", "micropython", {"target": "left"})["metadata"]


# -- doctor's steps, and whether it can be reached ---------------------------------------------------


async def took(board: Target) -> list[str]:
    return [f"{step.name}: {await step.take()}" for step in await steps_to(board, Nobody())]


class Nobody:
    """A user without a front end: a `contract.User`."""

    def environment(self) -> Mapping[str, str]:
        return {}

    async def ask(self, question: Question) -> str:
        raise NotAnswered(question)


def test_a_board_here(tmp_path: Path) -> None:
    with pytest.raises(BoardGone, match="no board at /dev/ttyNONE9"):
        asyncio.run(took(target("serial:///dev/ttyNONE9")))
    master, slave = pty.openpty()
    device = os.ttyname(slave)
    os.close(slave)
    try:
        assert asyncio.run(took(target(f"serial://{device}"))) == [f"board: {device}"]
        hold = Hold.take(device, "the notebook of Ada")
        (found,) = asyncio.run(took(target(f"serial://{device}")))
        assert found == f"board: {device}, in use by the notebook of Ada (process {os.getpid()})"
        hold.release()
    finally:
        os.close(master)


def test_a_board_on_the_network() -> None:
    master, slave = pty.openpty()

    async def run() -> None:
        async with served(VirtualBoard([], Path(os.ttyname(slave))), "secret") as site:
            there = target(f"webrepl://127.0.0.1:{site.port}", password_command=("echo", "secret"))
            assert await took(there) == [f"board: the WebREPL at 127.0.0.1:{site.port}"]
            with pytest.raises(WrongPassword, match="does not take this password"):
                await took(dataclasses.replace(there, password_command=("echo", "wrong")))
            with pytest.raises(WrongPassword, match="wants a password"):
                await took(dataclasses.replace(there, password_command=()))
        with pytest.raises(BoardGone):
            await took(there)

    asyncio.run(run())
    os.close(slave)
    os.close(master)


def test_whether_it_can_be_reached() -> None:
    boards = {"here": target("serial:///dev/ttyNONE9"), "net": target("webrepl://127.0.0.1:9")}

    async def asked(name: str) -> dict[str, Any]:
        return await reach(boards.__getitem__, name, Nobody(), 5)

    assert asyncio.run(asked("here"))["what"] == "no board at /dev/ttyNONE9"
    assert not asyncio.run(asked("net"))["ok"]


def test_the_machine_that_it_is_plugged_into() -> None:
    assert str(host_of(target("serial://ann@pi7:22/dev/ttyUSB0")).address) == "ssh://ann@pi7:22"
    assert str(host_of(target()).address) == "local:"
