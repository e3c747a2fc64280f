"""The last message fully written to each subscriber: known even after a SIGKILL at any instruction.

The trick: before a write, the slot of the subscriber (one page of a memory-mapped file) gets a table "so many
bytes complete message n", and the result field of the system call in that same page is set to `UNKNOWN`.  The
call is sendmmsg(2), which makes the *kernel* store there how many bytes it took, within the call.  A process
cannot be killed between the two, so whoever reads the file afterwards knows what was written, to the byte.

Written is not yet read.  When a process dies, its unix sockets hang up, and a libzmq subscriber that has
paused reading (its application is behind by 1,000 messages) throws away what lies unread in its socket.  So
the last byte of each batch is sent with SCM_RIGHTS: it carries our own end of the connection, which therefore
stays open until that byte is read, whether or not we live; then the kernel closes it.

Without sendmmsg (not Linux) the result is stored after an ordinary send: a kill in between makes messages
come twice.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import struct
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path

PAGE = 4096
TABLE = 200
STAGING = 1 << 18
UNKNOWN = 0xFFFFFFFF
_MAGIC = b"farkernel positions 1\n"
_FLAGS = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_sendmmsg = getattr(_libc, "sendmmsg", None)


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("header", _Msghdr), ("sent", ctypes.c_uint32))


class _Layout(ctypes.Structure):
    """One slot, as it lies in its page."""

    _fields_ = (
        ("used", ctypes.c_uint64),
        ("pid", ctypes.c_uint64),
        ("started", ctypes.c_uint64),
        ("written", ctypes.c_uint64),
        ("count", ctypes.c_uint64),
        ("calls", _Mmsghdr * 2),
        ("vectors", _Vector * 2),
        ("control", ctypes.c_uint8 * 32),
        ("numbers", ctypes.c_uint64 * TABLE),
        ("ends", ctypes.c_uint64 * TABLE),
    )


assert ctypes.sizeof(_Layout) <= PAGE


class Staging:
    """Where the bytes of a batch lie during the system call; one for all subscribers of a publisher."""

    def __init__(self) -> None:
        self._memory = bytearray(STAGING)
        self.view = memoryview(self._memory)
        self.address = ctypes.addressof((ctypes.c_char * STAGING).from_buffer(self._memory))


class Slot:
    """The position of one subscriber."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._layout = _Layout.from_buffer(memory)
        view = memoryview(memory)
        first, second = _Layout.numbers.offset, _Layout.ends.offset
        self._numbers = view[first : first + 8 * TABLE].cast("Q")
        self._ends = view[second : second + 8 * TABLE].cast("Q")
        self._first, self._second = self._layout.calls[0], self._layout.calls[1]
        self._vectors = self._layout.vectors[0], self._layout.vectors[1]
        self._guard = True

    def __repr__(self) -> str:
        return f"<Slot pid={self.pid} position={self.position}>" if self.used else "<Slot free>"

    @property
    def used(self) -> bool:
        return bool(self._layout.used)

    @property
    def pid(self) -> int:
        return int(self._layout.pid)

    @property
    def process(self) -> tuple[int, int]:
        """(pid, when it started): a pid alone may have been given to another process."""
        return int(self._layout.pid), int(self._layout.started)

    @property
    def position(self) -> int:
        """The last message that was fully written, from whatever the last writer left here."""
        layout = self._layout
        position = int(layout.written)
        if self._first.sent == UNKNOWN:
            return position
        sent = self._first.sent + (0 if self._second.sent == UNKNOWN else self._second.sent)
        for index in range(min(int(layout.count), TABLE)):
            if layout.ends[index] > sent:
                break
            position = int(layout.numbers[index])
        return position

    def take(self, process: tuple[int, int], position: int, fd: int) -> None:
        """For a subscriber that has just come."""
        layout = self._layout
        layout.used = 0
        self._first.sent = self._second.sent = UNKNOWN
        layout.pid, layout.started = process
        layout.written = position
        for call, vector in zip((self._first, self._second), self._vectors, strict=True):
            call.header.vectors = ctypes.addressof(vector)
            call.header.vector_count = 1
        header = struct.pack("@Niii", _cmsg_size(), socket.SOL_SOCKET, socket.SCM_RIGHTS, fd)
        ctypes.memmove(layout.control, header, len(header))
        self._second.header.control = ctypes.addressof(layout.control)
        self._second.header.control_size = _cmsg_size()
        self._guard = True
        layout.used = 1

    def advance(self, position: int) -> None:
        """Up to there nothing has to be written any more, and nothing is under way."""
        # In this order: after the first store the page still gives what the table says, after the second
        # this.
        self._layout.written = position
        self._first.sent = UNKNOWN

    def release(self) -> None:
        self._layout.used = 0

    def send(
        self,
        sock: socket.socket,
        staging: Staging,
        size: int,
        numbers: Sequence[int],
        ends: Sequence[int],
        guard: bool,
    ) -> int:
        """Writes the first `size` bytes of the staging area.  `ends[i]` of them complete message
        `numbers[i]`.

        Returns how many the socket took, `position` being right at every moment; raises OSError.
        """
        self.advance(self.position)
        self._second.sent = UNKNOWN
        count = len(numbers)
        self._layout.count = count
        if count:
            self._numbers[:count] = memoryview(array("Q", numbers))
            self._ends[:count] = memoryview(array("Q", ends))
        if _sendmmsg is None:
            sent = sock.send(staging.view[:size])
            self._first.sent = sent
            return sent
        guard = guard and self._guard
        body, last = self._vectors
        body.base = staging.address
        body.size = size - 1 if guard else size
        last.base = staging.address + size - 1
        last.size = 1
        call, count = self._first, 2 if guard else 1
        if guard and size == 1:
            # An empty first call would succeed, and hide what the second one met.
            self._first.sent = 0
            call, count = self._second, 1
        if _sendmmsg(sock.fileno(), ctypes.byref(call), count, _FLAGS) < 0:
            return self._failed(sock, staging, size, (numbers, ends), guard)
        sent = int(self._first.sent)
        return sent if self._second.sent == UNKNOWN else sent + int(self._second.sent)

    def _failed(
        self,
        sock: socket.socket,
        staging: Staging,
        size: int,
        table: tuple[Sequence[int], Sequence[int]],
        guard: bool,
    ) -> int:
        number = ctypes.get_errno()
        if guard and number not in (errno.EAGAIN, errno.EINTR, errno.EPIPE, errno.ECONNRESET):
            # ETOOMANYREFS (the limit of descriptors in flight), EPERM (a sandbox): go on without.
            self._guard = False
            return self.send(sock, staging, size, *table, guard=False)
        raise OSError(number, os.strerror(number))

    def close(self) -> None:
        """Lets go of the memory; what it says stays in the file."""
        self._numbers.release()
        self._ends.release()


