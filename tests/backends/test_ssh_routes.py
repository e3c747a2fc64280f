"""What every SSH client must do alike, with a real sshd."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from farkernel.backends.contract import RouteError
from farkernel.backends.ssh import ANY, first_line
from farkernel.backends.ssh_config import Place
from farkernel.backends.ssh_errors import (
    HostKeyChanged,
    HostKeyDeclined,
    HostKeyUnknown,
    LoginRefused,
    NameUnknown,
    Overloaded,
    Refused,
    TimedOut,
)

from ..sites.ssh import Sshd, free_port, make_key, ssh_agent
from .ssh_near_end import CLIENTS, Heard, Near, Person, play

pytestmark = [pytest.mark.servers, pytest.mark.parametrize("client", CLIENTS)]


@pytest.fixture
def host(home: Path) -> Iterator[Sshd]:
    with Sshd(home.parent / "sshd") as host:
        yield host


def test_bytes_go_both_ways_unchanged(client: str, host: Sshd) -> None:
    payload = bytes(range(256)) * 20_000

    async def act(near: Near) -> None:
        heard = Heard()
        stream = await near.open(host.place(), heard)
        stream.write([b"echo ready; exec head -c %d\n" % len(payload)])
        await heard.until(b"ready\n")  # or the shell would read ahead
        for start in range(0, len(payload), 1_000_000):
            middle = start + 600_000
            stream.write([payload[start:middle], memoryview(payload)[middle : start + 1_000_000]])
        await heard.over.wait()
        assert heard.said == [""]
        assert bytes(heard.data) == b"ready\n" + payload

    play(act, client)


def test_writable_is_said_when_all_has_gone_out(client: str, host: Sshd) -> None:
    async def act(near: Near) -> None:
        heard = Heard()
        stream = await near.open(host.place(), heard)
        stream.write([b"echo ready; sleep 0.3; exec cat > /dev/null\n"])
        await heard.until(b"ready")
        heard.room.clear()
        stream.write([bytes(1_000_000)] * 40)
        assert stream.buffered > 0
        await heard.room.wait()
        assert stream.buffered == 0
        stream.close()
        stream.close()
        await heard.over.wait()
        assert heard.said == [""]

    play(act, client)


def test_the_end_of_stderr_is_told(client: str, host: Sshd) -> None:
    async def act(near: Near) -> None:
        heard = await near.run(host.place(), "echo out; echo something is wrong >&2")
        assert (bytes(heard.data), heard.said) == (b"out\n", ["something is wrong"])

    play(act, client)


def test_a_stream_that_is_closed_ends_its_command_and_nothing_else(client: str, host: Sshd) -> None:
    async def act(near: Near) -> None:
        first, second = Heard(), Heard()
        closing = await near.open(host.place(), first)
        staying = await near.open(host.place(), second)
        closing.write([b"echo $$; cat; touch %s\n" % str(host.directory / "ended").encode()])
        await first.until(b"\n")
        closing.close()
        staying.write(
            [b"while [ ! -e %s ]; do sleep 0.05; done; echo seen\n" % str(host.directory / "ended").encode()]
        )
        await second.until(b"seen")
        assert host.logins() == 1

    play(act, client)


def test_any_command_runs_without_a_login_shell_seeing_its_words(client: str, host: Sshd) -> None:
    words = ["printf", "<%s>", "a b", "$(touch canary)", "'q'", "new\nline", "-oProxyCommand=x", "`id`", "!"]

    async def act(near: Near) -> None:
        heard = Heard()
        stream = await near.open(host.place(), heard, ANY)
        stream.write([first_line(words)])
        await heard.over.wait()
        assert heard.data.decode() == "".join(f"<{word}>" for word in words[2:])

    play(act, client)


# -- keys of hosts -------------------------------------------------------------------------------------------


def test_an_unknown_key_needs_somebody_at_a_terminal(client: str, host: Sshd) -> None:
    host.known_hosts.unlink()
    host.write_client_config("StrictHostKeyChecking ask")
    person = Person()

    async def act(near: Near) -> None:
        with pytest.raises(HostKeyUnknown, match=r"ED25519 SHA256:\S{43}\).*farkernel login") as caught:
            await near.run(host.place(), "echo in")
        assert caught.value.needs_user
        assert [question.terminal for question in person.questions] == [True]
        assert host.logins() == 0

    play(act, client, person)


@pytest.mark.parametrize("hashed", ["yes", "no"])
def test_a_key_that_was_accepted_is_written_down(client: str, host: Sshd, hashed: str) -> None:
    host.known_hosts.write_text("# mine")  # no end of line
    host.write_client_config("StrictHostKeyChecking ask", f"HashKnownHosts {hashed}")
    person = Person({"SHA256": "yes"})

    async def act(near: Near) -> None:
        assert (await near.run(host.place(), "echo in")).data == b"in\n"
        assert len(person.questions) == 1
        near.connections.close()
        assert (await near.run(host.place(), "echo again")).data == b"again\n"
        assert len(person.questions) == 1

    play(act, client, person)
    lines = host.known_hosts.read_text().splitlines()
    assert lines[0] == "# mine"
    assert ("127.0.0.1" in lines[1]) == (hashed == "no")
    found = subprocess.run(
        ["ssh-keygen", "-F", f"[127.0.0.1]:{host.port}", "-f", str(host.known_hosts)],
        capture_output=True,
        check=True,
    )
    assert (host.directory / "host_key.pub").read_text().split()[1] in found.stdout.decode()


def test_a_key_that_was_not_accepted_is_not_used(client: str, host: Sshd) -> None:
    host.known_hosts.unlink()
    host.write_client_config("StrictHostKeyChecking ask")

    async def act(near: Near) -> None:
        with pytest.raises((HostKeyDeclined, HostKeyUnknown)):
            await near.run(host.place(), "echo in")

    play(act, client, Person({"SHA256": "no"}))
    assert not host.known_hosts.exists()


def test_accept_new_asks_nobody(client: str, host: Sshd) -> None:
    host.known_hosts.unlink()
    host.write_client_config("StrictHostKeyChecking accept-new")
    person = Person()

    async def act(near: Near) -> None:
        assert (await near.run(host.place(), "echo in")).data == b"in\n"

    play(act, client, person)
    assert person.questions == []
    assert host.known_hosts.read_text().startswith("[127.0.0.1]:")


@pytest.mark.parametrize("strict", ["yes", "ask", "accept-new", "no"])
def test_a_changed_key_is_refused_whatever_ssh_config_says(client: str, host: Sshd, strict: str) -> None:
    other = make_key(host.directory / "other").with_suffix(".pub").read_text().split()
    host.known_hosts.write_text(f"# first\n[127.0.0.1]:{host.port} {other[0]} {other[1]}\n")
    host.write_client_config(f"StrictHostKeyChecking {strict}")
    before = host.known_hosts.read_bytes()

    async def act(near: Near) -> None:
        with pytest.raises(HostKeyChanged) as caught:
            await near.run(host.place(), "echo in")
        assert caught.value.needs_user
        assert caught.value.what.count("SHA256:") == 2
        assert f"({host.known_hosts}, line 2)" in caught.value.what
        assert f"ssh-keygen -R '[127.0.0.1]:{host.port}' -f {host.known_hosts}" in caught.value.advice

    play(act, client, Person({"SHA256": "yes", "password": "x"}))
    assert host.known_hosts.read_bytes() == before
    assert host.logins() == 0


def test_a_host_of_which_another_kind_of_key_is_known_shows_that_one(client: str, host: Sshd) -> None:
    rsa = make_key(host.directory / "host_rsa", "rsa")
    host.options["HostKey"] = str(rsa)
    host.restart()
    kind, blob, _ = (host.directory / "host_rsa.pub").read_text().split(None, 2)
    host.known_hosts.write_text(f"[127.0.0.1]:{host.port} {kind} {blob}\n")

    async def act(near: Near) -> None:
        assert (await near.run(host.place(), "echo in")).data == b"in\n"

    play(act, client)


# -- logins --------------------------------------------------------------------------------------------------


def test_a_locked_key_is_unlocked_by_whoever_is_asked(client: str, host: Sshd) -> None:
    locked = make_key(host.directory / "locked", passphrase="open sesame")
    with (host.directory / "authorized_keys").open("wb") as stream:
        stream.write((host.directory / "locked.pub").read_bytes())
    (host.directory / "locked.pub").unlink()  # its public half stands in the file itself
    host.write_client_config(f"IdentityFile {locked}")
    person = Person({"assphrase": "open sesame"})

    async def act(near: Near) -> None:
        assert (await near.run(host.place(), "echo in")).data == b"in\n"
        assert [str(locked) in question.text and question.hidden for question in person.questions] == [True]

    play(act, client, person)


def test_the_agent_of_whoever_came_last_is_used(client: str, host: Sshd) -> None:
    host.write_client_config("IdentityFile none", "IdentitiesOnly no", "IdentityAgent SSH_AUTH_SOCK")
    with ssh_agent(host.directory, host.key) as agent:
        person = Person(environment={"SSH_AUTH_SOCK": agent})

        async def act(near: Near) -> None:
            assert (await near.run(host.place(), "echo in")).data == b"in\n"

        play(act, client, person)


def test_a_certificate_lets_in(client: str, host: Sshd) -> None:
    authority = make_key(host.directory / "authority")
    public = str(host.key) + ".pub"
    subprocess.run(
        ["ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", host.user, public], check=True
    )
    (host.directory / "authorized_keys").write_text(
        f"cert-authority {authority.with_suffix('.pub').read_text()}"
    )

    async def act(near: Near) -> None:
        assert (await near.run(host.place(), "echo in")).data == b"in\n"

    play(act, client)


def test_a_refused_login_says_what_was_tried(client: str, host: Sshd) -> None:
    (host.directory / "authorized_keys").write_text("")

    async def act(near: Near) -> None:
        with pytest.raises(LoginRefused, match=r"was not let in \(tried .*key") as caught:
            await near.run(host.place(), "echo in")
        assert caught.value.needs_user
        assert "farkernel login" in caught.value.advice

    play(act, client)


# -- networks ------------------------------------------------------------------------------------------------


def config_for(home: Path, *lines: str) -> str:
    path = home / "ssh_config"
    path.write_text("\n".join(["IdentityFile none", "UserKnownHostsFile /dev/null", *lines]) + "\n")
    return str(path)


def test_a_name_that_does_not_exist(client: str, home: Path) -> None:
    async def act(near: Near) -> None:
        with pytest.raises(NameUnknown, match=r"no host no-such-host\.invalid"):
            await near.run(Place("no-such-host.invalid", config=config_for(home)), "")

    play(act, client)


def test_a_port_where_nobody_listens(client: str, home: Path) -> None:
    port = free_port()

    async def act(near: Near) -> None:
        with pytest.raises(Refused, match=rf"127\.0\.0\.1 refuses connections to port {port}"):
            await near.run(Place("127.0.0.1", port=port, config=config_for(home)), "")

    play(act, client)


def test_a_host_that_says_nothing(client: str, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = Place("127.0.0.1", port=silent.getsockname()[1], config=config_for(home, "ConnectTimeout 1"))

        async def act(near: Near) -> None:
            with pytest.raises(TimedOut, match="did not answer within 1 s"):
                await near.run(place, "")

        play(act, client)


def test_a_host_that_hangs_up(client: str, home: Path) -> None:
    async def act(near: Near) -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        place = Place("127.0.0.1", port=server.sockets[0].getsockname()[1], config=config_for(home))
        with pytest.raises(Overloaded):
            await near.run(place, "")
        server.close()

    play(act, client)


@pytest.mark.parametrize(
    "lines",
    [
        b"SSH-1.0-old\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x1b]0;owned\x07" * 100,
        b"SSH-2.0-x\r\n" + b"\0\0\0\x0c\x0a\x14" + bytes(20),
        b"SSH-2.0-x\r\n" + b"\xff" * 4096,
    ],
)
def test_a_hostile_server_comes_to_an_error_of_ours(client: str, home: Path, lines: bytes) -> None:
    async def hostile(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(lines)
        await reader.read(65536)
        writer.close()

    async def act(near: Near) -> None:
        server = await asyncio.start_server(hostile, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        place = Place("127.0.0.1", port=port, config=config_for(home, "ConnectTimeout 3"))
        with pytest.raises(RouteError) as caught:
            await near.run(place, "")
        assert caught.value.what.isprintable()
        server.close()

    play(act, client)


def test_a_proxy_command_is_the_way(client: str, host: Sshd) -> None:
    program = host.directory / "through.py"
    program.write_text(
        "import os, socket, sys, threading\n"
        "plug = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n"
        "    while data := os.read(0, 65536): plug.sendall(data)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := plug.recv(65536): os.write(1, data)\n"
    )
    host.write_client_config(f"ProxyCommand /usr/bin/python3 {program} %h %p")

    async def act(near: Near) -> None:
        assert (await near.run(host.place(), "echo in")).data == b"in\n"

    play(act, client)
    assert os.path.exists(program)
