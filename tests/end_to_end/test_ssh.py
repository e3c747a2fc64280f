"""Kernels over SSH, with a real sshd: what a person has who opens a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager

from ..sites.engine import Engine, Outcome, connected, run_cell, wait_until
from ..sites.ssh import Sshd

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


@pytest.fixture
def host(engine: Engine, home: Path) -> Iterator[Sshd]:
    with Sshd(home.parent / "sshd") as host:
        host.write_client_config()
        yield host
        engine.close()
        wait_until(lambda: not host.agents(), "the far agent to end", 15)


def last_line(outcome: Outcome) -> str:
    """On a busy machine the waiting room said something first."""
    return outcome.text.splitlines()[-1]


def test_a_kernel_runs_over_ssh_and_outlives_a_restart_of_sshd(engine: Engine, host: Sshd) -> None:
    engine.target("far", address=host.address, kernel="python3", ssh_config=str(host.client_config))
    engine.entry("far", "far")
    manager = KernelManager(kernel_name="far", transport="ipc")
    manager.start_kernel()
    try:
        with connected(manager.connection_file) as client:
            assert run_cell(client, "import os; kept = 5; print(os.environ['SSH_CONNECTION'])").text.split()[
                2:
            ] == [
                "127.0.0.1",
                str(host.port),
            ]
            assert host.agents()
            host.restart()
            assert last_line(run_cell(client, "print(kept + 1)")) == "6"
            assert host.logins() == 2
    finally:
        manager.shutdown_kernel(now=True)


def test_scan_and_kernel_share_one_connection(engine: Engine, host: Sshd) -> None:
    host.options["MaxSessions"] = "1"
    host.restart()
    engine.target("far", address=host.address, kernel="python3", ssh_config=str(host.client_config))
    engine.entry("far", "far")
    manager = KernelManager(kernel_name="far", transport="ipc")
    manager.start_kernel()
    try:
        with connected(manager.connection_file) as client:
            assert last_line(run_cell(client, "print(1)")) == "1"
            found = engine.client.request("scan", target="far")
            assert "python3" in [each["name"] for each in found["kernelspecs"]]
            assert host.logins() == 1
    finally:
        manager.shutdown_kernel(now=True)
