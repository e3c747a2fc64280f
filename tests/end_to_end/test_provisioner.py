"""A menu entry written by hand, through the provisioner: keeper, link, agent, ZMTP, and a real ipykernel."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from jupyter_client.manager import KernelManager

from ..sites.engine import Engine, collect, connected, outlives_patience, run_cell, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


@pytest.fixture
def manager(engine: Engine) -> Iterator[KernelManager]:
    engine.target("here", kernel="python3")
    engine.entry("here", "here")
    manager = KernelManager(kernel_name="here")
    manager.start_kernel()
    yield manager
    if manager.has_kernel:
        manager.shutdown_kernel(now=True)


def test_cells_run_and_the_kernel_is_a_process_of_the_agent(engine: Engine, manager: KernelManager) -> None:
    with connected(manager.connection_file) as client:
        outcome = run_cell(client, "import os; print(os.getpid())")
        assert outcome.states == ["busy", "idle"]
        assert outcome.reply["content"]["status"] == "ok"
        (process,) = engine.far_processes()
        assert int(outcome.text) == process.pid
        assert process.ppid() in engine.agent_pids()
    manager.shutdown_kernel()
    wait_until(lambda: not engine.far_processes(), "the kernel to end")
    assert [row["reason"]["kind"] for row in engine.kernels()] == ["stopped"]


@pytest.mark.parametrize("arrives", [True, False])
def test_a_wish_to_shut_down_that_overtakes_its_request(
    engine: Engine, manager: KernelManager, arrives: bool
) -> None:
    """They come on two ways; the request may also be lost with its connection."""
    wait_until(lambda: engine.kernels()[0]["state"] == "live", "the kernel")
    with connected(manager.connection_file) as client:
        began = time.monotonic()
        engine.client.request("shutdown", kernel=engine.kernels()[0]["kernel"], restart=False)
        if arrives:
            client.shutdown()
            assert client.get_control_msg(timeout=2.5)["msg_type"] == "shutdown_reply"
        wait_until(lambda: engine.kernels()[0]["state"] == "ended", "the kernel to end")
        assert time.monotonic() - began < 2.8  # not by the patience with those who never say what they mean
        assert engine.kernels()[0]["reason"]["text"] == "it was shut down on request"


def test_a_wish_to_keep_it_that_overtakes_the_request_to_end_it(
    engine: Engine, manager: KernelManager
) -> None:
    """A server that stops sends both, on two ways; the kernel must live on."""
    wait_until(lambda: engine.kernels()[0]["state"] == "live", "the kernel")
    with connected(manager.connection_file) as client:
        engine.client.request("detach", kernel=engine.kernels()[0]["kernel"])
        client.shutdown()
        outlives_patience(client)


def test_a_request_to_end_it_that_nobody_explained_goes_with_the_keeper(
    engine: Engine, manager: KernelManager
) -> None:
    wait_until(lambda: engine.kernels()[0]["state"] == "live", "the kernel")
    with connected(manager.connection_file) as client:
        client.shutdown()
        client.control_channel.send(client.session.msg("kernel_info_request"))
        assert client.get_control_msg(timeout=30)["msg_type"] == "kernel_info_reply"  # so the other came
        keeper = engine.keeper_pid()
        os.kill(keeper, signal.SIGKILL)
        wait_until(lambda: engine.keeper_pid() != keeper, "the next keeper")
        outlives_patience(client)


def test_one_session_for_one_life_and_every_signature_right(engine: Engine, manager: KernelManager) -> None:
    with connected(manager.connection_file) as client:
        seen = {
            message["header"]["session"]
            for message in run_cell(client, "for i in range(5): print(i, flush=True)").outputs
        }
        reply = run_cell(client, "1/0").reply  # BlockingKernelClient checks each signature
        seen.add(reply["header"]["session"])
        assert len(seen) == 1
        manager.restart_kernel()
        client.wait_for_ready(timeout=30)
        assert run_cell(client, "2").reply["header"]["session"] not in seen


def test_restart_forgets_the_variables_and_keeps_the_endpoints(
    engine: Engine, manager: KernelManager
) -> None:
    before = manager.get_connection_info()
    with connected(manager.connection_file) as client:
        run_cell(client, "x = 41")
        manager.restart_kernel()
        client.wait_for_ready(timeout=30)
        assert "NameError" in run_cell(client, "x").error
    assert manager.get_connection_info() == before
    (row,) = [row for row in engine.kernels() if row["state"] != "ended"]
    assert row["life"] == 2


def test_interrupt(manager: KernelManager) -> None:
    with connected(manager.connection_file) as client:
        message = client.execute("print('on', flush=True)\nimport time\ntime.sleep(60)")
        while client.get_iopub_msg(timeout=30)["msg_type"] != "stream":
            pass
        began = time.monotonic()
        manager.interrupt_kernel()
        outcome = collect(client, message)
        assert time.monotonic() - began < 5
        # Depending on where it is hit, ipykernel says it on iopub, or only in its reply.
        assert outcome.reply["content"]["status"] == "error"
        assert "KeyboardInterrupt" in outcome.error + outcome.reply["content"]["ename"]
        assert run_cell(client, "print('alive')").text == "alive\n"


def test_interrupts_at_once_when_a_cell_begins(manager: KernelManager, engine: Engine) -> None:
    """Before ipykernel runs the code it ignores them, and some steps later it forgets the answer: none may get lost."""
    kernel = engine.kernels()[0]["kernel"]
    with connected(manager.connection_file) as client:
        for _ in range(20):
            message = client.execute("import time; time.sleep(60)")
            while (came := client.get_iopub_msg(timeout=30))["parent_header"].get("msg_id") != message:
                pass
            assert came["content"]["execution_state"] == "busy"
            engine.client.request("interrupt", kernel=kernel)
            outcome = collect(client, message)
            assert "KeyboardInterrupt" in outcome.error + outcome.reply["content"]["ename"]
        assert run_cell(client, "print('alive')").text == "alive\n"


UNANSWERED = """
kernel, original = get_ipython().kernel, get_ipython().kernel.do_execute
async def slow(*arguments, **named):
    import time
    kernel.do_execute = original
    print("here", flush=True)
    time.sleep(60)
