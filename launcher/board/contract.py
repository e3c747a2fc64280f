"""What boards and the ways to them promise; everything above and below `session.Board` relies on this file only.

A **transport** carries bytes to a board and back (a serial device, a PTY, WebREPL, a serial device at an agent).
`raw_repl` turns them into events, `session.Board` into runs of code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from ...backends.contract import Receiver

OnOutput = Callable[[bytes], None]
"""Takes what a program on the board prints, as it comes: any bytes, split anywhere (also inside a character)."""

OnProgress = Callable[[int, int], None]
"""Bytes done, bytes in all; at the end both are equal."""


class BoardState(StrEnum):
    """Where a `session.Board` stands.  `session.MOVES` says which follows which."""

    CLOSED = "closed"  # not opened yet, or closed by us
    OPENING = "opening"  # opening the transport, finding the raw REPL
    READY = "ready"  # in its raw REPL, nothing runs
    RUNNING = "running"  # runs our code
    RESETTING = "resetting"  # a reset that we asked for
    LOST = "lost"  # pulled out, or it restarted by itself: it is opened again as soon as it is back


OnState = Callable[[BoardState, str], None]
"""The new state, and a sentence for people (what was lost and why, which board was found; may be empty)."""


@dataclass(frozen=True)
class BoardInfo:
    """What the board said about itself.  All text is the board's: data, to be cleaned before it is shown."""

    machine: str  # "micro:bit with nRF51822"
    firmware: str  # the banner's first line: "MicroPython v1.25.0 on 2025-04-15; ESP module with ESP8266"
    version: tuple[int, ...]  # of the implementation: (1, 25, 0)
    implementation: str  # "micropython" or "circuitpython"
    platform: str = ""  # sys.platform: "esp8266", "rp2", "microbit"
    raw_paste: bool = False  # it takes code in raw-paste mode (MicroPython 1.14 and newer)
    base64: bool = False  # its programs can read it
    mpy_version: int | None = None  # of `.mpy` files that it imports; None: it imports none
    mpy_arch: int = 0  # for native code in them, as sys.implementation._mpy >> 10 gives it; 0: none
    unique_id: str = ""  # hex digits of machine.unique_id(), where there is one


@dataclass(frozen=True)
class SerialOptions:
    """How a serial device is opened: a target's settings `baud`, `dtr`, `rts`."""

    baud: int = 115200
    # Opening a port raises DTR and RTS, and on many boards these two are wired to reset.  None: as the driver does it.
    dtr: bool | None = None
    rts: bool | None = None


@dataclass(frozen=True)
class BoardPort:
    """A serial device here that may have a board behind it."""

    device: str  # /dev/ttyUSB0
    description: str = ""  # the product's name by USB
    vendor: int | None = None  # USB vendor and product
    product: int | None = None
    serial: str = ""  # USB serial number
    by_id: str = ""  # /dev/serial/by-id/…, if there is one: stable over plugging
    holder: str = ""  # who holds it: "farkernel keeper, process 4711"; empty: nobody that we can see
    address: str = ""  # the best address for a target: `serial:///usb/VID:PID/SERIAL`, or by device name
    kind: str = ""  # a guess for people from vendor and product: "ESP8266 or ESP32 (CP210x)"


class Transport(Protocol):
    """Bytes to a board and back.  One `open` at a time; after `close`, or after the receiver's `closed`, it may be
    opened again (the cable is back)."""

    windowed: bool
    """The far side runs the raw-paste window itself: use `paste`."""

    pause: float
    """Seconds to wait after each 256 bytes where the board has no raw-paste: what the wire takes for them, and
    a little for a board that is busy.  0: the way has a flow control of its own."""

    async def open(self, receiver: Receiver) -> None:
        """Open it; `receiver.data_received` and `receiver.closed` may be called from then on.

        Raises `BoardGone` (nothing there), `BoardBusy`, `BoardPermission`, `BoardUnreachable`.
        """

    def write(self, data: bytes) -> None:
        """Send; what the system does not take now is kept.  Nothing happens when it is not open."""

    def paste(self, code: bytes) -> None:
        """Only when `windowed`: enter raw-paste mode (Ctrl-E A Ctrl-A), send all the code as the window allows, end it.

        Every byte that the board says to it comes to the receiver as usual.
        """

    @property
    def is_open(self) -> bool:
        """From `open` to `close`, or to the receiver's `closed`."""

    @property
    def buffered(self) -> int:
        """Bytes written that the system has not taken yet."""

    async def signals(self, dtr: bool | None, rts: bool | None) -> None:
        """Set the lines (None: as it is).  Raises `Unsupported` where there are none (a PTY, a network)."""

    def close(self) -> None:
        """May be called again.  The receiver's `closed` is not called for our own closing."""

    def describe(self) -> str:
        """For people and messages: "/dev/ttyUSB0", "/dev/ttyACM0 on pi7", "WebREPL at 192.168.4.1"."""


@dataclass(frozen=True)
class Entry:
    """A file or directory on a board."""

    name: str
    directory: bool
    size: int = 0  # bytes; 0 for directories
    modified: int | None = None  # as the board's clock says; None: unknown


@dataclass(frozen=True)
class DiskUsage:
    """Bytes of the file system that holds a path."""

    total: int
    used: int
    free: int


@dataclass(frozen=True)
class SyncReport:
    """What `files.BoardFiles.sync_folder` did; paths on the board."""

    sent: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    bytes_sent: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)
