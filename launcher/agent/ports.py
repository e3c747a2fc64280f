"""Connections to ports of this machine, each carried by one stream channel of the link (docs/architecture.md §4)."""

import errno
import os
import socket
import struct
from collections import deque
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Optional, Union

from .frames import Buffer
from .link import ChannelError, Link, Priority
from .loop import Loop
from .problems import BadRequest, Problem

#: How much may wait in the link for one connection before its socket is no longer read.
ENOUGH = 256 * 1024
_READ = 64 * 1024
_DEADLINE = 10.0
_PENDING = (errno.EINPROGRESS, errno.EINTR)

Event = Dict[str, Any]
Address = NamedTuple("Address", [("family", int), ("address", Any), ("text", str)])


class CannotConnect(Problem):
    """Nobody listens there, or the system will not let us."""

    kind = "connect"

    def __init__(self, where: str, why: str) -> None:
        super().__init__(
            "%s cannot be reached there: %s" % (where, why), "Is the program that listens on it running?"
        )


def addresses(host: Optional[str], port: Any, path: Optional[str]) -> List[Address]:
    """What a request means, in the order to be tried.  Names are not looked up: that could hold up everybody."""
    if path is not None:
        return [Address(socket.AF_UNIX, os.path.expanduser(path), path)]
    if not isinstance(port, int) or not 0 < port < 65536:
        raise BadRequest("%r is not a port" % (port,))
    if host in (None, "", "localhost"):
        # A server that was told "localhost" may listen on one of the two only.
        return addresses("127.0.0.1", port, None) + addresses("::1", port, None)
    try:
        socket.inet_pton(socket.AF_INET, str(host))
        return [Address(socket.AF_INET, (host, port), "%s:%d" % (host, port))]
    except OSError:
        pass
    try:
        socket.inet_pton(socket.AF_INET6, str(host))
    except OSError:
        raise BadRequest("%r is no IP address" % (str(host)[:80],)) from None
    return [Address(socket.AF_INET6, (host, port), "[%s]:%d" % (host, port))]


