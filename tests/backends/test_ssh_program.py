"""The route over the ssh program: masters, the user's and ours, and which client is chosen."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from farkernel.backends.ssh_choice import choose_client, needs_program
from farkernel.backends.ssh_mux import MuxError, decode, encode, find_master, hello, new_session, reason

from ..sites.engine import wait_until
from ..sites.ssh import Sshd
from .ssh_near_end import Heard, Near, fresh_settings, play

pytestmark = pytest.mark.servers


@pytest.fixture
def host(home: Path) -> Iterator[Sshd]:
    with Sshd(home.parent / "sshd") as host:
        yield host


def test_messages_are_those_of_protocol_mux() -> None:
    assert hello() == bytes.fromhex("00000008 00000001 00000004")
    assert new_session(7, "ls") == bytes.fromhex(
        "0000002a 10000002 00000007 00000000 00000000 00000000 00000000 00000000 fffffffe 00000000 00000002 6c73"
    )
    assert encode(0x10000004, 0) == bytes.fromhex("00000008 10000004 00000000")
    assert decode(bytes.fromhex("80000006 00000001 00000002")) == (0x80000006, 1, b"\0\0\0\2")
    assert reason(bytes.fromhex("00000003") + b"no!") == "no!"
    assert reason(b"\0") == ""
    with pytest.raises(MuxError):
        decode(b"1234567")


def test_a_look_at_a_master_that_is_given_up_leaves_nothing_open(home: Path) -> None:
    """It says hello and nothing more; the other end sees that nobody is there any more."""

    async def act() -> None:
        gone = asyncio.Event()
        asked = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(hello())
            await reader.readexactly(len(hello()) + 12)
            asked.set()
            await reader.read()
            gone.set()
            writer.close()

        async with await asyncio.start_unix_server(serve, home / "master"):
            looking = asyncio.create_task(find_master(str(home / "master")))
            await asked.wait()
            looking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await looking
            await gone.wait()

    asyncio.run(asyncio.wait_for(act(), 20))


@pytest.fixture
def users_master(host: Sshd) -> Iterator[Path]:
    """A connection that the user has open at a terminal."""
    path = host.directory / "control"
    config = host.write_client_config(f"ControlPath {path}", "ControlMaster auto")
    command = ["ssh", "-F", str(config), "-p", str(host.port), "-l", host.user, "-M", "-N", "127.0.0.1"]
    master = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    wait_until(path.exists, "the user's master")
    yield path
    master.terminate()
    master.wait()


def test_a_live_control_path_is_ridden_on(host: Sshd, users_master: Path) -> None:
    settings = fresh_settings(host.place())
    assert settings.control_path == str(users_master)
    assert asyncio.run(choose_client("auto", settings, {})) == "program"

    async def act(near: Near) -> None:
        assert (await near.run(host.place(), "echo in")).data == b"in\n"
        assert host.logins() == 1
        near.connections.close()

    play(act, "program")
    assert users_master.exists()


def test_a_control_path_that_nobody_listens_on_is_passed_over(host: Sshd) -> None:
    (host.directory / "control").touch()
    host.write_client_config(f"ControlPath {host.directory}/control")

    async def act(near: Near) -> None:
        assert (await near.run(host.place(), "echo in")).data == b"in\n"

    play(act, "program")


def test_a_second_login_of_our_own_when_the_users_opens_no_more_sessions(host: Sshd) -> None:
    host.options["MaxSessions"] = "1"
    host.restart()
    path = host.directory / "control"
    config = host.write_client_config(f"ControlPath {path}", "ControlMaster auto")
    command = ["ssh", "-F", str(config), "-p", str(host.port), "-l", host.user, "-M", "-N", "127.0.0.1"]
    master = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        wait_until(path.exists, "the user's master")

        async def act(near: Near) -> None:
            streams = []
            for _ in range(2):
                heard = Heard()
                streams.append(await near.open(host.place(), heard))
                streams[-1].write([b"echo here\n"])
                await heard.until(b"here")
            assert host.logins() == 2
            for stream in streams:
                stream.close()

        play(act, "program")
    finally:
        master.terminate()
        master.wait()


def masters() -> list[int]:
    """Ours, of this test."""
    run = os.environ["FARKERNEL_RUN_DIR"]
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if command[:1] == ["ssh"] and any(part.startswith(run) for part in command):
            found.append(process.pid)
    return found


KEEPER = """
import asyncio, sys
from farkernel.backends.ssh_config import Place
from tests.backends.ssh_near_end import Near

async def main():
    near = Near("program")
    await near.run(Place("127.0.0.1", sys.argv[1], int(sys.argv[2]), sys.argv[3]), "echo in")
    print("up", flush=True)
    await asyncio.Future()

asyncio.run(main())
"""


def test_no_master_outlives_a_keeper_that_was_killed(host: Sshd) -> None:
    place = host.place()
    root = Path(__file__).parent.parent.parent
    command = [sys.executable, "-c", KEEPER, host.user, str(host.port), str(place.config)]
    keeper = subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert keeper.stdout is not None
    assert keeper.stdout.readline() == b"up\n"
    assert len(masters()) == 1
    keeper.kill()
    keeper.wait()
    keeper.stdout.close()
    wait_until(lambda: not masters(), "the master to end")


def test_a_master_ends_with_its_connections(host: Sshd) -> None:
    async def act(near: Near) -> None:
        await near.run(host.place(), "echo in")
        assert len(masters()) == 1
        near.connections.close()
        wait_until(lambda: not masters(), "the master to end")

    play(act, "program")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("PKCS11Provider /usr/lib/opensc.so", "pkcs11provider"),
        ("KnownHostsCommand /bin/true", "knownhostscommand"),
        ("BindAddress 127.0.0.1", "bindaddress"),
        ("Ciphers aes128-ctr", None),
        ("ProxyCommand nc %h %p", None),
        ("KexAlgorithms sntrup761x25519-sha512@openssh.com,curve25519-sha256", None),
        ("MACs umac-128-etm@openssh.com", None),
    ],
)
def test_the_program_is_chosen_where_ssh_config_asks_for_what_asyncssh_lacks(
    host: Sshd, line: str, why: str | None
) -> None:
    host.write_client_config(line, "GSSAPIAuthentication no")
    found = needs_program(fresh_settings(host.place()), {})
    assert found == (None if why is None else f"ssh_config uses {why} for 127.0.0.1")
    assert asyncio.run(choose_client("paramiko", fresh_settings(host.place()), {})) == "paramiko"
