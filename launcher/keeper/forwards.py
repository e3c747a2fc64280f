"""`farkernel forward`: a port at the far end, reachable on a port of this machine (127.0.0.1 only).

Each connection has a stream channel of its own; how far one side may run ahead of the other is bounded by the
channel's credit, by what the link takes, and by what the local socket takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import platform
import socket
import struct
from collections.abc import Callable
from typing import Any, Protocol

from ..agent.channels import ChannelError, Priority
from ..agent.frames import Buffer
from ..errors import FarkernelError
from .far_agent import FarAgent
from .journal import agent_of
from .kernel import Kernel
from .server import BadRequest, ClientConnection, Handler

log = logging.getLogger(__name__)

_HOST = "127.0.0.1"
_ENOUGH = 1024 * 1024  # waiting in the link for one connection
_BUFFERED = 256 * 1024
_LINGER_NOT = struct.pack("ii", 1, 0)


class PortTaken(FarkernelError):
    kind = "port-taken"

    def __init__(self, port: int, error: OSError) -> None:
        super().__init__(
            f"port {port} of this machine cannot be listened on: {error.strerror or error}",
            "Choose another one with --local, or leave it out: any free one is taken then.",
        )


class ForwardToItself(FarkernelError):
    kind = "usage"

    def __init__(self, port: int) -> None:
        super().__init__(
            f"the kernel runs on this machine, whose port {port} would be forwarded to itself",
            "Use the port as it is, or choose another one here with --local.",
        )


def handlers(find: Callable[[dict[str, Any]], Kernel]) -> dict[str, Handler]:
    """The request `forward`: ``kernel``, ``port`` or ``path``, ``host``, ``local`` → ``host``, ``port``.

    It lasts as long as the client's connection, which is told of failed connections by events
    ``{"event": "forward", "kernel", "port", "what", "advice"}``.
    """

    async def forward(client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        kernel = find(request)
        host = (await agent_of(kernel)).link.peer.get("about", {}).get("host")
        opened = await open_forward(kernel, request, host == platform.node(), client.event)
        client.on_close["forward", opened] = opened.close
        return {"host": _HOST, "port": opened.port}

    return {"forward": forward}


async def open_forward(
    kernel: Kernel,
    request: dict[str, Any],
    same_machine: bool,
    tell: Callable[[dict[str, Any]], None] = lambda event: None,
) -> Forward:
    """Listen; raises `PortTaken`, `ForwardToItself`, `BadRequest`."""
    port, path, host, local = (request.get(name) for name in ("port", "path", "host", "local"))
    if path is None and (not isinstance(port, int) or not 0 < port < 65536):
        raise BadRequest(f"{str(port)[:20]!r} is not a port")
    if local is not None and (not isinstance(local, int) or not 0 <= local < 65536):
        raise BadRequest(f"{str(local)[:20]!r} is not a port")
    wanted = {"host": host, "port": port} if path is None else {"path": str(path)}
    forward = Forward(kernel, wanted, tell)
    if same_machine and path is None and local == port and host in (None, _HOST, "localhost"):
        raise ForwardToItself(int(port or 0))
    # The same number, if it can be had: addresses that programs print at the far end are right here, too.
    tries = [local] if local is not None else [0] if same_machine else [port or 0, 0]
    for number in tries:
        try:
            await forward.listen(int(number))
            return forward
        except OSError as error:
            if number == tries[-1]:
                raise PortTaken(int(number), error) from None
    raise AssertionError


class Forward:
    """One listening socket and its connections."""

    do = "connect"

    def __init__(
        self, kernel: Kernel, wanted: dict[str, Any], tell: Callable[[dict[str, Any]], None]
    ) -> None:
        self.kernel = kernel
        self.wanted = wanted
        self.port = 0
        self.connections: set[Connection] = set()
        self._tell = tell
        self._server: asyncio.Server | None = None

    def __repr__(self) -> str:
        return (
            f"<Forward {self.port} to {self.wanted} of {self.kernel.id}, {len(self.connections)} connections>"
        )

    async def listen(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), _HOST, port)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.abort()

    async def agent(self) -> FarAgent:
        return await agent_of(self.kernel)

    def connected(self, agent: FarAgent, channel: int) -> None:
        """The channel's end says all."""

    def failed(self, error: FarkernelError) -> None:
        """A connection could not be made; whoever asked for the forward is told."""
        log.info("forward to %s of %s: %s", self.wanted, self.kernel.id, error)
        about = {"kernel": self.kernel.id, "port": self.port}
        self._tell({"event": "forward", **about, "what": error.what, "advice": error.advice})


