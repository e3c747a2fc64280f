"""A board plugged into another machine: the same notebook, the same commands, over SSH with 100 ms of round trip."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..sites.boards import VirtualBoard, mps2
from ..sites.engine import Engine, run_cell, wait_until
from ..sites.ssh import Sshd
from ..sites.wire import Wire
from .test_board import farkernel, notebook, result

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

DELAY = 0.05  # each way


@pytest.fixture
def board(home: Path) -> Iterator[VirtualBoard]:
    with mps2(home) as board:
        yield board


@pytest.fixture
def pi(engine: Engine, home: Path) -> Iterator[Sshd]:
    with Sshd(home.parent / "sshd") as host:
        yield host
        engine.close()
        wait_until(lambda: not host.agents(), "the far agent to end", 15)


@contextmanager
def target(pi: Sshd, board: VirtualBoard) -> Iterator[Wire]:
    with Wire(pi.port).running() as wire:
        wire.delay = DELAY
        config = pi.write_client_config(f"HostKeyAlias [127.0.0.1]:{pi.port}")
        address = f"serial://{pi.user}@127.0.0.1:{wire.port}{board.device}"
        farkernel("add", "far-board", address, "--set", f"ssh_config={config}")
        farkernel("install", "far-board")
        yield wire


def test_a_notebook_on_a_board_at_another_machine(engine: Engine, pi: Sshd, board: VirtualBoard) -> None:
    with target(pi, board) as wire, notebook("far-board") as (_, client):
        outcome = run_cell(client, "x = 6\nprint('over there')\nx * 7")

        assert outcome.text.endswith("over there\n"), outcome.error
        assert result(outcome) == {"text/plain": "42"}
        assert "far-board" in farkernel("ps")
        # One login for the line, whoever else wants something of that machine.
        assert pi.logins() == 1
        # The link breaks: the board is taken up again, and what was in its memory is still there.
        wire.cut()
        wait_until(lambda: wire.connections > 1, "the link to come back")
        again = run_cell(client, "x + 1", 60)
        if again.error:  # the cell came while the line was away: it says so, and the next one runs
            again = run_cell(client, "x + 1", 60)
        assert result(again) == {"text/plain": "7"}
        # Pulled out there, and put back.
        board.pull_out()
        board.plug_in()
        fresh = run_cell(client, "'x' in globals()", 90)
        if fresh.error:
            fresh = run_cell(client, "'x' in globals()", 90)
        assert result(fresh) == {"text/plain": "False"}


def test_files_of_a_board_at_another_machine(
    engine: Engine, pi: Sshd, board: VirtualBoard, home: Path
) -> None:
    """By the same commands as here (the rate is that of tests/launcher/board/test_far_serial.py)."""
    data = home / "data.bin"
    data.write_bytes(bytes(range(256)) * 16)
    with target(pi, board):
        farkernel("board", "put", "far-board", str(data), "/data.bin")
        assert "data.bin" in farkernel("board", "ls", "far-board")
        farkernel("board", "get", "far-board", "/data.bin", str(home / "back.bin"))
    assert (home / "back.bin").read_bytes() == data.read_bytes()