kernel.do_execute = slow
"""


def test_an_interrupt_that_makes_the_kernel_forget_its_answer(manager: KernelManager) -> None:
    """ipykernel says `idle`, and nothing else: any front end would show that cell as running for ever."""
    with connected(manager.connection_file) as client:
        run_cell(client, UNANSWERED)
        message = client.execute("1")
        while client.get_iopub_msg(timeout=30)["msg_type"] != "stream":
            pass
        manager.interrupt_kernel()
        outcome = collect(client, message)
        content = outcome.reply["content"]
        assert (content["status"], content["ename"]) == ("error", "KeyboardInterrupt")
        assert "the interrupt came where the kernel did not expect it" in content["evalue"]
        assert outcome.states.count("idle") == 1
        assert run_cell(client, "print('alive')").text == "alive\n"


def test_an_interrupt_ends_a_program_that_a_cell_waits_for(manager: KernelManager) -> None:
    """Python itself ignores interrupts meanwhile (system(3))."""
    with connected(manager.connection_file) as client:
        message = client.execute("import os; print('on', flush=True); print(os.system('sleep 60'))")
        while client.get_iopub_msg(timeout=30)["content"].get("text") != "on\n":
            pass
        manager.interrupt_kernel()
        assert collect(client, message).text == "2\n"


STUCK = """
def stuck(comm, message):
    import time
    print("stuck", flush=True)
    time.sleep(60)
get_ipython().kernel.comm_manager.register_target("stuck", stuck)
"""


def test_an_interrupt_ends_what_keeps_the_kernel_from_its_cells(manager: KernelManager) -> None:
    """A widget's callback, with a cell behind it that has not begun: the callback is meant, and the cell runs."""
    with connected(manager.connection_file) as client:
        assert not run_cell(client, STUCK).error
        opened = {"comm_id": "1", "target_name": "stuck", "data": {}}
        client.shell_channel.send(client.session.msg("comm_open", opened))
        while client.get_iopub_msg(timeout=30)["content"].get("text") != "stuck\n":
            pass
        behind = client.execute("print('behind')")
        manager.interrupt_kernel()
        assert collect(client, behind).text == "behind\n"


def test_input(manager: KernelManager) -> None:
    with connected(manager.connection_file) as client:
        message = client.execute("print(input('name? ') + '!')", allow_stdin=True)
        request = client.get_stdin_msg(timeout=30)
        assert request["content"]["prompt"] == "name? "
        client.input("Ada")
        assert collect(client, message).text == "Ada!\n"


def test_two_clients_see_the_same_and_answer_for_themselves(manager: KernelManager) -> None:
    with connected(manager.connection_file) as one, connected(manager.connection_file) as two:
        message = one.execute("print(input('? '))", allow_stdin=True)
        one.get_stdin_msg(timeout=30)
        one.input("first")
        outcome = collect(one, message)
        assert outcome.text == "first\n"
        while (seen := two.get_iopub_msg(timeout=30))["msg_type"] != "stream":
            pass
        assert seen["content"]["text"] == "first\n"
        assert run_cell(two, "print('second')").text == "second\n"


def test_large_buffers_arrive_whole(manager: KernelManager) -> None:
    code = """
from comm import create_comm
import hashlib, os
data = os.urandom(50_000_000)
create_comm(target_name="bulk", data={}, buffers=[data, b"", b"tail"])
print(hashlib.sha256(data).hexdigest())
"""
    import hashlib

    with connected(manager.connection_file) as client:
        outcome = run_cell(client, code, deadline=60)
        (bulk,) = [each for each in outcome.outputs if each["msg_type"] == "comm_open"]
        first, empty, tail = (bytes(buffer) for buffer in bulk["buffers"])
        assert hashlib.sha256(first).hexdigest() == outcome.text.strip()
        assert (empty, tail) == (b"", b"tail")
