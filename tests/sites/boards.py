"""Boards as sites: genuine MicroPython in QEMU behind a pseudo-terminal, paced like a serial line.

* `microbit`: Debian's unmodified micro:bit firmware (MicroPython 1.9.2): no raw-paste, no os.stat, its own file system
* `mps2`: MicroPython 1.25 (`micropython_port`): raw-paste, littlefs in a file, an input ring of 256 bytes that drops

The PTY's slave stays open here, so that clients may come and go.  `VirtualBoard` can be pulled out and put back, and its
reset button pressed.
"""

from __future__ import annotations

import os
import pty
import select
import socket
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from .micropython_build import firmware

MICROBIT_FIRMWARE = "/usr/share/firmware-microbit-micropython/firmware.hex"
FLASH_SIZE = 16 << 20  # all of the mps2's PSRAM, of which the firmware uses a part
BAUD = 115200


class Wire:
    """One direction of a serial line: bytes are there when the last of them has gone over it, and not before."""

    def __init__(self, source: int, sink: int, baud: int) -> None:
        self.source, self._sink = source, sink
        self._byte_time = 10 / baud if baud else 0.0
        self._piece = max(1, int(0.001 / self._byte_time)) if baud else 65536
        self._flying = b""
        self._goes_on = False
        self.due = 0.0

    @property
    def is_idle(self) -> bool:
        return not self._flying

    def take(self) -> bool:
        """Bytes begin their way; False: their source has ended."""
        try:
            self._flying = os.read(self.source, self._piece)
        except OSError:
            return False
        now = time.monotonic()
        # Where more waited than went at once, the line was never idle: up to 2 ms that we are late are made up for.
        began = max(self.due, now - 0.002) if self._goes_on else now
        self._goes_on = len(self._flying) == self._piece
        self.due = began + self._byte_time * len(self._flying)
        return bool(self._flying)

    def deliver(self) -> bool:
        """They have arrived; False: nobody is there."""
        try:
            while self._flying:
                self._flying = self._flying[os.write(self._sink, self._flying) :]
        except OSError:
            return False
        return True


class VirtualBoard:
    """A board in QEMU.  ``device`` is where it is plugged in: a link that goes when it is pulled out."""

    def __init__(self, machine: Sequence[str], device: Path, baud: int = BAUD) -> None:
        self.device = device
        self._machine = machine
        self._baud = baud
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._stop_read, self._stop_write = os.pipe()
        self._serial: socket.socket | None = None
        self._master = self._slave = -1
        self._unplug = threading.Event()

    def __enter__(self) -> VirtualBoard:
        self.plug_in()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pull_out()
        os.close(self._stop_read)
        os.close(self._stop_write)

    def plug_in(self) -> None:
        """Power and cable."""
        ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [
                "qemu-system-arm",
                *("-display", "none", "-monitor", "none", *self._machine),
                *("-chardev", f"socket,id=serial,fd={theirs.fileno()}", "-serial", "chardev:serial"),
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=sys.stderr,
        )
        theirs.close()
        self._serial = ours
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.symlink(os.ttyname(self._slave), self.device)
        wires = [
            Wire(ours.fileno(), self._master, self._baud),
            Wire(self._master, ours.fileno(), self._baud),
        ]
        self._thread = threading.Thread(target=self._carry, args=(wires,), daemon=True)
        self._thread.start()

    def pull_out(self) -> None:
        """Both are gone: whoever has the device open sees it end, and its memory is lost."""
        if self._process is None or self._thread is None or self._serial is None:
            return
        os.write(self._stop_write, b"x")
        self._thread.join()
        os.read(self._stop_read, 1)
        self.device.unlink()
        os.close(self._slave)
        os.close(self._master)
        self._serial.close()
        self._process.kill()
        self._process.wait()
        self._process = None

    def _carry(self, wires: Sequence[Wire]) -> None:
        while True:
            now = time.monotonic()
            if not all(wire.deliver() for wire in wires if not wire.is_idle and wire.due <= now):
                return
            idle = {wire.source: wire for wire in wires if wire.is_idle}
            left = min((wire.due for wire in wires if not wire.is_idle), default=None)
            wait = None if left is None else max(left - time.monotonic(), 0)
            ready, _, _ = select.select([self._stop_read, *idle], [], [], wait)
            if self._stop_read in ready or not all(idle[source].take() for source in ready):
                return


def microbit(directory: Path, baud: int = BAUD) -> VirtualBoard:
    """An unmodified firmware of the BBC micro:bit, at ``directory/"board"``."""
    machine = ["-machine", "microbit", "-device", f"loader,file={MICROBIT_FIRMWARE}"]
    return VirtualBoard(machine, directory / "board", baud)


def mps2(directory: Path, baud: int = BAUD) -> VirtualBoard:
    """At ``directory/"board"``, with its file system in ``directory/"flash"`` (made, erased, if it is not there)."""
    flash = directory / "flash"
    if not flash.exists():
        with flash.open("wb") as file:
            for _ in range(FLASH_SIZE >> 20):
                file.write(b"\xff" * (1 << 20))
    memory = f"memory-backend-file,id=flash,size={FLASH_SIZE},share=on,mem-path={flash}"
    machine = [
        *("-object", memory),
        *("-machine", "mps2-an385,memory-backend=flash"),
        *("-kernel", str(firmware())),
    ]
    return VirtualBoard(machine, directory / "board", baud)


def main(kind: str, directory: str) -> None:
    """``python -m tests.sites.boards mps2|microbit DIRECTORY``: a board of its own process, until stdin ends."""
    with {"mps2": mps2, "microbit": microbit}[kind](Path(directory)) as board:
        print(board.device, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