def anonymous_slot() -> Slot:
    """A slot that no one finds after us."""
    return Slot(mmap.mmap(-1, PAGE))


class PositionFile:
    """The positions of one kernel's subscribers.

    Opening a file that a killed keeper left gives its subscribers' positions: `last_written` says after which
    message to go on, and `claim` gives a subscriber that came back (the same process) its own position.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            self._pages = self._check()
            self._free: list[Slot] = []
            self._live: list[Slot] = []
            self._waiting: list[Slot] = []
            for page in range(1, self._pages):
                slot = self._map(page)
                (self._waiting if slot.used and _lives(slot.process) else self._free).append(slot)
        except BaseException:
            os.close(self._fd)
            raise
        self._resume: dict[tuple[int, int], int] = {}
        for slot in self._waiting:
            self._resume[slot.process] = min(slot.position, self._resume.get(slot.process, slot.position))

    def __repr__(self) -> str:
        return f"<PositionFile {self.path.name} {len(self._live)} live, {len(self._waiting)} waiting>"

    def last_written(self) -> int | None:
        """After which message to go on: the smallest position of the subscribers that are there or whose
        process lives.  None: there are none."""
        return min((slot.position for slot in (*self._waiting, *self._live)), default=None)

    def doubtful(self) -> int:
        """Up to this number a message may come again to a connection that has it: where a process had
        several that stood
        at different messages, all go on from the last of them.  0: no doubt."""
        return max(
            (slot.position for slot in self._waiting if slot.position > self._resume[slot.process]), default=0
        )

    @property
    def waiting(self) -> int:
        """How many subscribers of the former keeper have not come back."""
        return len(self._waiting)

    def forget_waiting(self) -> None:
        """They had time enough to come back."""
        for slot in self._waiting:
            slot.release()
        self._free += self._waiting
        self._waiting = []

    def claim(self, pid: int, position: int, fd: int) -> Slot:
        """The slot of a new subscriber; `position` is for one that was not known before.

        Where a process had several connections, nothing tells which of them this one was: all of them go on
        from the position of the last of them, which loses nothing.  Raises OSError when there is no space.
        """
        process = (pid, _started(pid))
        known = next((slot for slot in self._waiting if slot.process == process), None)
        if known is not None:
            position = self._resume[process]
            self._waiting.remove(known)
        slot = known or (self._free.pop() if self._free else self._append())
        slot.take(process, position, fd)
        self._live.append(slot)
        return slot

    def release(self, slot: Slot) -> None:
        """Its subscriber is gone for good."""
        if slot in self._live:
            self._live.remove(slot)
            slot.release()
            self._free.append(slot)

    def close(self) -> None:
        """The positions stay for whoever opens the file next."""
        for slot in (*self._live, *self._free, *self._waiting):
            slot.close()
        self._live, self._free, self._waiting = [], [], []
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def remove(self) -> None:
        """The kernel has ended: nobody will go on."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _check(self) -> int:
        size = os.fstat(self._fd).st_size
        if size >= PAGE and os.pread(self._fd, len(_MAGIC), 0) == _MAGIC:
            return size // PAGE
        os.ftruncate(self._fd, 0)
        os.ftruncate(self._fd, PAGE)
        os.pwrite(self._fd, _MAGIC, 0)
        return 1

    def _append(self) -> Slot:
        # Space is taken at once: a page without space behind it would kill us with SIGBUS when it is written
        # to.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._fd, self._pages * PAGE, PAGE)
        else:
            os.pwrite(self._fd, bytes(PAGE), self._pages * PAGE)
        slot = self._map(self._pages)
        self._pages += 1
        return slot

    def _map(self, page: int) -> Slot:
        return Slot(mmap.mmap(self._fd, PAGE, offset=page * PAGE))


def _cmsg_size() -> int:
    return socket.CMSG_LEN(4)


def _started(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 if that cannot be known."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def _lives(process: tuple[int, int]) -> bool:
    pid, started = process
    if pid == 0:
        return True  # connected by TCP: unknown, so it counts
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _started(pid) == started
