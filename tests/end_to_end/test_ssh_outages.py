"""The link is silent for a while, or its other end has gone: what a notebook sees (DESIGN §3, §6)."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from farkernel.launcher.agent.flow import HEARTBEAT_BUSY, HEARTBEAT_IDLE

from ..sites.engine import DEADLINE, Engine, collect, run_cell, wait_until
from ..sites.far import Far, Notebook, Ticking, far_site

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

FLOWS = 2.0  # seconds after the link is back (DESIGN §6)
HUNG = 33.0  # the longest pause between two tries, and a login


@pytest.fixture
def far(engine: Engine, home: Path) -> Iterator[Far]:
    with far_site(engine, home.parent) as far:
        yield far


@pytest.fixture
def notebook(far: Far) -> Iterator[Notebook]:
    with Notebook(far.engine) as notebook:
        assert "up" in run_cell(notebook.client, "print('up')").text
        yield notebook


def black_out(far: Far, notebook: Notebook, seconds: float, limit: float = FLOWS) -> None:
    """Silence for so long, while a cell prints; nothing is lost, and it flows at once when the link is back."""
    ticking = Ticking(notebook, seconds + 4)
    far.wire.silence()
    time.sleep(seconds)
    ticking.drain()
    far.wire.heal()
    back = time.monotonic()
    late = ticking.next(DEADLINE + limit) - back
    print(f"\nsilent for {seconds:.0f} s: output flows {late:.2f} s after the link is back")
    assert late <= limit
    ticking.to_the_end()


@pytest.mark.parametrize("seconds", [5, 13])
def test_output_flows_at_once_when_the_link_is_back(far: Far, notebook: Notebook, seconds: float) -> None:
    black_out(far, notebook, seconds)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("seconds", "limit"), [(60, FLOWS), (600, HUNG)])
def test_output_flows_after_a_long_silence(
    far: Far, notebook: Notebook, seconds: float, limit: float
) -> None:
    """The wire's own end takes connections all the while, as a host does whose sshd hangs: such a one is tried ever
    more rarely.  Networks that lose packets are in test_ssh_network.py.
    """
    black_out(far, notebook, seconds, limit)


def test_a_half_open_connection_is_found_within_two_heartbeats_while_a_cell_runs(
    far: Far, notebook: Notebook
) -> None:
    cell = notebook.client.execute("input('?')")  # it prints nothing: nobody but the heartbeat can tell
    notebook.client.get_stdin_msg(timeout=DEADLINE)
    far.wire.silence()
    began = time.monotonic()
    far.link_is(up=False)
    assert time.monotonic() - began <= 2 * HEARTBEAT_BUSY + 1.5
    assert "nothing heard for" in far.link()["why"]
    far.wire.heal()
    far.link_is(up=True)
    notebook.client.input("yes")
    assert collect(notebook.client, cell).reply["content"]["status"] == "ok"


@pytest.mark.long
def test_a_half_open_connection_is_found_within_two_heartbeats_while_nothing_runs(
    far: Far, notebook: Notebook
) -> None:
    far.wire.silence()
    began = time.monotonic()
    far.link_is(up=False)
    assert time.monotonic() - began <= 2 * HEARTBEAT_IDLE + 1.5


def test_a_new_address_of_ours_needs_a_new_connection_and_gets_one(far: Far, notebook: Notebook) -> None:
    ticking = Ticking(notebook, 2 * HEARTBEAT_BUSY + 5)
    far.wire.strand()
    began = time.monotonic()
    while "nothing heard" not in far.link()["why"] and far.host.logins() < 2:
        time.sleep(0.05)
    ticking.drain()
    found = time.monotonic()
    assert ticking.next(DEADLINE) - found <= FLOWS
    assert found - began <= 2 * HEARTBEAT_BUSY + 1.5
    ticking.to_the_end()
    assert far.host.logins() == 2


def test_a_laptop_that_slept_goes_on_at_once(far: Far, notebook: Notebook) -> None:
    """Its network was there again when it woke; the host had given its connection up meanwhile."""
    ticking = Ticking(notebook, 14)
    keeper = far.engine.keeper_pid()
    os.kill(keeper, signal.SIGSTOP)
    try:
        time.sleep(9)
        ticking.drain()
    finally:
        os.kill(keeper, signal.SIGCONT)
    woke = time.monotonic()
    assert ticking.next(DEADLINE) - woke <= FLOWS
    ticking.to_the_end()


def test_sshd_restarted_in_the_middle_of_output(far: Far, notebook: Notebook) -> None:
    ticking = Ticking(notebook, 4)
    far.host.restart()
    back = time.monotonic()
    ticking.drain()
    assert ticking.next(DEADLINE) - back <= FLOWS
    ticking.to_the_end()
    assert not ticking.notices  # too short to be worth a word


def end_the_host(far: Far) -> None:
    """Power loss: sshd, agent and kernels are gone, and so is what lay on its tmpfs."""
    far.host.stop()
    marked = str(far.host.run_directory)
    for process in psutil.process_iter():
        try:
            if any(marked in part for part in process.cmdline()):
                process.kill()
        except psutil.Error:
            pass
    wait_until(lambda: not far.host.agents(), "the agent to be gone")
    shutil.rmtree(far.host.run_directory)


def test_a_host_that_was_rebooted_has_lost_the_kernel_and_the_cell_says_so(
    far: Far, notebook: Notebook
) -> None:
    cell = notebook.client.execute("import time; time.sleep(600)")
    notebook.shown("time.sleep")
    end_the_host(far)
    far.host.run_directory.mkdir(mode=0o700)
    far.host.start()
    outcome = collect(notebook.client, cell)
    print(outcome.error)
    assert outcome.reply["content"]["ename"] == "KernelEnded"
    assert "far:" in outcome.error
    assert "the kernel is gone: " in outcome.error
    assert "as when that machine was restarted while it could not be reached" in outcome.error
    assert "Restart the kernel for a fresh one" in outcome.error
    assert notebook.state == "ended"
    # The fresh one is another agent's, which counts from 1 again: it is heard all the same.
    notebook.engine.client.request(
        "launch",
        kernel=notebook.kernel,
        entry="far",
        settings={"target": "far"},
        restart=True,
        life=2,
        env={},
    )
    assert run_cell(notebook.client, "print('fresh')", 60).text.endswith("fresh\n")


def test_what_is_done_while_the_link_is_down_happens_when_it_is_back(far: Far, notebook: Notebook) -> None:
    runs = notebook.client.execute("import time; print('be' + 'gan'); time.sleep(300)")
    notebook.shown("began")
    far.wire.silence()
    far.link_is(up=False)
    said, _ = notebook.shown("has been down since")
    assert said["parent_header"]["msg_id"] == runs
    assert "nothing heard for" in said["content"]["data"]["text/plain"]
    meanwhile = notebook.client.execute("print('typed meanwhile')")
    began = time.monotonic()
    notebook.interrupt()
    assert time.monotonic() - began < 1  # nobody waits for the link
    notebook.shown("next try at")
    far.wire.heal()
    back = time.monotonic()
    _, when = notebook.shown("KeyboardInterrupt")
    print(f"\ninterrupted {when - back:.2f} s after the link is back")
    assert when - back <= FLOWS
    assert "aborted" in str(collect(notebook.client, meanwhile).reply["content"]["status"])