class Port(object):
    """One connection.  ``done`` is called once: with the address that was reached, or with what is wrong."""

    def __init__(
        self,
        ports: "Ports",
        link: Link,
        channel: int,
        wanted: List[Address],
        done: Callable[[Union[str, Problem]], None],
    ) -> None:
        self.channel = channel
        self._ports = ports
        self._link = link
        self._loop = ports.loop
        self._wanted = wanted
        self._done = done
        self._socket: Optional[socket.socket] = None
        self._connected = False
        self._reading = False
        self._far_ended = False  # the keeper sends no more
        self._near_ended = False  # our half of the channel is closed
        self._unwritten: Deque[memoryview] = deque()
        self._timer = self._loop.later(_DEADLINE, self._too_late)
        self._failures: List[str] = []

    def __repr__(self) -> str:
        state = "connected" if self._connected else "connecting"
        return "<Port channel %d, %s, %d pieces unwritten>" % (self.channel, state, len(self._unwritten))

    # -- connecting ---------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Try the next address."""
        while self._wanted:
            address = self._wanted[0]
            try:
                self._socket = socket.socket(address.family, socket.SOCK_STREAM)
                self._socket.setblocking(False)
                status = self._socket.connect_ex(address.address)
            except OSError as error:
                status = error.errno or errno.EIO
            if status == 0:
                self._established()
                return
            if status in _PENDING and self._socket is not None:
                self._loop.watch(self._socket.fileno(), None, self._settled)
                return
            self._refused(status)
        self._give_up()

    def _settled(self) -> None:
        assert self._socket is not None
        self._loop.forget(self._socket.fileno())
        status = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if status:
            self._refused(status)
            self.connect()
        else:
            self._established()

    def _refused(self, status: int) -> None:
        address = self._wanted.pop(0)
        self._failures.append("%s: %s" % (address.text, os.strerror(status)))
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _too_late(self) -> None:
        self._failures += [
            "%s: no answer within %d s" % (address.text, _DEADLINE) for address in self._wanted[:1]
        ]
        self._give_up()

    def _give_up(self) -> None:
        first, _, why = self._failures[0].rpartition(": ")
        self._done(CannotConnect(first, why))
        self.abort(False)

    def _established(self) -> None:
        assert self._socket is not None
        self._timer.cancel()
        self._connected = True
        if self._socket.family != socket.AF_UNIX:
            # What comes over the link was gathered already; waiting for more only costs time.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._done(self._wanted[0].text)
        self._reading = True
        self._write()

    # -- from the socket to the link ----------------------------------------------------------------------------

    def _readable(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            self._read_failed()
            return
        if data:
            self._link.send(self.channel, [data])
            self._reading = self._link.backlog(self.channel) < ENOUGH
        else:
            self._reading = False
            self._end_near()
        self._watch()
        self._ports.pump()

    def _read_failed(self) -> None:
        self.abort(True)

    def _write_failed(self) -> None:
        self.abort(True)

    def feed(self) -> None:
        """The link has given out some of what it had."""
        if self._connected and not self._near_ended and not self._reading:
            self._reading = self._link.backlog(self.channel) < ENOUGH
            if self._reading:
                self._watch()

    def _end_near(self) -> None:
        if not self._near_ended:
            self._near_ended = True
            self._link.close(self.channel)
        self._look_whether_over()

    # -- from the link to the socket ----------------------------------------------------------------------------

    def received(self, data: Buffer) -> None:
        self._unwritten.append(memoryview(data))
        if self._connected and len(self._unwritten) == 1:
            self._write()

    def far_ended(self) -> None:
        self._far_ended = True
        if self._connected and not self._unwritten:
            self._write()

    def _write(self) -> None:
        assert self._socket is not None
        written = 0
        try:
            while self._unwritten:
                sent = self._socket.send(self._unwritten[0])
                written += sent
                self._unwritten[0] = self._unwritten[0][sent:]
                if not self._unwritten[0]:
                    self._unwritten.popleft()
            if self._far_ended:
                self._socket.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:
            self._consumed(written)
            self._write_failed()
            return
        self._consumed(written)
        self._watch()
        self._look_whether_over()

    def _consumed(self, size: int) -> None:
        if size:
            self._link.consumed(self.channel, size)
            self._ports.pump()

    # -- the end ------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        if self._socket is not None:
            reading = self._readable if self._reading else None
            self._loop.watch(self._socket.fileno(), reading, self._write if self._unwritten else None)

    def _look_whether_over(self) -> None:
        if self._near_ended and self._far_ended and not self._unwritten:
            self._close_socket()
            self._ports.forget(self)

    def abort(self, tell: bool) -> None:
        """End it as a cut connection ends, and say so to the keeper: that is not the end of the data."""
        self._timer.cancel()
        if self._socket is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close_socket()
        self._ports.forget(self)
        if tell:
            self._ports.tell({"event": "reset", "channel": self.channel})
        left = sum(len(piece) for piece in self._unwritten)
        self._unwritten.clear()
        if not self._near_ended:
            self._near_ended = True
            self._link.close(self.channel)
        self._consumed(left)
        self._ports.pump()

    def abandon(self) -> None:
        """The link is gone, and the channel with it."""
        self._timer.cancel()
        if self._socket is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close_socket()

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None


class Ports(object):
    """All connections of the present link, by channel."""

    def __init__(self, loop: Loop, tell: Callable[[Event], None], pump: Callable[[], None]) -> None:
        self.loop = loop
        self.tell = tell
        self.pump = pump
        self._ports: Dict[int, Port] = {}

    def connect(self, link: Link, request: Event, done: Callable[[Union[str, Problem]], None]) -> None:
        """Opens the channel first: from then on every failure closes it again, except `BadRequest` (never opened)."""
        channel = int(request["channel"])
        wanted = addresses(request.get("host"), request.get("port"), request.get("path"))
        try:
            link.open(channel, Priority.PORT, True)
        except ChannelError as error:
            raise BadRequest(str(error)) from None
        port = self._ports[channel] = Port(self, link, channel, wanted, done)
        port.connect()

    def add(self, port: Port) -> None:
        """One that is connected already; its channel is open."""
        self._ports[port.channel] = port

    def reset(self, channel: int) -> None:
        """The keeper's side of it was cut."""
        port = self._ports.get(channel)
        if port is not None:
            port.abort(False)

    def received(self, link: Link, channel: int, data: Buffer) -> None:
        port = self._ports.get(channel)
        if port is None:
            link.consumed(channel, len(data))  # it was aborted, and the keeper did not know yet
        else:
            port.received(data)

    def closed(self, channel: int) -> None:
        port = self._ports.get(channel)
        if port is not None:
            port.far_ended()

    def feed(self) -> None:
        for port in list(self._ports.values()):
            port.feed()

    def forget(self, port: Port) -> None:
        if self._ports.get(port.channel) is port:
            del self._ports[port.channel]

    def abandon(self) -> None:
        ports, self._ports = self._ports, {}
        for port in ports.values():
            port.abandon()
