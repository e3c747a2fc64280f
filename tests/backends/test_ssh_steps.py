"""`farkernel doctor` on the way to an SSH host, with a real sshd on loopback."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farkernel.backends.contract import Step
from farkernel.backends.ssh_config import Place
from farkernel.backends.ssh_steps import steps
from farkernel.launcher.errors import FarkernelError
from tests.backends.ssh_near_end import Person
from tests.sites.ssh import Sshd, free_port, make_key

pytestmark = pytest.mark.servers


@pytest.fixture
def host(home: Path) -> Iterator[Sshd]:
    with Sshd(home / "sshd", {"PasswordAuthentication": "yes"}) as server:
        yield server


_numbers = itertools.count()


def config(host: Sshd, **more: Any) -> Path:
    lines = {
        "HostName": "127.0.0.1",
        "Port": host.port,
        "User": host.user,
        "IdentityFile": host.key,
        "UserKnownHostsFile": host.known_hosts,
        "GlobalKnownHostsFile": "/dev/null",
        **more,
    }
    path = host.directory / f"config-{next(_numbers)}"  # what ssh_config says is remembered for a while
    path.write_text("Host *\n" + "".join(f"  {name} {value}\n" for name, value in lines.items()))
    return path


def taken(path: Path, name: str = "there") -> dict[str, str]:
    """What each step says; one that fails says it with its advice."""

    async def take(step: Step) -> str:
        try:
            return await step.take()
        except FarkernelError as error:
            return f"FAILED {error}"

    async def each() -> dict[str, str]:
        return {step.name: await take(step) for step in steps(Place(name, config=str(path)), Person())}

    return asyncio.run(each())


def test_all_is_well(host: Sshd) -> None:
    found = taken(config(host))
    assert list(found) == ["ssh_config", "name resolution", "TCP", "host key", "authentication"]
    assert found["ssh_config"] == f"{host.user}@127.0.0.1:{host.port}"
    assert found["name resolution"] == "127.0.0.1 is 127.0.0.1"
    assert found["TCP"].startswith(f"127.0.0.1 port {host.port} answers after ")
    assert found["host key"].startswith("ED25519 SHA256:")
    assert found["host key"].endswith(", as known")
    assert found["authentication"] == "127.0.0.1 takes keys, a password; here are 1 key file and no SSH agent"
    assert "Accepted" not in host.log.read_text()  # nothing was proved


def test_a_name_that_nobody_knows(host: Sshd) -> None:
    found = taken(config(host, HostName="no-such-host.invalid"))
    assert found["name resolution"].startswith("FAILED ")
    assert "no-such-host.invalid" in found["name resolution"]


def test_nobody_listens(host: Sshd) -> None:
    found = taken(config(host, Port=free_port()))
    assert found["name resolution"] == "127.0.0.1 is 127.0.0.1"
    assert found["TCP"].startswith("FAILED ")
    assert "refuses connections" in found["TCP"]


def test_a_host_key_that_changed_or_is_unknown(host: Sshd) -> None:
    other = make_key(host.directory / "other").with_suffix(".pub").read_text().split()
    host.known_hosts.write_text(f"[127.0.0.1]:{host.port} {other[0]} {other[1]}\n")
    assert "changed" in taken(config(host))["host key"]
    host.known_hosts.write_text("")
    assert taken(config(host))["host key"].startswith("FAILED ")
    found = taken(config(host, StrictHostKeyChecking="accept-new"))
    assert found["host key"].endswith("it is accepted at the first login (StrictHostKeyChecking accept-new)")


def test_behind_another_host(host: Sshd) -> None:
    """What can be seen from here is the way to the first one."""
    path = host.directory / "jump"
    path.write_text(
        f"Host inner\n  ProxyJump login\nHost login\n  HostName 127.0.0.1\n  Port {host.port}\n  User {host.user}\n"
        f"Host *\n  UserKnownHostsFile {host.known_hosts}\n  GlobalKnownHostsFile /dev/null\n"
    )
    found = taken(path, "inner")
    assert found["ssh_config"].endswith(f", through {host.user}@127.0.0.1:{host.port}")
    assert found["TCP"].startswith(f"127.0.0.1 port {host.port} answers")
    assert taken(config(host, ProxyCommand="nc %h %p"))["TCP"] == "the ProxyCommand connects"
