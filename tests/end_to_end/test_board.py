"""A board from the menu: an unmodified micro:bit firmware in QEMU behind a serial line, and the kernel for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from ..sites.boards import VirtualBoard, microbit
from ..sites.engine import DEADLINE, Engine, collect, run_cell, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


@pytest.fixture
def board(home: Path) -> Iterator[VirtualBoard]:
    with microbit(home) as board:
        yield board


@pytest.fixture
def entry(engine: Engine, board: VirtualBoard) -> str:
    """As a person makes it."""
    farkernel("add", "board", f"serial://{board.device}")
    farkernel("install", "board")
    return "board"


def farkernel(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "farkernel", *arguments],
        check=False,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def notebook(entry: str) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    manager = KernelManager(kernel_name=entry)
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=DEADLINE)
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


def result(outcome: Any) -> dict[str, Any]:
    (message,) = [each for each in outcome.outputs if each["msg_type"] == "execute_result"]
    data: dict[str, Any] = message["content"]["data"]
    return data


def test_a_notebook_on_the_board(entry: str) -> None:
    with notebook(entry) as (manager, client):
        info = client.kernel_info(reply=True, timeout=DEADLINE)["content"]
        assert "micro:bit" in info["banner"]
        assert info["language_info"]["version"] == "1.9.2"
        outcome = run_cell(client, "x = 6\nprint('on the board')\nx * 7")
        assert outcome.text == "on the board\n"
        assert result(outcome) == {"text/plain": "42"}
        failed = run_cell(client, "1 / 0")
        assert failed.reply["content"]["ename"] == "ZeroDivisionError"
        # A restart is a fresh interpreter.
        manager.restart_kernel()
        client.wait_for_ready(timeout=DEADLINE)
        assert run_cell(client, "x").reply["content"]["ename"] == "NameError"


def test_input_and_interrupt(entry: str) -> None:
    with notebook(entry) as (manager, client):
        asked = client.execute("name = input('Who? ')\nprint('hello', name)", allow_stdin=True)
        assert client.get_stdin_msg(timeout=DEADLINE)["content"]["prompt"] == "Who? "
        client.input("Jürgen\t~")
        assert collect(client, asked).text == "hello Jürgen\t~\n"
        running = client.execute("print('begun')\nwhile True: pass")
        while client.get_iopub_msg(timeout=DEADLINE)["msg_type"] != "stream":
            pass
        manager.interrupt_kernel()
        assert collect(client, running).reply["content"]["ename"] == "KeyboardInterrupt"
        assert run_cell(client, "print('still there')").text == "still there\n"
        asked = client.execute("input('Never answered')", allow_stdin=True)
        client.get_stdin_msg(timeout=DEADLINE)
        manager.interrupt_kernel()
        assert collect(client, asked).reply["content"]["ename"] == "KeyboardInterrupt"


def test_two_notebooks_at_one_board(entry: str) -> None:
    with notebook(entry) as (_, first):
        assert run_cell(first, "1 + 1").reply["content"]["status"] == "ok"
        with notebook(entry) as (_, second):
            refused = run_cell(second, "1 + 1")
            assert refused.reply["content"]["ename"] == "BoardBusy"
            assert "is in use by a notebook with the kernel board of " in refused.error
            assert "(process " in refused.error
            assert "close the other one" in refused.error
            # Once the first lets go, the second can have it.
            assert run_cell(first, "%disconnect").reply["content"]["status"] == "ok"
            assert result(run_cell(second, "20 + 3")) == {"text/plain": "23"}


def test_pulled_out_and_put_back(entry: str, board: VirtualBoard) -> None:
    with notebook(entry) as (_, client):
        assert run_cell(client, "x = 5").reply["content"]["status"] == "ok"
        running = client.execute("print('begun')\nwhile True: pass")
        while client.get_iopub_msg(timeout=DEADLINE)["msg_type"] != "stream":
            pass
        board.pull_out()
        lost = collect(client, running)
        assert lost.reply["content"]["ename"] == "BoardLost"
        assert "is taken up again as soon as it answers" in lost.error
        waiting = client.execute("print('alive')\n'x' in globals()")
        wait_until(lambda: "waiting for the board" in stream_of(client), "the cell to say that it waits")
        board.plug_in()
        outcome = collect(client, waiting)
        assert "alive\n" in outcome.text
        assert result(outcome) == {"text/plain": "False"}


def stream_of(client: BlockingKernelClient) -> str:
    message = client.get_iopub_msg(timeout=DEADLINE)
    return str(message["content"].get("text", ""))


def test_a_board_that_is_not_there_at_first(engine: Engine, home: Path) -> None:
    board = microbit(home)
    farkernel("add", "later", f"serial://{board.device}")
    farkernel("install", "later")
    with notebook("later") as (manager, client):
        waiting = client.execute("print('hello')")
        wait_until(lambda: "waiting for the board" in stream_of(client), "the cell to say that it waits")
        manager.interrupt_kernel()
        assert collect(client, waiting).reply["content"]["ename"] == "KeyboardInterrupt"
        waiting = client.execute("print('hello')")
        wait_until(lambda: "waiting for the board" in stream_of(client), "the cell to say that it waits")
        with board:
            assert "hello\n" in collect(client, waiting).text