class Way(Protocol):
    """Where connections lead: a port of the far machine, or a command there (`bridges`)."""

    do: str  # the agent's request
    wanted: dict[str, Any]  # its arguments

    @property
    def connections(self) -> set[Connection]: ...
    async def agent(self) -> FarAgent: ...
    def connected(self, agent: FarAgent, channel: int) -> None: ...
    def failed(self, error: FarkernelError) -> None: ...


class Connection(asyncio.Protocol):
    """One connection: a local socket and a channel.  Each half ends by itself; a cut of either cuts the other."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._agent: FarAgent | None = None
        self._channel = 0
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._open = False  # the channel is open at both ends
        self._sent_end = False  # our half of it is closed
        self._got_end = False  # theirs is
        self._paused = False  # the local socket takes no more
        self._unconsumed = 0

    def __repr__(self) -> str:
        return f"<Connection, channel {self._channel}, {'open' if self._open else 'not open'}>"

    # from the local side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.pause_reading()
        transport.set_write_buffer_limits(_BUFFERED)
        self._way.connections.add(self)
        self._task = asyncio.get_running_loop().create_task(self._connect(), name="forward")

    async def _connect(self) -> None:
        try:
            self._agent = agent = await self._way.agent()
            self._channel = agent.open_channel(Priority.PORT, self._received, True, self._lost)
            self._way.connected(agent, self._channel)
            await agent.request(self._way.do, channel=self._channel, **self._way.wanted)
        except FarkernelError as error:
            self._way.failed(error)
            self._refused(error.as_dict()["kind"])
            self.abort()
            return
        self._open = True
        if self._transport is None or self._transport.is_closing():
            self._cut()
        else:
            self._transport.resume_reading()

    def _refused(self, kind: str) -> None:
        """What becomes of the channel: the agent never opened it, or has closed its half."""
        if self._agent is not None and self._channel:
            if kind in ("bad-request", "no-command", "link"):
                self._agent.forget_channels([self._channel])
            else:
                self._close_half()

    def data_received(self, data: bytes) -> None:
        agent = self._agent
        if agent is None or not self._open:
            return
        agent.send(self._channel, [data])
        if agent.link.backlog(self._channel) > _ENOUGH and self._transport is not None:
            self._transport.pause_reading()
            agent.when_pumped(self._room)

    def _room(self) -> None:
        agent, transport = self._agent, self._transport
        if agent is None or transport is None or not self._open or self._sent_end:
            return
        if agent.link.backlog(self._channel) > _ENOUGH:
            agent.when_pumped(self._room)
        elif not transport.is_closing():
            transport.resume_reading()

    def eof_received(self) -> bool:
        self._close_half()
        return not self._got_end  # True: the other direction goes on

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._consume()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._way.connections.discard(self)
        self._cut()  # unless it is still being opened: then `_connect` sees to it

    def _cut(self) -> None:
        """The local side is gone: what is still under way at the far end has nobody to go to."""
        agent = self._agent
        if agent is None or not self._open:
            return
        self._open = False
        if not (self._sent_end and self._got_end):
            agent.tell("reset", channel=self._channel)
        self._close_half()
        self._consume()
        if not self._got_end:
            agent.ignore_rest(self._channel)

    def _close_half(self) -> None:
        if not self._sent_end and self._agent is not None:
            self._sent_end = True
            with contextlib.suppress(ChannelError):
                self._agent.half_close(self._channel)

    # from the far side

    def _received(self, data: Buffer) -> None:
        transport = self._transport
        if not data:
            self._got_end = True
            if transport is not None and self._open:
                if self._sent_end:
                    transport.close()
                elif transport.can_write_eof():
                    transport.write_eof()
            return
        self._unconsumed += len(data)
        if transport is not None:
            transport.write(bytes(data))
        if not self._paused:
            self._consume()

    def _consume(self) -> None:
        agent, size = self._agent, self._unconsumed
        if agent is not None and size:
            self._unconsumed = 0
            agent.link.consumed(self._channel, size)
            agent.driver.pump()

    def _lost(self) -> None:
        """The session has ended, or the far connection was cut: not the same as the end of the data."""
        self._consume()
        self._open = False
        self.abort()

    def abort(self) -> None:
        """End the local side as a cut connection ends."""
        if self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            self._transport.abort()
