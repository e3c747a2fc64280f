"""`farkernel doctor` on the way to an SSH host, with a real sshd on loopback."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farkernel.backends.contract import Step
from farkernel.backends.ssh_config import Place
from farkernel.backends.ssh_steps import steps
from farkernel.launcher.errors import FarkernelError
from tests.backends.ssh_near_end import Person
from tests.sites.engine import wait_until
from tests.sites.ssh import Sshd, free_port, make_key, ssh_agent

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


def nobody_waits() -> bool:
    return not any(thread.name.startswith("asyncio-waitpid") for thread in threading.enumerate())


def taken(path: Path, name: str = "there") -> dict[str, str]:
    """What each step says; one that fails says it with its advice."""

    async def take(step: Step) -> str:
        try:
            return await step.take()
        except FarkernelError as error:
            return f"FAILED {error}"

    async def each() -> dict[str, str]:
        said = {step.name: await take(step) for step in await steps(Place(name, config=str(path)), Person())}
        # A ProxyCommand's end is waited for in a thread of asyncio's, which tells the loop: that must still be there.
        await asyncio.to_thread(wait_until, nobody_waits, "the ProxyCommand to end")
        return said

    return asyncio.run(each())


def test_all_is_well(host: Sshd) -> None:
    found = taken(config(host))
    assert list(found) == ["ssh_config", "name resolution", "TCP", "host key", "authentication"]
    assert found["ssh_config"] == f"{host.user}@127.0.0.1:{host.port}"
    assert found["name resolution"] == "127.0.0.1 is 127.0.0.1"
    assert found["TCP"].startswith(f"127.0.0.1 port {host.port} answers after ")
    assert found["host key"].startswith("ED25519 SHA256:")
    assert found["host key"].endswith(", as known")
    assert found["authentication"] == f"127.0.0.1 takes keys, a password; tried: key {host.key} (taken)"
    assert host.logins() == 0


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


def test_each_key_is_shown_and_none_is_used(host: Sshd) -> None:
    other, beside = (
        make_key(host.directory / "other"),
        make_key(host.directory / "beside", passphrase="locked"),
    )
    with ssh_agent(host.directory, other) as agent:
        path = config(host, IdentityFile=f"{beside}\n  IdentityFile {host.key}", IdentityAgent=agent)
        found = taken(path)["authentication"]
    assert found == (
        "127.0.0.1 takes keys, a password; tried: the SSH agent's key a test (refused), "
        f"key {beside} (refused), key {host.key} (taken)"
    )
    assert host.logins() == 0


def test_a_certificate_is_tried_like_a_key(host: Sshd) -> None:
    authority, public = make_key(host.directory / "authority"), f"{host.key}.pub"
    sign = ["ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", host.user, public]
    subprocess.run(sign, check=True)
    authorized = f"cert-authority {authority.with_suffix('.pub').read_text()}"
    (host.directory / "authorized_keys").write_text(authorized)
    found = taken(config(host))["authentication"]
    assert f"certificate {host.key} (taken)" in found
    assert f"key {host.key} (refused)" in found


def test_no_key_is_taken(home: Path) -> None:
    with Sshd(home / "sshd", {"MaxAuthTries": "3"}) as host:
        (host.directory / "authorized_keys").write_text("")
        found = taken(config(host))["authentication"]
        assert found.startswith(
            f"FAILED {host.user}@127.0.0.1:{host.port} will not be let in: it takes keys; "
            f"tried: key {host.key} (refused)"
        )
        assert "ssh-copy-id" in found
        none = taken(config(host, IdentityFile="none"))["authentication"]
        assert "it takes keys; here is no key, and no SSH agent" in none
        keys = [make_key(host.directory / f"key-{number}") for number in range(5)]
        many = taken(config(host, IdentityFile="\n  IdentityFile ".join(map(str, keys))))["authentication"]
        assert "too many keys were tried" in many
        assert "IdentitiesOnly yes" in many


def test_each_host_on_the_way_is_looked_at(host: Sshd, home: Path) -> None:
    with Sshd(home / "inner") as inner:
        path = host.directory / "jump"
        host.known_hosts.write_text(host.known_hosts.read_text() + inner.known_hosts.read_text())
        path.write_text(
            f"Host inner\n  ProxyJump login\n  HostName 127.0.0.1\n  Port {inner.port}\n  IdentityFile {inner.key}\n"
            f"Host gone\n  ProxyJump login\n  HostName 127.0.0.1\n  Port {free_port()}\n"
            f"Host login\n  HostName 127.0.0.1\n  Port {host.port}\n  IdentityFile {host.key}\n"
            f"Host *\n  UserKnownHostsFile {host.known_hosts}\n  GlobalKnownHostsFile /dev/null\n"
        )
        found = taken(path, "inner")
        assert list(found) == [
            "ssh_config",
            "name resolution of login",
            "TCP of login",
            "host key of login",
            "authentication of login",
            "TCP of inner",
            "host key of inner",
            "authentication of inner",
        ]
        assert found["ssh_config"].endswith(f", through {host.user}@127.0.0.1:{host.port}")
        assert found["TCP of login"].startswith(f"127.0.0.1 port {host.port} answers")
        assert found["TCP of inner"].startswith(f"127.0.0.1 port {inner.port} answers")
        assert found["TCP of inner"].endswith(f" ms, from {host.user}@127.0.0.1:{host.port}")
        assert found["host key of inner"].endswith(", as known")
        assert found["authentication of inner"] == f"127.0.0.1 takes keys; tried: key {inner.key} (taken)"
        assert inner.logins() == 0
        assert host.logins() == 1
        gone = taken(path, "gone")
        assert gone["authentication of login"].endswith("(taken)")
        assert "makes no connection to 127.0.0.1:" in gone["TCP of gone"]


def test_through_a_proxy_command(host: Sshd) -> None:
    found = taken(config(host, ProxyCommand="/bin/bash -c 'exec 3<>/dev/tcp/%h/%p; cat <&3 & cat >&3'"))
    assert found["TCP"] == "the ProxyCommand connects"
    assert found["host key"].endswith(", as known")
    assert found["authentication"].endswith(f"tried: key {host.key} (taken)")


def test_an_ssh_config_that_cannot_be_read(host: Sshd) -> None:
    found = taken(config(host, NoSuchKeyword="yes"))
    assert list(found) == ["ssh_config"]
    assert found["ssh_config"].startswith("FAILED ssh_config cannot be used for there")
