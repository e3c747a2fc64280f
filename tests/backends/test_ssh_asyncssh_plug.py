"""The socket below asyncssh: nothing that comes in waits for our acknowledgement, and whoever listens hears all."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from farkernel.backends.ssh_asyncssh import AsyncsshConnection
from farkernel.backends.ssh_asyncssh_plug import Plug
from farkernel.backends.ssh_connections import Who

from ..sites.ssh import Sshd
from .ssh_near_end import Near, fresh_settings, play


@pytest.fixture
def host(home: Path) -> Iterator[Sshd]:
    with Sshd(home.parent / "sshd") as host:
        yield host


async def in_two_parts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server behind the jump host."""
    while await reader.read(1):
        writer.write(b"one")
        await asyncio.sleep(0.002)
        writer.write(b"two")
    writer.close()


@pytest.mark.servers
def test_an_answer_in_two_parts_comes_at_once_through_a_jump_host(host: Sshd) -> None:
    """sshd leaves Nagle's algorithm on there: each took 42 ms at least."""

    async def act(near: Near) -> None:
        server = await asyncio.start_server(in_two_parts, "127.0.0.1", 0)
        who = Who(near.person, "the-host")
        async with near.connections.lent(near.client, fresh_settings(host.place()), who) as connection:
            assert isinstance(connection, AsyncsshConnection)
            port = server.sockets[0].getsockname()[1]
            reader, writer = await connection.connection.open_connection("127.0.0.1", port)
            taken = []
            for _ in range(20):
                began = time.monotonic()
                writer.write(b"?")
                assert await reader.readexactly(6) == b"onetwo"
                taken.append(time.monotonic() - began)
            writer.write_eof()
            assert await reader.read() == b""
        server.close()
        assert min(taken) < 0.03

    play(act, "asyncssh")


class Listener(asyncio.Protocol):
    def __init__(self) -> None:
        self.heard: list[object] = []
        self.more = asyncio.Event()

    def _hear(self, what: object) -> None:
        self.heard.append(what)
        self.more.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._hear("made")

    def data_received(self, data: bytes) -> None:
        self._hear(data)

    def eof_received(self) -> None:
        self._hear("eof")

    def pause_writing(self) -> None:
        self._hear("pause")

    def resume_writing(self) -> None:
        self._hear("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self._hear(exc)

    async def until(self, last: object) -> None:
        while self.heard[-1:] != [last]:
            self.more.clear()
            await self.more.wait()


@pytest.mark.parametrize("session", [False, True])
def test_who_listens_hears_the_same_before_and_after(session: bool) -> None:
    async def act() -> None:
        with socket.create_server(("127.0.0.1", 0)) as door:
            plug = Plug(socket.create_connection(door.getsockname()))
            other, _ = door.accept()
        plug.session_opened()  # too early: nothing
        with other:
            transport, listener = await plug.create_connection(Listener, "far", 22)
            other.send(b"first")
            await listener.until(b"first")
            if session:
                plug.session_opened()
                assert transport.get_protocol() is listener
            transport.set_write_buffer_limits(0)
            transport.write(bytes(8_000_000))
            await listener.until("pause")
            other.setblocking(False)
            left = 8_000_000
            while left:
                left -= len(await asyncio.get_running_loop().sock_recv(other, 1 << 20))
            await listener.until("resume")
            other.shutdown(socket.SHUT_WR)
            await listener.until(None)
            plug.session_opened()  # too late: nothing
        assert listener.heard == ["made", b"first", "pause", "resume", "eof", None]

    asyncio.run(asyncio.wait_for(act(), 30))
