"""One of a kernel's four sockets: the connection to it, the tape of what it says, the outbox of what it is told."""

import enum
import os
import socket
from typing import List, Optional

from . import outbox
from .log import Log
from .loop import Loop, Timer
from .outbox import Outbox
from .tape import Tape
from .words import TAKEN
from .zmtp import Handshake, ZmtpError, answer_to, encode_subscription

SHELL, IOPUB, STDIN, CONTROL = "shell", "iopub", "stdin", "control"
#: The names, in the order of the ports that we write into connection files: `ipc` paths end in -1 … -4, 5 is heartbeat.
NAMES = (SHELL, IOPUB, STDIN, CONTROL)
JOURNAL = {IOPUB: 256 << 20}
JOURNAL_OTHERS = 64 << 20

_FIRST_RETRY = 0.01
_RETRY = 0.05
_LATE_RETRY = 0.5
_QUICK_TRIES = 100  # one second


class SocketState(enum.Enum):
    CLOSED = "closed"
    CONNECTING = "connecting"
    GREETING = "greeting"
    CONNECTED = "connected"


MOVES = {
    SocketState.CLOSED: {SocketState.CONNECTING, SocketState.CONNECTED},
    SocketState.CONNECTING: {SocketState.GREETING, SocketState.CLOSED},
    SocketState.GREETING: {SocketState.CONNECTED, SocketState.CONNECTING, SocketState.CLOSED},
    SocketState.CONNECTED: {SocketState.CLOSED},
}


class Owner(object):
    """Whom a `KernelSocket` tells; implemented by the kernel."""

    def socket_connected(self, name: str, descriptor: int) -> None:
        """The handshake is done.  The guard must hold the descriptor before a byte more is read or written."""
        raise NotImplementedError

    def socket_received(self, name: str) -> None:
        """The tape has grown."""
        raise NotImplementedError

    def socket_lost(self, name: str, why: str) -> None:
        """The connection has ended, or makes no sense any more; it is closed."""
        raise NotImplementedError


