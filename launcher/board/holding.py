"""One owner at a time: a lock file for each device that says who holds it, and who else has it open.

The lock files are those of the old convention (``/run/lock/LCK..ttyUSB0``, ten columns of process id) that terminal
programs look at.  Ours are held by flock as well, so that one left behind by a killed process holds nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import pwd
import sys
from pathlib import Path

from ..agent.places import private_directory, subdirectory
from ..text import one_line
from .errors import BoardBusy, BoardGone

_SHARED = "/run/lock"
_TRIES = 10
_LONGEST_PID = 10  # columns; more than a process id can have, and less than an integer of C's


class Hold:
    """We hold a device; `release` gives it back."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def __repr__(self) -> str:
        return f"<Hold {self.path}>"

    @classmethod
    def take(cls, device: str, purpose: str = "") -> Hold:
        """Raises `BoardBusy`, or `BoardGone` where there is no such device.  ``purpose`` is what others are told."""
        if not os.path.exists(device):
            raise BoardGone(device)
        path = lock_file(device)
        for _ in range(_TRIES):
            descriptor = _open(path)
            if descriptor is None:
                break
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _written_holder(descriptor)
                os.close(descriptor)
                raise BoardBusy(device, holder or holder_of(device)) from None
            if not _is_still(path, descriptor):  # its former holder took it away while we waited
                os.close(descriptor)
                continue
            holder = _written_holder(descriptor)  # of a program that knows nothing of flock
            if holder and f"process {os.getpid()}" not in holder:
                os.close(descriptor)
                raise BoardBusy(device, holder)
            with contextlib.suppress(OSError):  # another user's stale file: held all the same
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid():10d}\n{purpose or _own_name()}\n".encode(), 0)
            return cls(path, descriptor)
        raise BoardBusy(device, holder_of(device))

    def release(self) -> None:
        if self._descriptor < 0:
            return
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        os.close(self._descriptor)
        self._descriptor = -1


def lock_file(device: str) -> str:
    """Of the device itself, whatever link it was named by."""
    name = os.path.realpath(device).removeprefix("/dev/").replace("/", "_")
    shared = os.access(_SHARED, os.W_OK | os.X_OK)
    return os.path.join(_SHARED if shared else subdirectory(private_directory(), "boards"), f"LCK..{name}")


def _open(path: str) -> int | None:
    """A descriptor of the lock file; None: it cannot be had."""
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDONLY):
        with contextlib.suppress(OSError):
            return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    return None


def _is_still(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except OSError:
        return False


def _written_holder(descriptor: int) -> str:
    """Who the lock file says holds the device, if that process lives."""
    number, _, rest = os.pread(descriptor, 512, 0).decode("utf-8", "replace").partition("\n")
    if not number.strip().isdecimal() or len(number) > _LONGEST_PID or not _lives(pid := int(number)):
        return ""
    purpose = one_line(rest)
    return f"{purpose} (process {pid})" if purpose else describe_process(pid)


def current_holder(device: str) -> str:
    """Who holds it now; "": nobody that we can see.  Nothing is taken or opened but the lock file."""
    with contextlib.suppress(OSError):
        descriptor = os.open(lock_file(device), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if holder := _written_holder(descriptor):
                return holder
        finally:
            os.close(descriptor)
    return holder_of(device)


def holder_of(device: str) -> str:
    """The process that has it open, with or without a lock file: one of the user's own (for root, any)."""
    real = os.path.realpath(device)
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and _has_open(entry, real):
            return describe_process(int(entry))
    return ""


def _has_open(entry: str, real: str) -> bool:
    try:
        place = f"/proc/{entry}/fd"
        return any(os.readlink(f"{place}/{number}") == real for number in os.listdir(place))
    except OSError:  # it ended, or is not ours
        return False


def describe_process(pid: int) -> str:
    """ "picocom /dev/ttyUSB0 (process 4711 of alice)"."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        owner = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return f"process {pid}"
    command = one_line(b" ".join([os.path.basename(words[0]), *words[1:]]).decode("utf-8", "replace"))[:60]
    return f"{command or 'a program'} (process {pid} of {_user_name(owner)})"


def group_of(device: str) -> str:
    """The group that may use a device; "" if that would not help, or it is not known."""
    try:
        status = os.stat(device)
        return grp.getgrgid(status.st_gid).gr_name if status.st_mode & 0o060 == 0o060 else ""
    except (OSError, KeyError):
        return ""


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _lives(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def introduce(purpose: str) -> None:
    """What others are told about this process when they want what it holds; else it is its command."""
    _introduced.append(purpose)


_introduced: list[str] = []


def _own_name() -> str:
    if _introduced:
        return f"{one_line(_introduced[-1])} of {_user_name(os.getuid())}"
    command = " ".join(word for word in sys.argv[1:3] if not word.startswith("-"))
    return f"farkernel {one_line(command)}".strip() + f" of {_user_name(os.getuid())}"
