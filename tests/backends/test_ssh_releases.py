"""SSH servers and ssh programs of other releases: OpenSSH 8.4 with Python 3.9, OpenSSH 10 with Python 3.13."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from farkernel.backends import ssh_config
from farkernel.backends.ssh_errors import HostKeyChanged, HostKeyUnknown, LoginRefused, NoAccess

from ..sites.releases import OPENSSH, PYTHONS, RELEASES, ReleaseSshd, program_of
from ..sites.ssh import make_key
from .ssh_near_end import CLIENTS, Near, Person, play
from .test_ssh_boot import ask_agent, target_at

THEIRS = "their program"

pytestmark = [
    pytest.mark.servers,
    pytest.mark.long,
    pytest.mark.timeout(300),
    pytest.mark.parametrize("release", RELEASES),
]
with_each_client = pytest.mark.parametrize("way", [*CLIENTS, THEIRS])


@pytest.fixture
def client(way: str, release: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of the client; with `THEIRS` the ssh program is that of the release."""
    if way == THEIRS:
        place = program_of(release, "/usr/bin/ssh", home / "programs").parent
        monkeypatch.setenv("PATH", str(place), prepend=":")
        said = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr
        assert said.startswith(OPENSSH[release])
    ssh_config.usual_algorithms.cache_clear()
    yield "program" if way == THEIRS else way
    ssh_config.usual_algorithms.cache_clear()


@pytest.fixture
def host(release: str, home: Path) -> Iterator[ReleaseSshd]:
    with ReleaseSshd(home.parent / "sshd", release) as server:
        yield server


@with_each_client
def test_the_agent_answers(client: str, host: ReleaseSshd, release: str) -> None:
    async def act(near: Near) -> None:
        heard = await near.run(host.place(), "python3 -c 'import sys; print(sys.version)'")
        assert heard.data.decode().startswith(PYTHONS[release])
        downs: list[str] = []
        assert await ask_agent(target_at(host.place(), client), downs) == []
        assert downs == []

    play(act, client, deadline=90)


@with_each_client
def test_an_unknown_key_and_a_changed_one(client: str, host: ReleaseSshd) -> None:
    host.write_client_config("StrictHostKeyChecking ask")
    host.known_hosts.unlink()
    person = Person()

    async def unknown(near: Near) -> None:
        with pytest.raises(HostKeyUnknown, match=r"ED25519 SHA256:\S{43}\).*farkernel login"):
            await near.run(host.place(), "true")
        person.answers["SHA256"] = "yes"
        assert (await near.run(host.place(), "echo in")).data == b"in\n"

    play(unknown, client, person, deadline=90)
    other = make_key(host.directory / f"other-{secrets.token_hex(4)}").with_suffix(".pub").read_text().split()
    host.known_hosts.write_text(f"[127.0.0.1]:{host.port} {other[0]} {other[1]}\n")

    async def changed(near: Near) -> None:
        with pytest.raises(HostKeyChanged) as caught:
            await near.run(host.place(), "true")
        assert caught.value.what.count("SHA256:") == 2
        assert f"({host.known_hosts}, line 1)" in caught.value.what

    play(changed, client, person, deadline=90)


@with_each_client
@pytest.mark.parametrize("method", ["password", "keyboard-interactive"])
def test_what_a_person_types(client: str, release: str, method: str, home: Path) -> None:
    options = {
        "UsePAM": "yes" if method == "keyboard-interactive" else "no",
        "PasswordAuthentication": "yes",
        "KbdInteractiveAuthentication": "yes",
        "AuthenticationMethods": method,
    }
    with ReleaseSshd(home.parent / "sshd", release, options) as host:
        right = Person({"assword": host.password})

        async def act(near: Near) -> None:
            for _ in range(2):
                assert (await near.run(host.place(), "echo in")).data == b"in\n"

        play(act, client, right, deadline=90)
        assert [question.hidden for question in right.questions] == [True]

        wrong = Person({"assword": "wrong"})

        async def refused(near: Near) -> None:
            with pytest.raises(LoginRefused, match="a password or code"):
                await near.run(host.place(), "true")

        play(refused, client, wrong, deadline=90)
        assert 1 <= len(wrong.questions) <= 3


@with_each_client
def test_one_session_for_each_connection(client: str, release: str, home: Path) -> None:
    with ReleaseSshd(home.parent / "sshd", release, {"MaxSessions": "1"}) as host:

        async def act(near: Near) -> None:
            runs = [near.run(host.place(), "sleep 1; echo in") for _ in range(3)]
            assert [bytes(heard.data) for heard in await asyncio.gather(*runs)] == [b"in\n"] * 3

        play(act, client, deadline=90)


@with_each_client
def test_an_account_that_may_not_log_in(client: str, release: str, home: Path) -> None:
    with ReleaseSshd(home.parent / "sshd", release, {"UsePAM": "yes"}) as host:
        (host.layer / "upper/etc/pam.d/sshd").write_text(
            "account required pam_nologin.so file=/etc/nologin\naccount required pam_deny.so\n"
        )
        (host.layer / "upper/etc/nologin").write_text("Maintenance until noon\n")
        host.restart()

        async def act(near: Near) -> None:
            with pytest.raises((NoAccess, LoginRefused)) as caught:
                await near.run(host.place(), "true")
            assert "was not let in" in caught.value.what

        play(act, client, deadline=90)
