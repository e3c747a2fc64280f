"""A serial device of this machine, or any other device file that carries bytes (a PTY).

The descriptor is read when the system says so, all that is there at once.  While output streams in, reading pauses for
some milliseconds at a time: at 115200 baud each byte would otherwise wake us by itself (DESIGN §4, CPU for 200 KB).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import termios
from collections import deque
from collections.abc import Callable

import serial

from ...backends.contract import Receiver
from .contract import SerialOptions
from .errors import BoardBusy, BoardGone, BoardPermission, BoardUnreachable, Unsupported
from .holding import Hold, group_of, holder_of
from .raw_repl import PIECE

_READ = 64 * 1024
#: So many reads with less than _GAP between them are a stream; then it is looked at once each _NAP.  The system holds
#: 4 KiB for us: at 2 Mbaud that is 20 ms.
_STREAM, _GAP, _NAP = 8, 0.005, 0.016
#: So much at once comes from something faster than a serial line: napping would only slow it down.
_FAST = 1024
#: Besides what the wire takes for a piece: a board that collects garbage meanwhile reads nothing.
_MARGIN = 0.01
_NO_LINES = (errno.ENOTTY, errno.EINVAL)


class SerialLine:
    """A `contract.Transport`.  ``locate`` says at each opening which device it is: names change over plugging."""

    windowed = False

    def __init__(
        self, locate: Callable[[], str] | str, options: SerialOptions | None = None, name: str = ""
    ) -> None:
        self._locate: Callable[[], str] = (lambda: locate) if isinstance(locate, str) else locate
        self._options = options or SerialOptions()
        self._name = name or (locate if isinstance(locate, str) else "")
        self._port: serial.Serial | None = None
        self._hold: Hold | None = None
        self._descriptor = -1
        self._pending: deque[memoryview] = deque()
        self._buffered = 0
        self._nap: asyncio.TimerHandle | None = None
        self._last_read = 0.0
        self._streak = 0
        self.pause = pause_of(self._options.baud)

    def __repr__(self) -> str:
        state = f"open, {self._buffered} bytes waiting" if self.is_open else "closed"
        return f"<SerialLine {self.describe()}, {state}>"

    def describe(self) -> str:
        return self._name

    @property
    def is_open(self) -> bool:
        return self._port is not None

    @property
    def buffered(self) -> int:
        return self._buffered

    async def open(self, receiver: Receiver) -> None:
        device = self._locate()
        self._name = self._name or device
        self._hold = Hold.take(device)
        try:
            self._port = self._opened(device)
        except BaseException:
            self._release()
            raise
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._descriptor = self._port.fileno()
        os.set_blocking(self._descriptor, False)
        _let_nothing_be_no_end(self._descriptor)
        self._streak = 0
        self._loop.add_reader(self._descriptor, self._readable)

    def _opened(self, device: str) -> serial.Serial:
        port = serial.Serial()
        port.port = device
        port.baudrate = self._options.baud
        if self._options.dtr is not None:
            port.dtr = self._options.dtr
        if self._options.rts is not None:
            port.rts = self._options.rts
        try:
            port.open()
            self._exclude_others(port.fileno(), device)
        except (OSError, ValueError) as error:
            port.close()
            raise _translated(self.describe(), device, error) from error
        return port

    def _exclude_others(self, descriptor: int, device: str) -> None:
        try:
            fcntl.flock(
                descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB
            )  # pyserial's own `exclusive` looks at this one
        except BlockingIOError:
            raise BoardBusy(self.describe(), holder_of(device)) from None
        with contextlib.suppress(OSError):  # not every device file has it
            fcntl.ioctl(descriptor, termios.TIOCEXCL)

    def close(self) -> None:
        if self._port is None:
            return
        if self._pending:
            self._write()
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_writer(self._descriptor)
        if self._nap is not None:
            self._nap.cancel()
            self._nap = None
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._descriptor, termios.TIOCNXCL)
        port, self._port = self._port, None
        with contextlib.suppress(OSError):
            port.close()
        self._pending.clear()
        self._buffered = 0
        self._release()

    def _release(self) -> None:
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    async def signals(self, dtr: bool | None, rts: bool | None) -> None:
        if self._port is None:
            raise BoardGone(self.describe())
        try:
            if dtr is not None:
                self._port.dtr = dtr
            if rts is not None:
                self._port.rts = rts
            # pyserial sets what a PTY has not got in silence: asking tells.
            _ = self._port.cts
        except OSError as error:
            if error.errno in _NO_LINES:
                raise Unsupported(
                    f"{self.describe()} has no control lines that could reset a board",
                    "Press the board's reset button",
                ) from None
            raise BoardGone(self.describe(), str(error.strerror)) from None

    def paste(self, code: bytes) -> None:
        raise NotImplementedError("this transport is not windowed")

    # -- bytes --------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._port is None or not data:
            return
        self._streak = 0  # an answer is waited for
        if self._nap is not None:
            self._nap.cancel()
            self._nap = None
            self._loop.add_reader(self._descriptor, self._readable)
        idle = not self._pending
        self._pending.append(memoryview(data))
        self._buffered += len(data)
        if idle:
            self._write()
            if self._pending and self._port is not None:
                self._loop.add_writer(self._descriptor, self._writable)

    def _writable(self) -> None:
        self._write()
        if not self._pending and self._port is not None:
            self._loop.remove_writer(self._descriptor)
            self._receiver.writable()

    def _write(self) -> None:
        try:
            while self._pending:
                written = os.write(self._descriptor, self._pending[0])
                self._buffered -= written
                self._pending[0] = self._pending[0][written:]
                if not self._pending[0]:
                    self._pending.popleft()
        except BlockingIOError:
            pass
        except OSError:  # unplugged: reading will tell
            self._pending.clear()
            self._buffered = 0

    def _readable(self) -> None:
        data = self._read()
        if not data:
            return
        now = self._loop.time()
        self._streak = self._streak + 1 if now - self._last_read < _GAP and len(data) < _FAST else 0
        self._last_read = now
        if self._streak > _STREAM:
            self._loop.remove_reader(self._descriptor)
            self._nap = self._loop.call_later(_NAP, self._wake)
        self._receiver.data_received(data)

    def _wake(self) -> None:
        """After a nap: another one if the stream goes on, else wait for the next byte as usual."""
        self._nap = None
        if self._port is None:
            return
        data = self._read()
        if self._port is None:
            return
        if data and len(data) < _FAST and self._streak:
            self._nap = self._loop.call_later(_NAP, self._wake)
        else:
            self._streak = 0
            self._loop.add_reader(self._descriptor, self._readable)
        if data:
            self._receiver.data_received(data)

    def _read(self) -> bytes:
        """What is there; b"": nothing, or it has ended."""
        try:
            data = os.read(self._descriptor, _READ)
        except BlockingIOError:
            return b""
        except OSError as error:
            self._ended(error.strerror or "")
            return b""
        if not data:
            self._ended("")
        return data

    def _ended(self, why: str) -> None:
        receiver = self._receiver
        self.close()
        receiver.closed(f"it was unplugged ({why})" if why else "it was unplugged")


def pause_of(baud: int) -> float:
    """How long to wait after a piece of code: what it takes on the line, and a little."""
    return PIECE * 10 / baud + _MARGIN


def _let_nothing_be_no_end(descriptor: int) -> None:
    """With VMIN 0, as pySerial leaves it, reading when nothing is there gives what a hang-up gives (termios(3))."""
    attributes = termios.tcgetattr(descriptor)
    attributes[6][termios.VMIN], attributes[6][termios.VTIME] = 1, 0
    termios.tcsetattr(descriptor, termios.TCSANOW, attributes)


def _translated(name: str, device: str, error: OSError | ValueError) -> Exception:
    number = getattr(error, "errno", None)
    if isinstance(error, (BoardBusy, BoardGone)):
        return error
    if number in (errno.EACCES, errno.EPERM):
        return BoardPermission(name, group_of(device))
    if number == errno.EBUSY:
        return BoardBusy(name, holder_of(device))
    if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EIO):
        return BoardGone(name)
    return BoardUnreachable(
        f"{name} cannot be opened: {error}", "Look at the target's `baud`, and whether it is a serial device"
    )
