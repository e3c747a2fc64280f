"""Serial devices of this machine, with boards behind them, each carried by one channel of the link (architecture §4).

The keeper's messages begin with a letter: ``w``, then bytes to write, in pieces with pauses; ``p``, then code to be
pasted in MicroPython's raw-paste mode, whose window runs here: each turn of it would cost a round trip of the link.
"""

import fcntl
import os
import re
import struct
import termios
from collections import deque
from typing import Any, Callable, Deque, Dict, Optional

from . import holds
from .frames import Buffer
from .link import ChannelError, Link, Priority
from .loop import Loop, Timer
from .ports import ENOUGH
from .problems import BadRequest, Problem
from .serial_devices import LineProblem, busy, locate, problem

_PIECE = 256  # the input ring of a board
_READ = 64 * 1024
_ASK = b"\x05A\x01"
_ANSWER = re.compile(b"R\x01(..)|R\x00|raw REPL", re.DOTALL)

Event = Dict[str, Any]


def hold(path: str, purpose: str) -> holds.Hold:
    """For us alone, as every program knows it that looks at lock files."""
    try:
        return holds.Hold.take(path, holds.plain(purpose))
    except holds.Held as error:
        raise busy(path, error.holder) from None


def open_line(path: str, baud: int) -> int:
    """Raw, ours alone, not blocking."""
    speed = getattr(termios, "B%d" % baud, None)
    if speed is None:
        raise LineProblem("board-unreachable", "%d is no speed that this machine knows" % baud, "Try 115200")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise problem(path, error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        attributes = termios.tcgetattr(descriptor)
        attributes[:4] = [0, 0, termios.CS8 | termios.CREAD | termios.CLOCAL, 0]
        attributes[4] = attributes[5] = speed
        attributes[6][termios.VMIN], attributes[6][termios.VTIME] = 1, 0
        termios.tcsetattr(descriptor, termios.TCSANOW, attributes)
        termios.tcflush(descriptor, termios.TCIFLUSH)
        fcntl.ioctl(descriptor, termios.TIOCEXCL)
    except OSError as error:
        os.close(descriptor)
        raise problem(path, error) from None
    except termios.error:
        os.close(descriptor)
        raise LineProblem(
            "board-unreachable", "%s is no serial device" % path, "Look at the target's address"
        ) from None
    return descriptor


class Line(object):
    """One device that is open."""

    def __init__(
        self,
        lines: "SerialLines",
        link: Link,
        channel: int,
        descriptor: int,
        pause: float,
        held: holds.Hold,
    ) -> None:
        self.channel = channel
        self._held = held
        self._lines = lines
        self._link = link
        self._loop = lines.loop
        self._descriptor = descriptor
        self._pause = pause
        self._waiting: Deque[bytes] = deque()  # messages whose turn has not come
        self._unwritten = b""
        self._rest = b""  # of what is written in pieces
        self._timer: Optional[Timer] = None
        self._code: Optional[bytes] = None  # being pasted
        self._window = self._free = 0
        self._heard = b""
        self._reading = True
        self._watch()

    def __repr__(self) -> str:
        return "<Line channel %d, %d messages waiting>" % (self.channel, len(self._waiting))

    # -- to the board -------------------------------------------------------------------------------------------

    def received(self, data: Buffer) -> None:
        """A message of the keeper.  What is to be written ends the pastes before it: it is an interrupt."""
        message = bytes(data)
        if message[:1] == b"w":
            self._code = None
            self._waiting = deque(one for one in self._waiting if one[:1] == b"w")
        self._waiting.append(message)
        self._go_on()

    def _go_on(self) -> None:
        """Begin what comes next, as far as nothing is under way."""
        while not (self._unwritten or self._rest or self._timer or self._code is not None) and self._waiting:
            message = self._waiting.popleft()
            if message[:1] == b"p":
                self._code, self._window, self._free, self._heard = message[1:], 0, 0, b""
                self._unwritten = _ASK
            else:
                self._rest = message[1:]
                self._next_piece()
            self._write()

    def _next_piece(self) -> None:
        self._timer = None
        self._unwritten += self._rest[:_PIECE]
        self._rest = self._rest[_PIECE:]

    def _after_pause(self) -> None:
        self._next_piece()
        self._write()
        self._go_on()

    def _write(self) -> None:
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._descriptor, self._unwritten) :]
        except BlockingIOError:
            pass
        except OSError:
            self.end()
            return
        if not self._unwritten and self._rest and self._timer is None:
            self._timer = self._loop.later(self._pause, self._after_pause)
        self._watch()

    def _writable(self) -> None:
        self._write()
        self._go_on()

    # -- the window of raw-paste mode ---------------------------------------------------------------------------

    def _paste(self, data: bytes) -> None:
        """What the board says while code is pasted (mp_reader_stdin_readbyte in MicroPython's pyexec.c)."""
        if not self._window:
            self._heard += data
            answer = _ANSWER.search(self._heard)
            if answer is None:
                return
            if answer.group(1) is None:  # it has no such mode: the keeper sees that too
                self._code = None
                return
            self._window = self._free = struct.unpack("<H", answer.group(1))[0]
            data = self._heard[answer.end() :]
        wants_no_more = b"\x04" in data
        self._free += self._window * data.partition(b"\x04")[0].count(b"\x01")
        code = self._code or b""
        if not wants_no_more:
            self._unwritten += code[: self._free]
            code, self._free = code[self._free :], self._free - min(self._free, len(code))
        if wants_no_more or not code:
            self._unwritten += b"\x04"
            self._code = None
        else:
            self._code = code
        self._write()

    # -- from the board -----------------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, _READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.end()
            return
        self._link.send(self.channel, [data])
        self._reading = self._link.backlog(self.channel) < ENOUGH
        if self._code is not None:
            self._paste(data)
            self._go_on()
        if self._descriptor >= 0:
            self._watch()
        self._lines.pump()

    def feed(self) -> None:
        """The link has given out some of what it had."""
        if not self._reading and self._link.backlog(self.channel) < ENOUGH:
            self._reading = True
            self._watch()

    def _watch(self) -> None:
        if self._descriptor >= 0:
            readable = self._readable if self._reading else None
            self._loop.watch(self._descriptor, readable, self._writable if self._unwritten else None)

    def signals(self, dtr: Any, rts: Any) -> None:
        for wanted, bit in ((dtr, termios.TIOCM_DTR), (rts, termios.TIOCM_RTS)):
            if wanted is not None:
                request = termios.TIOCMBIS if wanted else termios.TIOCMBIC
                fcntl.ioctl(self._descriptor, request, struct.pack("I", bit))

    # -- the end ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._descriptor >= 0:
            self._loop.forget(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        self._held.release()
        self._waiting.clear()
        self._unwritten = self._rest = b""
        self._code = None

    def end(self) -> None:
        """It was unplugged."""
        if self._descriptor >= 0:
            self.close()
            self._lines.forget(self)
            self._link.close(self.channel)
            self._lines.pump()


class SerialLines(object):
    """All of the present link, by channel."""

    def __init__(self, loop: Loop, pump: Callable[[], None]) -> None:
        self.loop = loop
        self.pump = pump
        self._lines: Dict[int, Line] = {}

    def open(self, link: Link, request: Event) -> Event:
        """Any error: the channel was not opened."""
        path = locate(str(request["path"]))
        channel = int(request["channel"])
        held = hold(path, str(request.get("purpose") or "an agent of Farkernel"))
        try:
            descriptor = open_line(path, int(request.get("baud") or 115200))
        except Problem:
            held.release()
            raise
        try:
            link.open(channel, Priority.PORT)
        except ChannelError as error:
            os.close(descriptor)
            held.release()
            raise BadRequest(str(error)) from None
        line = Line(self, link, channel, descriptor, float(request.get("pause") or 0), held)
        try:
            line.signals(request.get("dtr"), request.get("rts"))
        except OSError:
            pass  # a PTY has no such lines
        self._lines[channel] = line
        return {"device": path}

    def signals(self, request: Event) -> Event:
        line = self._lines.get(int(request["channel"]))
        try:
            if line is not None:
                line.signals(request.get("dtr"), request.get("rts"))
        except OSError:
            raise LineProblem(
                "board-unsupported",
                "it has no control lines that could reset a board",
                "Press its reset button",
            ) from None
        return {}

    def received(self, link: Link, channel: int, data: Buffer) -> None:
        """A message on a channel that is no kernel's."""
        line = self._lines.get(channel)
        if line is not None:
            line.received(data)
        link.consumed(channel, len(data))
        self.pump()

    def closed(self, link: Link, channel: int) -> bool:
        """The keeper lets go of it; False: that is no channel of ours."""
        line = self._lines.pop(channel, None)
        if line is None:
            return False
        line.close()
        link.close(channel)
        return True

    def feed(self) -> None:
        for line in list(self._lines.values()):
            line.feed()

    def forget(self, line: Line) -> None:
        self._lines.pop(line.channel, None)

    def abandon(self) -> None:
        lines, self._lines = self._lines, {}
        for line in lines.values():
            line.close()
