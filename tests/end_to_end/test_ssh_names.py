"""One host by several names: of ssh_config, which are one allocation, and of the network, which disturb each other in nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ..sites.engine import Engine, run_cell, wait_until
from ..sites.far import Notebook
from ..sites.ssh import Sshd

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


@pytest.fixture
def host(engine: Engine, home: Path) -> Iterator[Sshd]:
    with Sshd(home.parent / "sshd") as host:
        yield host
        engine.close()
        wait_until(lambda: not host.agents(), "the far agent to end", 20)


def allocations(engine: Engine) -> list[dict[str, Any]]:
    return list(engine.client.request("status")["allocations"])


def test_two_aliases_are_one_allocation_also_while_one_of_them_is_slow_to_look_up(
    engine: Engine, host: Sshd, home: Path, request: pytest.FixtureRequest
) -> None:
    """`ssh -G two` does not answer while the keeper starts: what it has there waits for it, and joins the others."""
    slow = home / "slow"
    real = ["HostName 127.0.0.1", f"Port {host.port}", f"User {host.user}"]
    config = host.write_client_config(
        f'Match originalhost two exec "test ! -p {slow} || cat {slow}"', *real, "Host one", *real
    )
    for name in ("one", "two"):
        engine.target(name, address=f"ssh://{name}", kernel="python3", ssh_config=str(config))
    with Notebook(engine, "one") as one, Notebook(engine, "two") as two:
        for notebook in (one, two):
            assert run_cell(notebook.client, "x = 41; print('up')", 60).text.endswith("up\n")
        (row,) = allocations(engine)
        assert row["kernels"] == sorted([one.kernel, two.kernel])
        assert host.logins() == 1
        os.mkfifo(slow)
        request.addfinalizer(lambda: slow.unlink(missing_ok=True))
        keeper = engine.keeper_pid()
        os.kill(keeper, signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(keeper), "the keeper to be gone")
        engine.keeper_pid()  # whoever asks first starts it
        # The other one's kernel is there long before that.
        assert run_cell(one.client, "print(x + 1)", 60).text.endswith("42\n")
        (row,) = allocations(engine)
        assert row["kernels"] == [one.kernel]
        typed = two.client.execute("print(x + 1)")
        with slow.open("wb"):
            slow.unlink()  # `cat` is done when this is closed, and there will be no other
        message, _ = two.shown("42")
        assert message["parent_header"]["msg_id"] == typed
        (row,) = allocations(engine)
        assert row["kernels"] == sorted([one.kernel, two.kernel])
        assert host.logins() == 2


def test_an_address_and_a_name_of_one_host_disturb_each_other_in_nothing(engine: Engine, host: Sshd) -> None:
    """Nobody can tell that they are one: two connections, one agent, and each has its kernel."""
    config = host.write_client_config(f"HostKeyAlias [127.0.0.1]:{host.port}")
    for name, address in (("one", "127.0.0.1"), ("two", "localhost")):
        there = f"ssh://{host.user}@{address}:{host.port}"
        engine.target(name, address=there, kernel="python3", ssh_config=str(config))
    with Notebook(engine, "one") as one, Notebook(engine, "two") as two:
        for notebook in (one, two):
            assert run_cell(notebook.client, "x = 41; print('up')", 60).text.endswith("up\n")
        assert len(host.agents()) == 2  # guard and worker of one agent
        for notebook in (one, two):
            assert run_cell(notebook.client, "print(x + 1)").text.endswith("42\n")
        assert {row["link"] for row in allocations(engine)} == {"up"}
        assert {row["state"] for row in engine.kernels()} == {"live"}
        listed = json.loads(farkernel("ps", "--all", "--json"))["kernels"]
        assert sorted(row["kernel"] for row in listed) == sorted([one.kernel, two.kernel])
        assert re.search(r"\b42\b", farkernel("output", two.kernel[:8]))


def farkernel(*arguments: str) -> str:
    command = [sys.executable, "-P", "-m", "farkernel", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
