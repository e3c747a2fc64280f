"""The TCP connection below an SSH connection of asyncssh's, which acknowledges at once what comes while it logs in.

sshd switches Nagle's algorithm off only when a session begins (packet.c, ssh_packet_set_interactive).  Until then the
second of two small packets waits for the acknowledgement of the first, which Linux puts off for 40 ms: after each
login, and for ever on a connection to a jump host, where no session ever begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

_QUICKACK = getattr(socket, "TCP_QUICKACK", None)  # tcp(7): Linux alone has it


class Plug:
    """What `asyncssh.connect` takes for another SSH connection to go through (its ``tunnel``): a connected socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._prompt: _Prompt | None = None

    def __repr__(self) -> str:
        return f"<Plug on {self._socket.fileno()}>"

    async def create_connection(
        self, session_factory: Callable[[], Any], remote_host: str, remote_port: int
    ) -> tuple[asyncio.Transport, Any]:
        """See `asyncssh.SSHClientConnection.create_connection`."""
        connection = session_factory()
        prompt = self._prompt = _Prompt(connection)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: prompt, sock=self._socket)
        return transport, connection

    def session_opened(self) -> None:
        """From now on the far end waits for no acknowledgement."""
        if self._prompt is not None:
            self._prompt.step_aside()


class _Prompt(asyncio.Protocol):
    """Between the socket's transport and asyncssh's protocol."""

    def __init__(self, connection: asyncio.Protocol) -> None:
        self._connection = connection
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connection.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._connection.data_received(data)
        if _QUICKACK is not None and self._transport is not None:
            # The system falls back into putting off by itself, so it is said each time: unless an answer took the
            # acknowledgement along, this sends it.
            with contextlib.suppress(OSError):
                self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def step_aside(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.set_protocol(self._connection)

    def eof_received(self) -> bool | None:
        return self._connection.eof_received()

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)
