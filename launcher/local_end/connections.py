"""Connections of front ends to our own ZMTP servers: accepting, handshake, reading, plain writing.

Our own servers and not pyzmq, for three reasons: a publisher of libzmq never says what was really written to
a subscriber's socket, so nothing could go on at the right message after a kill; it drops silently at its
high-water mark where we must hold back the kernel's output instead; and 200 kernels with five sockets each
meet libzmq's limit of sockets per context.

Sockets are used directly (`add_reader`, `add_writer`) and not through asyncio's transports, which buffer what
they are given and do not say how much of it the operating system has taken.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..agent.zmtp import (
    MAX_MESSAGE,
    Buffer,
    Command,
    Event,
    Handshake,
    MessageParser,
    Peer,
    ZmtpError,
    answer_to,
)
from .endpoints import BoundSocket, peer_process

log = logging.getLogger(__name__)

# One for all connections, read in the event loop only.  Memory of that size for each read may come fresh from the
# system every time (mallopt(3), M_MMAP_THRESHOLD), at a third of all that a request costs here.
_INCOMING = memoryview(bytearray(1 << 18))
_MAX_VECTORS = 64


@dataclass(frozen=True)
class Limits:
    """What a peer may cost."""

    handshake: float = 10.0
    connections: int = 256
    message: int = MAX_MESSAGE
    waiting: int = 64 << 20
    """bytes that wait for one peer before it is dropped (ROUTER, heartbeat)"""


class State(enum.Enum):
    HANDSHAKE = "handshake"
    OPEN = "open"
    CLOSED = "closed"


_MOVES = {
    State.HANDSHAKE: {State.OPEN, State.CLOSED},
    State.OPEN: {State.CLOSED},
    State.CLOSED: set[State](),
}


class Owner(Protocol):
    """The server that a connection belongs to."""

    socket_type: str

    @property
    def limits(self) -> Limits: ...

    def opened(self, connection: Connection) -> None: ...

    def received(self, connection: Connection, event: Event) -> None:
        """A message, or a command that is not answered by itself.  May raise ZmtpError."""

    def closed(self, connection: Connection) -> None:
        """It had been opened, and is gone."""


class Connection:
    """One peer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, owner: Owner) -> None:
        self.loop = loop
        self.sock = sock
        self.owner = owner
        self.state = State.HANDSHAKE
        self.pid, self.uid = peer_process(sock)
        self.waiting = 0
        self._handshake = Handshake(owner.socket_type)
        self._parser = MessageParser(max_message=owner.limits.message)
        self._queue: deque[memoryview] = deque()
        self._blocked = False
        self._broken = False
        self._on_release: Callable[[Connection], None] = _nothing
        self._deadline = loop.call_later(owner.limits.handshake, self.drop, "no handshake in time")
        loop.add_reader(sock, self._readable)
        self.write([self._handshake.start()])

    def __repr__(self) -> str:
        name = f"{type(self).__name__} {self.owner.socket_type}"
        return f"<{name} {self.state.value} pid={self.pid} {self.waiting} waiting>"

    @property
    def peer(self) -> Peer:
        return self._handshake.peer

    @property
    def blocked(self) -> bool:
        """Nothing can be written at present."""
        return self._blocked or self._broken

    def on_release(self, call: Callable[[Connection], None]) -> None:
        self._on_release = call

    # -- reading

    def _readable(self) -> None:
        try:
            size = self.sock.recv_into(_INCOMING)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.drop(error.strerror or str(error), expected=True)
            return
        if not size:
            self.drop("disconnected", expected=True)
            return
        try:
            self._take(bytes(_INCOMING[:size]))
        except ZmtpError as error:
            self.drop(str(error))

    def _take(self, data: bytes) -> None:
        if self.state is State.HANDSHAKE:
            output = self._handshake.receive(data)
            if output:
                self.write([output])
            if not self._handshake.done or self.state is not State.HANDSHAKE:
                return
            self._deadline.cancel()
            self._move(State.OPEN)
            self.owner.opened(self)
            data = self._handshake.surplus
        for event in self._parser.feed(data):
            if self.state is not State.OPEN:
                return
            self._dispatch(event)

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, Command):
            answer = answer_to(event)
            if answer is not None:
                self.write([answer])
                return
        try:
            self.owner.received(self, event)
        except ZmtpError:
            raise
        except Exception as error:  # noqa: BLE001
            # A fault in whoever uses us must not take the messages that come after it.
            self.loop.call_exception_handler({"message": f"in a handler of {self!r}", "exception": error})

    # -- writing

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Queues and writes as much as the socket takes."""
        if self.state is State.CLOSED or self._broken:
            return
        for buffer in buffers:
            view = memoryview(buffer)
            self.waiting += view.nbytes
            self._queue.append(view)
        if not self._blocked:
            self.flush()

    def flush(self) -> None:
        queue = self._queue
        while queue:
            try:
                sent = self.sock.sendmsg([queue[i] for i in range(min(len(queue), _MAX_VECTORS))])
            except (BlockingIOError, InterruptedError):
                self._wait_writable()
                return
            except OSError as error:
                self.fail_later(error)
                return
            self.waiting -= sent
            while queue and sent >= queue[0].nbytes:
                sent -= queue.popleft().nbytes
            if sent:
                queue[0] = queue[0][sent:]

    def _wait_writable(self) -> None:
        if not self._blocked:
            self._blocked = True
            self.loop.add_writer(self.sock, self._writable)

    def _writable(self) -> None:
        self._blocked = False
        self.loop.remove_writer(self.sock)
        self.flush()

    def fail_later(self, error: OSError) -> None:
        """A write failed: tell the owner from the loop, and not in the middle of what it is doing."""
        self._broken = True
        self._queue.clear()
        self.waiting = 0
        self.loop.call_soon(self.drop, error.strerror or str(error), True)

    # -- the end

    def drop(self, reason: str, expected: bool = False) -> None:
        """Cuts the connection."""
        if self.state is State.CLOSED:
            return
        log.log(logging.DEBUG if expected else logging.WARNING, "%r dropped: %s", self, reason)
        if not expected:
            try:
                self.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is gone already
        self.close()

    def close(self) -> None:
        if self.state is State.CLOSED:
            return
        was_open = self.state is State.OPEN
        self._move(State.CLOSED)
        self._deadline.cancel()
        self.loop.remove_reader(self.sock)
        if self._blocked:
            self.loop.remove_writer(self.sock)
        self.sock.close()
        self._queue.clear()
        self.waiting = 0
        self._on_release(self)
        if was_open:
            self.owner.closed(self)

    def _move(self, state: State) -> None:
        if state not in _MOVES[self.state]:
            raise RuntimeError(f"{self!r} cannot become {state.value}")
        log.debug("%r becomes %s", self, state.value)
        self.state = state


def _nothing(connection: Connection) -> None:
    return


class Listener:
    """Accepts connections on one endpoint: so many and no more, from this user only (if that can be known)."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        bound: BoundSocket,
        connect: Callable[[socket.socket], Connection],
        limits: Limits,
    ) -> None:
        self._loop = loop
        self._bound = bound
        self._connect = connect
        self._limits = limits
        self._connections: set[Connection] = set()
        self._pause: asyncio.TimerHandle | None = None
        loop.add_reader(bound.sock, self._acceptable)

    def _acceptable(self) -> None:
        for _ in range(32):
            try:
                sock, _address = self._bound.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._accept_failed(error)
                return
            self._accepted(sock)

    def _accepted(self, sock: socket.socket) -> None:
        _pid, uid = peer_process(sock)
        if len(self._connections) >= self._limits.connections:
            log.warning("over %d connections: one more refused", self._limits.connections)
            sock.close()
        elif uid not in (None, 0, os.getuid()):
            # The directory is private; should that ever fail, the kernel still knows who is calling.
            log.warning("a connection of user %s refused", uid)
            sock.close()
        else:
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = self._connect(sock)
            self._connections.add(connection)
            connection.on_release(self._connections.discard)

    def _accept_failed(self, error: OSError) -> None:
        if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            raise error
        # The listening socket stays readable: without a pause this would spin.
        log.error("cannot accept a connection (%s); trying again in a second", error.strerror)
        self._loop.remove_reader(self._bound.sock)
        self._pause = self._loop.call_later(1.0, self._loop.add_reader, self._bound.sock, self._acceptable)

    def close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        if self._bound.sock.fileno() >= 0:
            self._loop.remove_reader(self._bound.sock)
        self._bound.close()
        for connection in list(self._connections):
            connection.close()
