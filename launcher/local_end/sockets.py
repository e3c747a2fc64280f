"""The local end's sockets, made by our own ZMTP servers (see `connections` for why not pyzmq)."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..agent.zmtp import Buffer, Command, Event, encode_message
from .connections import Connection, Limits, Listener, State
from .contract import CHANNELS, Channel, ConnectionInfo, LocalSockets
from .endpoints import BoundSocket, bind
from .positions import PositionFile
from .publisher import Publisher, PublishLimits

log = logging.getLogger(__name__)


class Router:
    """ROUTER (contract.RouterSocket)."""

    socket_type = "ROUTER"

    def __init__(
        self, loop: asyncio.AbstractEventLoop, bound: BoundSocket, name: str, limits: Limits | None = None
    ) -> None:
        self.name = name
        self.limits = limits or Limits()
        self.on_message: Callable[[bytes, list[bytes]], None] = _ignore_message
        self._peers: dict[bytes, Connection] = {}
        self._identities: dict[Connection, bytes] = {}
        self._listener = Listener(loop, bound, lambda sock: Connection(loop, sock, self), self.limits)

    def __repr__(self) -> str:
        return f"<Router {self.name} {len(self._peers)} peers>"

    def send(self, identity: bytes, frames: Sequence[Buffer]) -> bool:
        connection = self._peers.get(identity)
        if connection is None:
            return False
        buffers = encode_message(frames)
        size = sum(memoryview(buffer).nbytes for buffer in buffers)
        # One message may be of any size; it is what comes on top of others that is bounded.
        if connection.waiting and connection.waiting + size > self.limits.waiting:
            connection.drop(f"it does not read: over {self.limits.waiting} bytes are waiting for it")
            return False
        connection.write(buffers)
        return True

    def opened(self, connection: Connection) -> None:
        # An identity of zero bytes means "give me one"; those that begin with zero are ours to give (spec
        # 28).
        identity = connection.peer.identity
        if not identity or identity.startswith(b"\0"):
            identity = b"\0" + os.urandom(4)
            while identity in self._peers:
                identity = b"\0" + os.urandom(4)
        former = self._peers.get(identity)
        if former is not None:
            former.drop("another connection has its identity now")
        self._peers[identity] = connection
        self._identities[connection] = identity

    def received(self, connection: Connection, event: Event) -> None:
        if not isinstance(event, Command):
            self.on_message(self._identities[connection], event)

    def closed(self, connection: Connection) -> None:
        identity = self._identities.pop(connection)
        if self._peers.get(identity) is connection:
            del self._peers[identity]

    def close(self) -> None:
        self._listener.close()


class Heartbeat:
    """Sends back what it gets: to a REQ with its empty frame in front, to a DEALER just as it came."""

    socket_type = "REP"

    def __init__(
        self, loop: asyncio.AbstractEventLoop, bound: BoundSocket, limits: Limits | None = None
    ) -> None:
        self.limits = replace(limits or Limits(), message=65536, waiting=1 << 20)
        self._listener = Listener(loop, bound, lambda sock: Connection(loop, sock, self), self.limits)

    def opened(self, connection: Connection) -> None:
        return

    def received(self, connection: Connection, event: Event) -> None:
        if isinstance(event, Command) or connection.state is not State.OPEN:
            return
        if connection.waiting > self.limits.waiting:
            connection.drop("it does not read its heartbeats")
        else:
            connection.write(encode_message(event))

    def closed(self, connection: Connection) -> None:
        return

    def close(self) -> None:
        self._listener.close()


def _ignore_message(identity: bytes, frames: list[bytes]) -> None:
    return


async def open_sockets(
    connection: ConnectionInfo,
    positions: Path | PositionFile | None = None,
    limits: PublishLimits | None = None,
) -> LocalSockets:
    """Binds the five endpoints, or raises BindError with none of them bound.

    `positions` is where the publisher keeps what it has written; it is closed with the sockets, and
    stays.  With Curve keys in `connection` the sockets are pyzmq's.
    """
    loop = asyncio.get_running_loop()
    if connection.curve_publickey is not None:
        from .curve import open_curve_sockets  # pyzmq is loaded by nobody who does not need it

        return await open_curve_sockets(connection, positions, limits)
    if connection.transport == "tcp" and connection.ip not in ("127.0.0.1", "::1", "localhost"):
        log.warning("%r can be reached from other machines, without encryption", connection)
    bound = _bind_all(connection)
    limits = limits or PublishLimits()
    try:
        if isinstance(positions, Path):
            positions = PositionFile(positions)
    except OSError as error:
        log.warning("no positions are kept in %s: %s", positions, error.strerror)
        positions = None
    assert not isinstance(positions, Path)
    if connection.transport == "tcp":
        connection = connection.with_ports({channel: bound[channel].port for channel in CHANNELS})
    return LocalSockets(
        connection,
        shell=Router(loop, bound["shell"], "shell", limits),
        control=Router(loop, bound["control"], "control", limits),
        stdin=Router(loop, bound["stdin"], "stdin", limits),
        iopub=Publisher(loop, bound["iopub"], positions, limits),
        heartbeat=Heartbeat(loop, bound["hb"], limits),
    )


def _bind_all(connection: ConnectionInfo) -> dict[Channel, BoundSocket]:
    bound: dict[Channel, BoundSocket] = {}
    try:
        for channel in CHANNELS:
            bound[channel] = bind(connection, channel)
    except BaseException:
        for one in bound.values():
            one.close()
        raise
    return bound
