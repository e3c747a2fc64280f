"""A network that loses what it is given (DESIGN §6): packets dropped in silence, a cable pulled, another address."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from farkernel.launcher.agent.flow import HEARTBEAT_BUSY

from ..sites.engine import DEADLINE, Engine, collect, run_cell, wait_until
from ..sites.far import Notebook, Ticking
from ..sites.lossy_network import LossyNetwork, lossy_network
from ..sites.netns import inside
from ..sites.ssh import Sshd

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

FLOWS = 2.0  # seconds after the network is back (DESIGN §6)
KEEPER = "from farkernel.launcher.client import KeeperClient; KeeperClient().request('status')"


@pytest.fixture
def net() -> Iterator[LossyNetwork]:
    with lossy_network() as made:
        yield made


@pytest.fixture
def host(net: LossyNetwork, home: Path) -> Iterator[Sshd]:
    with net.sshd(home.parent / "sshd") as host:
        yield host


@pytest.fixture
def notebook(engine: Engine, net: LossyNetwork, host: Sshd) -> Iterator[Notebook]:
    """The keeper is on the near host, the notebook beside it."""
    engine.target("far", address=host.address, kernel="python3", ssh_config=str(host.client_config))
    subprocess.run([*inside(net.near), sys.executable, "-c", KEEPER], check=True)
    with Notebook(engine) as notebook:
        assert "up" in run_cell(notebook.client, "print('up')").text
        yield notebook
        engine.client.request("stop", kernel=notebook.kernel, now=True)
    engine.close()
    wait_until(lambda: not host.agents(), "the far agent to end", 20)


def black_out(net: LossyNetwork, notebook: Notebook, seconds: float) -> None:
    ticking = Ticking(notebook, seconds + 5)
    net.silence()
    time.sleep(seconds)
    ticking.drain()
    net.heal()
    back = time.monotonic()
    late = ticking.next(DEADLINE) - back
    print(f"\npackets lost for {seconds:.0f} s: output flows {late:.2f} s after the network is back")
    assert late <= FLOWS
    ticking.to_the_end()


@pytest.mark.parametrize("seconds", [5, 11])
def test_output_flows_when_packets_get_through_again(
    net: LossyNetwork, notebook: Notebook, seconds: float
) -> None:
    black_out(net, notebook, seconds)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seconds", [60, 600])
def test_output_flows_after_a_long_loss(net: LossyNetwork, notebook: Notebook, seconds: float) -> None:
    black_out(net, notebook, seconds)


def test_an_outage_that_is_shorter_than_the_heartbeat_is_not_worth_a_word(
    net: LossyNetwork, notebook: Notebook, host: Sshd
) -> None:
    """Only TCP's own repetitions bring it on then: they come at 3 and at 6 s."""
    ticking = Ticking(notebook, 8)
    net.silence()
    typed = notebook.client.execute("print('typed meanwhile')")
    time.sleep(3.5)
    ticking.drain()
    net.heal()
    back = time.monotonic()
    late = ticking.next(DEADLINE) - back
    print(f"\npackets lost for 3.5 s: output flows {late:.2f} s later, after {host.logins()} logins")
    assert late <= 2 * HEARTBEAT_BUSY - 3.5 + FLOWS
    ticking.to_the_end()
    assert not ticking.notices
    assert collect(notebook.client, typed).text == "typed meanwhile\n"


def test_cells_that_are_typed_while_packets_are_lost_run_in_their_order(
    net: LossyNetwork, notebook: Notebook
) -> None:
    net.silence()
    codes = (
        "print('first')",
        "import time; print('as' + 'leep', flush=True); time.sleep(300)",
        "print('third')",
    )
    typed = [notebook.client.execute(code, stop_on_error=False) for code in codes]
    said, _ = notebook.shown("The link to far has been down since")
    assert said["parent_header"]["msg_id"] == typed[0]
    text = said["content"]["data"]["text/plain"]
    assert re.search(r"down since \d\d:\d\d:\d\d: nothing heard for \d+ s; (next try at|trying now)", text)
    assert "what you run meanwhile runs when the link is back" in text
    net.heal()
    back = time.monotonic()
    cleared = []
    while (message := notebook.client.get_iopub_msg(timeout=DEADLINE))["content"].get("text") != "first\n":
        cleared += [message["parent_header"]["msg_id"]] if message["msg_type"] == "clear_output" else []
    late = time.monotonic() - back
    print(f"\ntyped while packets were lost: runs {late:.2f} s after the network is back")
    assert late <= FLOWS
    assert cleared == [typed[0]]
    notebook.shown("asleep")
    notebook.interrupt()
    outcome = collect(notebook.client, typed[1])
    assert outcome.reply["content"]["ename"] == "KeyboardInterrupt"
    assert collect(notebook.client, typed[2]).text == "third\n"


def test_a_cable_that_is_plugged_in_again(net: LossyNetwork, notebook: Notebook) -> None:
    """Here every try fails at once, and none of them troubles anybody."""
    ticking = Ticking(notebook, 16)
    net.unplug()
    time.sleep(10)
    ticking.drain()
    net.plug()
    back = time.monotonic()
    late = ticking.next(DEADLINE) - back
    print(f"\nno cable for 10 s: output flows {late:.2f} s after it is there again")
    assert late <= FLOWS
    ticking.to_the_end()
    assert any("down since" in notice for notice in ticking.notices)


def test_another_network_with_another_address(net: LossyNetwork, notebook: Notebook, host: Sshd) -> None:
    ticking = Ticking(notebook, 12)
    net.move()
    moved = time.monotonic()
    while host.logins() < 2:
        assert time.monotonic() - moved < DEADLINE
        time.sleep(0.05)
    found = time.monotonic()
    ticking.drain()
    late = ticking.next(DEADLINE) - found
    print(f"\nanother address: found after {found - moved:.1f} s, output flows {late:.2f} s later")
    assert late <= FLOWS
    ticking.to_the_end()
