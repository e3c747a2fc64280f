"""One keeper's connection: a link over the two pipes that a loader handed over."""

import base64
import fcntl
import json
import os
import socket
import time
from typing import TYPE_CHECKING, Callable, List, Optional

from .frames import Buffer
from .link import Event, HalfOpen, Link, LinkState, LinkViolation
from .log import Log
from .loop import Loop, Timer
from .problems import Problem

if TYPE_CHECKING:
    from .requests import Requests


_READ = 1 << 18
_PIPE_SIZE = 1 << 20
_F_SETPIPE_SZ = 1031  # fcntl(2); the module has the name from Python 3.10 on
_LONGEST_GREETING = 1 << 20
_HANDOVER_DEADLINE = 10.0


class Handover(object):
    """A loader at our socket, until it has passed its stdin, its stdout and what it knows."""

    def __init__(
        self, loop: Loop, log: Log, loader: socket.socket, done: "Callable[[Handover], None]"
    ) -> None:
        self.loader = loader
        self.descriptors: List[int] = []
        self.nonce = ""
        self.hello = b""
        self._loop = loop
        self._log = log
        self._done = done
        self._data = b""
        loader.setblocking(False)
        self._deadline = loop.later(_HANDOVER_DEADLINE, self.refuse)
        loop.watch(loader.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            data, ancillary, _, _ = self.loader.recvmsg(65536, socket.CMSG_LEN(16))
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self.descriptors += list(memoryview(content[: len(content) // 4 * 4]).cast("i"))
        self._data += data
        if self._data.endswith(b"\n"):
            self._finish()
        elif not data or len(self._data) > _LONGEST_GREETING:
            self.refuse()

    def _finish(self) -> None:
        try:
            about = json.loads(self._data.decode("ascii"))
            self.nonce = str(about["nonce"])
            self.hello = base64.b64decode(about["hello"])
            if len(self.descriptors) != 2:
                raise ValueError("%d descriptors" % len(self.descriptors))
        except (ValueError, KeyError, TypeError) as error:
            self._log("a loader that makes no sense: %s" % error)
            self.refuse()
            return
        self._deadline.cancel()
        self._loop.forget(self.loader.fileno())
        for descriptor in self.descriptors:
            os.set_inheritable(descriptor, False)
        self._done(self)

    def refuse(self) -> None:
        self._deadline.cancel()
        self._loop.forget(self.loader.fileno())
        self.loader.close()
        for descriptor in self.descriptors:
            os.close(descriptor)


class Visitor(object):
    """Moves bytes between a link and its connection of the moment; the link may outlive many connections."""

    def __init__(
        self,
        loop: Loop,
        log: Log,
        link: Link,
        requests: "Requests",
        on_pumped: Callable[[], None],
        on_gone: "Callable[[Visitor, bool], None]",
    ) -> None:
        self.link = link
        self._loop = loop
        self._log = log
        self.requests = requests
        self._on_pumped = on_pumped
        self._on_gone = on_gone
        self._loader: Optional[socket.socket] = None
        self._input = self._output = -1
        self._unwritten: List[memoryview] = []
        self._buffer = memoryview(bytearray(_READ))
        self._timer: Optional[Timer] = None
        self._due = 0.0
        self._leaving = False

    def __repr__(self) -> str:
        return "<Visitor %s, %r>" % ("connected" if self.is_connected else "away", self.link)

    @property
    def is_connected(self) -> bool:
        return self._loader is not None

    def connect(self, handover: Handover) -> None:
        """A new connection takes the place of the former one, if there is one."""
        self.drop()
        self._loader = handover.loader
        self._input, self._output = handover.descriptors
        self._unwritten = [memoryview(("%s link {}\n" % handover.nonce).encode("ascii"))]
        for descriptor in handover.descriptors:
            os.set_blocking(descriptor, False)
            try:
                fcntl.fcntl(descriptor, _F_SETPIPE_SZ, _PIPE_SIZE)
            except OSError:
                pass  # a socket, or the user's share of pipe memory is used up
        try:
            self._loop.watch(self._input, self._readable)
            self._watch_output()
        except PermissionError:
            # A plain file: whoever runs the boot script by hand, with its input from a file.
            self.drop()
            return
        # The loader dies with its side of the connection, which a pipe that others hold too might not tell.
        self._loop.watch(self._loader.fileno(), self._loader_ended)
        self.link.connect(time.monotonic())
        self._receive(handover.hello)

    def drop(self) -> None:
        """Close the connection; the link stays."""
        loader, self._loader = self._loader, None
        if loader is None:
            return
        for descriptor in {self._input, self._output}:
            self._loop.forget(descriptor)
            os.close(descriptor)
        self._loop.forget(loader.fileno())
        loader.close()
        self._input = self._output = -1
        self._unwritten = []
        self._set_timer(None)
        self.link.disconnect(time.monotonic())

    def leave(self, reason: str) -> None:
        """Say why this connection will not be taken up again, and end it."""
        if self._loader is not None:
            self._leaving = True
            self.link.bye(reason)
            self.pump()
            self.drop()

    def pump(self) -> None:
        """Write what the link has to say, as far as it goes."""
        while self.is_connected:
            if not self._unwritten:
                if not self.link.has_output():
                    break
                self._unwritten = [memoryview(one) for one in self.link.send_buffers(time.monotonic())]
                self._on_pumped()
            if not self._write():
                break
        if self.is_connected:
            self._watch_output()
            self._set_timer(self.link.deadline())

    def _watch_output(self) -> None:
        writable = self.pump if self._unwritten else None
        if self._output == self._input:
            self._loop.watch(self._input, self._readable, writable)
        else:
            self._loop.watch(self._output, None, writable)

    def _write(self) -> bool:
        """Whether all went out."""
        try:
            written = os.writev(self._output, self._unwritten[:512])
        except BlockingIOError:
            return False
        except OSError:
            self._gone()
            return False
        rest = self._unwritten
        place = 0
        while place < len(rest) and written >= len(rest[place]):
            written -= len(rest[place])
            place += 1
        self._unwritten = rest[place:]
        if self._unwritten:
            self._unwritten[0] = self._unwritten[0][written:]
            return len(rest) > 512 and place >= 512
        return True

    def _readable(self) -> None:
        try:
            size = os.readv(self._input, [self._buffer])
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if size:
            self._receive(self._buffer[:size])  # the link copies what it keeps
        else:
            self._gone()

    def _loader_ended(self) -> None:
        if self._loader is not None and not self._loader.recv(4096):
            self._gone()

    def _receive(self, data: Buffer) -> None:
        try:
            events = self.link.receive(data, time.monotonic())
        except LinkViolation as violation:
            self._violated(violation)
            return
        self._handle(events)

    def _handle(self, events: List[Event]) -> None:
        for event in events:
            if isinstance(event, HalfOpen):
                self._log("nothing was heard from the keeper for %.0f s" % event.silent_for)
                self._gone()
                return
            self.requests.handle(event)
        self.pump()

    def _tick(self) -> None:
        self._timer = None
        try:
            events = self.link.tick(time.monotonic())
        except LinkViolation as violation:
            self._violated(violation)
            return
        self._handle(events)

    def _set_timer(self, deadline: Optional[float]) -> None:
        if self._timer is not None:
            if deadline is not None and self._due <= deadline:
                return  # it looks again when it fires: cheaper than a new timer with every message
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._due = deadline
            self._timer = self._loop.later(max(deadline - time.monotonic(), 0.0), self._tick)

    def _violated(self, violation: LinkViolation) -> None:
        self._log("the keeper broke the rules of the link: %s" % violation)
        self.pump()  # a HELLO that tells it of our versions may be waiting
        self.drop()
        self._on_gone(self, True)

    def _gone(self) -> None:
        self.drop()
        if not self._leaving:
            self._on_gone(self, self.link.state is LinkState.FAILED)


def refuse(handover: Handover, problem: Problem) -> None:
    """Tell a loader's keeper that this connection is not taken."""
    line = "%s error %s\n" % (handover.nonce, json.dumps(problem.as_dict()))
    try:
        os.write(handover.descriptors[1], line.encode("ascii"))
    except OSError:
        pass
    handover.refuse()