class KernelSocket(object):
    """What stays of a socket over all lives of its kernel is the tape and the words; connections come and go."""

    def __init__(
        self, owner: Owner, loop: Loop, log: Log, directory: str, name: str, journal: Optional[int]
    ) -> None:
        self.name = name
        self.state = SocketState.CLOSED
        bound = journal if journal is not None and name == IOPUB else JOURNAL.get(name, JOURNAL_OTHERS)
        if name == IOPUB:
            self.tape = Tape(directory, name, bound, 256 << 10, 4 << 20)
        else:
            self.tape = Tape(directory, name, bound, 64 << 10, 1 << 20)
        self.outbox: Optional[Outbox] = None
        self._owner = owner
        self._loop = loop
        self._log = log
        self._file = os.path.join(directory, name + ".out")
        self._socket: Optional[socket.socket] = None
        self._handshake: Optional[Handshake] = None
        self._to_write = b""
        self._retry: Optional[Timer] = None
        self._tries = 0
        self._path = ""
        self._identity = b""
        self._said = ""

    def __repr__(self) -> str:
        return "<KernelSocket %s %s, %r, %r>" % (self.name, self.state.value, self.tape, self.outbox)

    def _move(self, state: SocketState) -> None:
        if state not in MOVES[self.state]:
            raise AssertionError("%r cannot become %s" % (self, state.value))
        self.state = state

    # -- what is told to the kernel -----------------------------------------------------------------------------

    def new_outbox(self) -> int:
        """For a new life, or when it is not known how far the former connection came; what was unsent is void."""
        descriptor = outbox.create(self._file, self.tape.words)
        self.adopt_outbox(descriptor)
        return descriptor

    def adopt_outbox(self, descriptor: int) -> None:
        if self.outbox is not None:
            os.close(self.outbox.descriptor)
        self.outbox = Outbox(self.tape.words, descriptor)

    @property
    def taken(self) -> int:
        return self.tape.words[TAKEN]

    @property
    def outbox_is_clean(self) -> bool:
        """Another connection can go on with it: it begins with a whole message."""
        return self.outbox is not None and self.outbox.is_clean

    @property
    def is_torn(self) -> bool:
        """A predecessor took a part of the stream into its grave: the connection cannot be used."""
        return self.tape.broken or self.outbox is None or self.outbox.broken

    @property
    def waiting(self) -> int:
        return self.outbox.waiting if self.outbox is not None else 0

    def tell(self, buffers: List[outbox.Buffer], number: Optional[int]) -> None:
        """One encoded message; it waits where the kernel is not yet there.  A number seen before is passed over."""
        if self.outbox is not None and self.outbox.add(buffers, number):
            self._flush()

    def _flush(self) -> None:
        if self.state is not SocketState.CONNECTED or self._socket is None or self.outbox is None:
            return
        try:
            done = self.outbox.send(self._socket)
        except OSError as error:
            self._lost(str(error))
            return
        self._loop.watch(self._socket.fileno(), self._readable, None if done else self._flush)

    # -- connecting ---------------------------------------------------------------------------------------------

    def connect(self, path: str, identity: bytes) -> None:
        """Connect as soon as the kernel listens there, however long that takes; `close` ends it."""
        self._move(SocketState.CONNECTING)
        self._path, self._identity, self._tries = path, identity, 0
        self._try()

    def adopt(self, connection: socket.socket) -> None:
        """Go on with a connection that a predecessor made."""
        self._move(SocketState.CONNECTED)
        self._socket = connection
        self._answer_commands()
        self._loop.watch(connection.fileno(), self._readable)
        self._flush()

    def _try(self) -> None:
        self._retry = None
        self._tries += 1
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            connection.connect(self._path)
        except OSError:
            # Not there yet, or its backlog is full.
            connection.close()
            self._try_later()
            return
        self._move(SocketState.GREETING)
        self._socket = connection
        self._handshake = Handshake("SUB" if self.name == IOPUB else "DEALER", self._identity)
        self._to_write = self._handshake.start()
        self._loop.watch(connection.fileno(), self._greet, self._greet)

    def _try_later(self) -> None:
        delay = _FIRST_RETRY if self._tries < _QUICK_TRIES else _RETRY
        if self._tries > 10 * _QUICK_TRIES:
            delay = _LATE_RETRY  # a kernel without this socket (stdin, perhaps) must not keep us busy
        self._retry = self._loop.later(delay, self._try)

    def _greet(self) -> None:
        connection, handshake = self._socket, self._handshake
        if connection is None or handshake is None:
            return
        try:
            self._to_write = self._to_write[connection.send(self._to_write) :] if self._to_write else b""
            # Never more than the handshake: what follows belongs to the tape.
            data = connection.recv(handshake.wanted)
            if not data:
                raise OSError("the kernel closed the connection")
            self._to_write += handshake.receive(data)
        except BlockingIOError:
            pass
        except (OSError, ZmtpError) as error:
            if str(error) != self._said:
                self._said = str(error)
                self._log("%s of a kernel: %s; trying again" % (self.name, error))
            self._drop()
            self._move(SocketState.CONNECTING)
            self._tries = max(self._tries, _QUICK_TRIES)
            self._try_later()
            return
        if handshake.done and not self._to_write:
            self._greeted(connection, handshake)
        else:
            self._loop.watch(connection.fileno(), self._greet, self._greet if self._to_write else None)

    def _greeted(self, connection: socket.socket, handshake: Handshake) -> None:
        self._handshake = None
        self.tape.new_stream()
        if self.name == IOPUB and self.outbox is not None:
            # Before the guard has it: whoever then takes over finds the subscription in the outbox.
            self.outbox.add([encode_subscription(b"", minor=handshake.peer.minor)])
        self._move(SocketState.CONNECTED)
        self._loop.watch(connection.fileno(), self._readable)
        self._owner.socket_connected(self.name, connection.fileno())
        self._flush()

    # -- what the kernel says -----------------------------------------------------------------------------------

    def _readable(self) -> None:
        if self._receive():
            self._owner.socket_received(self.name)

    def _receive(self) -> int:
        if self._socket is None:
            return 0
        try:
            size = self.tape.receive(self._socket)
        except BlockingIOError:
            return 0
        except EOFError:
            self._lost("the kernel closed it")
            return 0
        except (OSError, ZmtpError) as error:
            self._lost(str(error))
            return 0
        self._answer_commands()
        return size

    def _answer_commands(self) -> None:
        commands, self.tape.commands = self.tape.commands, []
        for command in commands:
            try:
                answer = answer_to(command)
            except ZmtpError as error:
                self._lost(str(error))
                return
            if answer is not None:
                self.tell([answer], None)

    def drain(self) -> None:
        """The kernel is gone: take what it left in the socket, and close it.

        Not "until the end": a process that the kernel forked may hold the other end open for ever.
        """
        while self.state is SocketState.CONNECTED and self._receive():
            pass
        self.close()

    def close(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._drop()
        if self.state is not SocketState.CLOSED:
            self._move(SocketState.CLOSED)

    def close_outbox(self) -> None:
        if self.outbox is not None:
            os.close(self.outbox.descriptor)
            self.outbox = None

    def _drop(self) -> None:
        self._handshake = None
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _lost(self, why: str) -> None:
        self.close()
        self._owner.socket_lost(self.name, why)


#: Kept short: with it, a socket's path is at most 107 bytes (places.LONGEST_SOCKET).
def path_of(directory: str, life: int, name: str) -> str:
    """Where a kernel of that life listens, as Jupyter makes it from `ip` and the port (ipc://{ip}-{port})."""
    return "%s-%d" % (ip_of(directory, life), NAMES.index(name) + 1)


def ip_of(directory: str, life: int) -> str:
    return os.path.join(directory, "%d" % life)
