"""Many kernels on one host, and many hosts: one connection each, and nobody waits for the dead (issue 4)."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from farkernel.launcher.client import KeeperClient

from ..sites.engine import Engine, run_cell, wait_until
from ..sites.far import Far, Notebook, far_site
from ..sites.ssh import Sshd, free_port

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

SIXTY = 60
REAL = 2  # of them are IPython's; the others speak no more than is needed
HOSTS = 4


@pytest.fixture
def far(engine: Engine, home: Path) -> Iterator[Far]:
    with far_site(engine, home.parent, MaxSessions="1", MaxStartups="2") as far:
        engine.fake_kernel()
        far.target("light", kernel="fake")
        yield far


def launch(target: str) -> str:
    with KeeperClient() as client:
        request: dict[str, Any] = {"entry": target, "settings": {"target": target}, "cwd": "/", "env": {}}
        return str(client.request("launch", **request)["kernel"])


def states(engine: Engine) -> list[str]:
    return [row["state"] for row in engine.kernels()]


def test_sixty_kernels_at_once_are_one_connection(far: Far) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(SIXTY) as pool:
        kernels = list(pool.map(launch, ["far"] * REAL + ["light"] * (SIXTY - REAL)))
    asked = time.monotonic() - began
    assert len(set(kernels)) == SIXTY
    wait_until(lambda: states(far.engine) == ["live"] * SIXTY, "all of them to be live", 120)
    print(
        f"\n{SIXTY} kernels: launch calls answered after {asked:.1f} s, live after {time.monotonic() - began:.1f} s"
    )
    assert far.host.logins() == 1
    assert far.wire.connections == 1
    (allocation,) = far.engine.client.request("status")["allocations"]
    assert len(allocation["kernels"]) == SIXTY
    assert len(far.host.agents()) == 2  # guard and worker
    running = [process for process in children(far.host) if "fakekernel" in " ".join(process.cmdline())]
    assert len(running) == SIXTY - REAL
    far.wire.cut()  # and they come back as one
    far.link_is(up=False)
    far.link_is(up=True)
    assert far.wire.connections == 2
    with Notebook(far.engine) as notebook:
        assert "42" in run_cell(notebook.client, "print(6 * 7)").text
    assert far.wire.connections == 2


def children(host: Sshd) -> list[psutil.Process]:
    return [
        child
        for pid in host.agents()
        for child in psutil.Process(pid).children()
        if child.pid not in host.agents()
    ]


def test_hosts_do_not_wait_for_each_other_nor_for_a_dead_one(engine: Engine, home: Path) -> None:
    engine.fake_kernel()
    with ExitStack() as stack, socket.socket() as dead:
        hosts = [stack.enter_context(Sshd(home.parent / f"sshd{number}")) for number in range(HOSTS)]
        for number, host in enumerate(hosts):
            config = str(host.write_client_config())
            engine.target(f"host{number}", address=host.address, kernel="fake", ssh_config=config)
        dead.bind(("127.0.0.1", free_port()))
        dead.listen(0)  # connections are taken, and nothing is said on them
        config = str(hosts[0].client_config)
        engine.target(
            "dead", address=f"ssh://127.0.0.1:{dead.getsockname()[1]}", kernel="fake", ssh_config=config
        )
        names = ["dead", *(f"host{number}" for number in range(HOSTS) for _ in range(3))]
        try:
            with ThreadPoolExecutor(len(names)) as pool:
                kernels = list(pool.map(launch, names))
            alive = set(kernels[1:])
            wait_until(
                lambda: all(row["state"] == "live" for row in engine.kernels() if row["kernel"] in alive),
                "the living to be live",
                60,
            )
            assert engine.kernel(kernels[0])["state"] in ("waiting", "starting")
            assert [host.logins() for host in hosts] == [1] * HOSTS
            engine.client.request("stop", kernel=kernels[0], now=True)
        finally:
            engine.close()
            wait_until(lambda: not any(host.agents() for host in hosts), "the far agents to end", 20)
