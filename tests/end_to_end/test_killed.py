"""SIGKILL in the middle of output: the kernel lives, and each message arrives once and in order (DESIGN §3, promise 1)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from jupyter_client.manager import KernelManager

from ..sites.engine import DEADLINE, Engine, connected, is_notice, run_cell, wait_until
from ..sites.notebook_server import NotebookServer

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

MESSAGES = 6000
FLOOD = f"""
from IPython.display import display
import time
for number in range({MESSAGES}):
    display({{"application/x-number": str(number)}}, raw=True)
    if number % 20 == 0:
        time.sleep(0.005)
"""
KILLS = 6


@pytest.fixture
def manager(engine: Engine) -> Iterator[KernelManager]:
    engine.target("here", kernel="python3")
    engine.entry("here", "here")
    manager = KernelManager(kernel_name="here")
    manager.start_kernel()
    yield manager
    manager.shutdown_kernel(now=True)


def kill(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def kill_keeper(engine: Engine) -> None:
    kill([engine.keeper_pid()])


def worker_of(engine: Engine) -> int:
    """The agent's worker: of its two processes the one whose parent is the other."""
    pids = engine.agent_pids()
    return next(pid for pid in pids if psutil.Process(pid).ppid() in pids)


def kill_worker(engine: Engine) -> None:
    kill([wait_until(lambda: _or_none(lambda: worker_of(engine)), "a worker")])


def kill_guard(engine: Engine) -> None:
    worker = wait_until(lambda: _or_none(lambda: worker_of(engine)), "a worker")
    kill([psutil.Process(worker).ppid()])


def kill_keeper_and_worker(engine: Engine) -> None:
    keeper = engine.keeper_pid()
    worker = wait_until(lambda: _or_none(lambda: worker_of(engine)), "a worker")
    kill([keeper, worker])


def _or_none(find: Callable[[], int]) -> int | None:
    try:
        return find()
    except (StopIteration, psutil.NoSuchProcess):
        return None


@pytest.mark.parametrize("murder", [kill_keeper, kill_worker, kill_guard, kill_keeper_and_worker])
def test_each_message_arrives_once_and_in_order(
    engine: Engine, manager: KernelManager, murder: Callable[[Engine], None]
) -> None:
    with connected(manager.connection_file) as client:
        (kernel,) = engine.far_processes()
        msg_id = client.execute(FLOOD)
        numbers: list[int] = []
        kills = 0
        while len(numbers) < MESSAGES:
            message = client.get_iopub_msg(timeout=DEADLINE)
            if is_notice(message["msg_type"], message["content"]):
                continue  # a second outage on a busy machine
            if message["msg_type"] == "display_data":
                numbers.append(int(message["content"]["data"]["application/x-number"]))
            elif message["msg_type"] in ("error", "stream"):
                raise AssertionError(f"after {len(numbers)} messages: {message['content']}")
            if kills < KILLS and len(numbers) == (kills + 1) * MESSAGES // (KILLS + 2):
                murder(engine)
                kills += 1
        assert kills == KILLS
        assert numbers == list(range(MESSAGES))
        replies = [client.get_shell_msg(timeout=DEADLINE)]
        while replies[-1]["msg_type"] == "kernel_info_reply":  # wait_for_ready may have asked more than once
            replies.append(client.get_shell_msg(timeout=DEADLINE))
        assert (replies[-1]["parent_header"]["msg_id"], replies[-1]["content"]["status"]) == (msg_id, "ok")
        assert run_cell(client, "import os; print(os.getpid())").text == f"{kernel.pid}\n"
    manager.shutdown_kernel()
    wait_until(lambda: not engine.far_processes(), "the kernel to end")


def test_a_page_of_a_notebook_server_loses_nothing(engine: Engine, home: Path) -> None:
    """The server has two connections to iopub, which cannot be told apart when they come back (`publisher.turn_of`):
    a message may come twice if the kill falls between the two writes, but then only what one write holds."""
    engine.target("here", kernel="python3")
    engine.entry("here", "here")
    with NotebookServer(home) as server, server.session("a.ipynb", "here") as session:
        session.run("1")
        cell = session.execute(FLOOD)
        numbers: list[int] = []
        repeats = kills = 0
        while not numbers or numbers[-1] < MESSAGES - 1:
            message = session.receive()
            if is_notice(message["msg_type"], message["content"]):
                continue
            if message["msg_type"] != "display_data":
                session.early.append(message)
                continue
            number = int(message["content"]["data"]["application/x-number"])
            if numbers and number <= numbers[-1]:
                repeats += 1
                continue
            numbers.append(number)
            if kills < KILLS and len(numbers) == (kills + 1) * MESSAGES // (KILLS + 2):
                kill_keeper(engine)
                kills += 1
        assert kills == KILLS
        assert numbers == list(range(MESSAGES))
        assert repeats <= 10 * KILLS
        assert session.collect(cell).reply["content"]["status"] == "ok"
        server.rest("DELETE", f"api/sessions/{session.id}")


def test_requests_survive_a_keeper_that_is_killed_while_the_kernel_starts(engine: Engine) -> None:
    engine.target("slow", kernel="python3", before="sleep 3")
    engine.entry("slow", "slow")
    manager = KernelManager(kernel_name="slow")
    manager.start_kernel()
    try:
        from jupyter_client.blocking.client import BlockingKernelClient

        client = BlockingKernelClient()
        client.load_connection_file(manager.connection_file)
        client.start_channels()
        msg_id = client.execute("print(6 * 7)")
        # The waiting room has the cell as soon as it says that it is busy.
        while client.get_iopub_msg(timeout=DEADLINE)["parent_header"].get("msg_id") != msg_id:
            pass
        kill_keeper(engine)
        texts = ""
        while "42" not in texts:
            message = client.get_iopub_msg(timeout=DEADLINE)
            if message["msg_type"] == "stream" and message["parent_header"].get("msg_id") == msg_id:
                texts += message["content"]["text"]
        reply = client.get_shell_msg(timeout=DEADLINE)
        assert (reply["parent_header"]["msg_id"], reply["content"]["status"]) == (msg_id, "ok")
        client.stop_channels()
    finally:
        manager.shutdown_kernel(now=True)
