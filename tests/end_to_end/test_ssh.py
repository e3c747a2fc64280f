"""Kernels over SSH, with a real sshd: what a person has who opens a notebook."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

from farkernel.launcher.errors import FarkernelError

from ..sites.accounts import account
from ..sites.engine import Engine, Outcome, collect, connected, run_cell, wait_until
from ..sites.ssh import Sshd
from ..sites.wire import Wire

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
            code = "import os; kept = 5; print(os.environ['SSH_CONNECTION'])"
            assert last_line(run_cell(client, code)).split()[2:] == ["127.0.0.1", str(host.port)]
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


def test_a_silent_wire_is_found_and_the_next_connection_is_fresh(engine: Engine, host: Sshd) -> None:
    """Half-open: nobody says that the connection is gone, only the link's heartbeat can know."""
    host.write_client_config(f"HostKeyAlias [127.0.0.1]:{host.port}")
    with Wire(host.port).running() as wire:
        address = f"ssh://{host.user}@127.0.0.1:{wire.port}"
        engine.target("far", address=address, kernel="python3", ssh_config=str(host.client_config))
        engine.entry("far", "far")
        manager = KernelManager(kernel_name="far", transport="ipc")
        manager.start_kernel()
        try:
            with connected(manager.connection_file) as client:
                assert last_line(run_cell(client, "print(1)")) == "1"
                asked = client.execute(
                    "import time\nfor n in range(60):\n    print(n, flush=True)\n    time.sleep(0.2)"
                )
                wait_until(lambda: wire.connections == 1, "the connection")
                wire.silence()
                began = time.monotonic()
                wait_until(lambda: allocation(engine)["link"] != "up", "the heartbeat to find it", 40)
                assert time.monotonic() - began < 25  # two heartbeats, on a busy machine
                wire.heal()
                outcome = collect(client, asked, 60)
                assert [line for line in outcome.text.split() if line.isdecimal()][-60:] == [
                    str(number) for number in range(60)
                ]
                assert host.logins() == 2
        finally:
            manager.shutdown_kernel(now=True)


def allocation(engine: Engine) -> dict[str, Any]:
    return next(iter(engine.client.request("status")["allocations"]))


def test_a_key_is_accepted_and_a_password_given_at_a_terminal(engine: Engine, home: Path) -> None:
    """What `farkernel login` does: the same questions as ssh has, once for all kernels to come."""
    with account(home.parent) as user:
        options = {"PasswordAuthentication": "yes", "AuthenticationMethods": "password"}
        with Sshd(home.parent / "sshd", options, user.name) as host:
            host.known_hosts.unlink()
            host.write_client_config("StrictHostKeyChecking ask")
            engine.target("far", address=host.address, ssh_config=str(host.client_config))
            with pytest.raises(
                FarkernelError, match=r"the key of 127\.0\.0\.1 is not known .*farkernel login far$"
            ):
                engine.client.request("doctor", target="far", step="route")
            asked = at_terminal(["login", "far"], ["yes", user.password])
            assert "SHA256:" in asked
            assert "password" in asked
            assert user.password not in asked
            assert host.logins() == 1
            assert engine.client.request("doctor", target="far", step="shell")["what"]
            assert host.logins() == 1


def at_terminal(arguments: list[str], answers: list[str]) -> str:
    """Run the command at a terminal, and type an answer to each question; what the terminal showed."""
    master, slave = os.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-m", "farkernel", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    shown = ""
    try:
        for answer in answers:
            before = len(shown)
            while not any(end in shown[before:] for end in ("? ", ": ")) or shown.endswith("\n"):
                shown += os.read(master, 4096).decode()
            os.write(master, answer.encode() + b"\n")
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while data := os.read(master, 4096):
                shown += data.decode()
        assert process.wait(30) == 0, shown
    finally:
        process.kill()
        process.wait()
        os.close(master)
    return shown
