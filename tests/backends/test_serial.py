"""Targets with boards: the command of their kernel, and one agent with `local:`."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from farkernel.backends import find_backend, kernel_of
from farkernel.backends.contract import BringsKernel
from farkernel.kernelspecs import entries
from farkernel.launcher.address import parse_address
from farkernel.launcher.board_kernel.__main__ import arguments
from farkernel.launcher.settings import Target


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
