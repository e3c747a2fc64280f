"""One owner at a time for a serial device: a lock file for each that says who holds it, and who else has it open.

The lock files are those of the old convention (``/run/lock/LCK..ttyUSB0``, ten columns of process id) that terminal
programs look at.  Ours are held by flock as well, so that one left behind by a killed process holds nothing.

Used here for the boards of other machines, and beside the keeper for those plugged in there.
"""

import fcntl
import grp
import os
import pwd
import re
from typing import Optional

from .places import private_directory, subdirectory

_SHARED = "/run/lock"
_TRIES = 10
_LONGEST_PID = 10  # columns; more than a process id can have, and less than an integer of C's
_LONGEST_PURPOSE = 200
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]+")


class Held(Exception):
    """Somebody else has it; ``holder``: who, or ""."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


class Hold(object):
    """We hold a device; `release` gives it back."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def __repr__(self) -> str:
        return "<Hold %s>" % self.path

    @classmethod
    def take(cls, device: str, purpose: str) -> "Hold":
        """Raises `Held`.  ``purpose`` is what others are told; the device must be there."""
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
                raise Held(holder or holder_of(device)) from None
            if not _is_still(path, descriptor):  # its former holder took it away while we waited
                os.close(descriptor)
                continue
            holder = _written_holder(descriptor)  # of a program that knows nothing of flock
            if holder and "process %d" % os.getpid() not in holder:
                os.close(descriptor)
                raise Held(holder)
            try:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, ("%10d\n%s\n" % (os.getpid(), purpose)).encode("utf-8"), 0)
            except OSError:
                pass  # another user's stale file: held all the same
            return cls(path, descriptor)
        raise Held(holder_of(device))

    def release(self) -> None:
        if self._descriptor < 0:
            return
        try:
            os.unlink(self.path)
        except OSError:
            pass
        os.close(self._descriptor)
        self._descriptor = -1


def lock_file(device: str) -> str:
    """Of the device itself, whatever link it was named by."""
    name = os.path.realpath(device)
    name = (name[len("/dev/") :] if name.startswith("/dev/") else name).replace("/", "_")
    shared = os.access(_SHARED, os.W_OK | os.X_OK)
    return os.path.join(_SHARED if shared else subdirectory(private_directory(), "boards"), "LCK.." + name)


def _open(path: str) -> Optional[int]:
    """A descriptor of the lock file; None: it cannot be had."""
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDONLY):
        try:
            return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
        except OSError:
            pass
    return None


def _is_still(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except OSError:
        return False


def _written_holder(descriptor: int) -> str:
    """Who the lock file says holds the device, if that process lives."""
    number, _, rest = os.pread(descriptor, 512, 0).decode("utf-8", "replace").partition("\n")
    if (
        not number.strip().isdecimal()
        or len(number) > _LONGEST_PID
        or not os.path.exists("/proc/%d" % int(number))
    ):
        return ""
    purpose = plain(rest)
    return "%s (process %d)" % (purpose, int(number)) if purpose else describe_process(int(number))


def current_holder(device: str) -> str:
    """Who holds it now; "": nobody that we can see.  Nothing is taken or opened but the lock file."""
    try:
        descriptor = os.open(lock_file(device), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return holder_of(device)
    try:
        return _written_holder(descriptor) or holder_of(device)
    except OSError:
        return holder_of(device)
    finally:
        os.close(descriptor)


def holder_of(device: str) -> str:
    """Another process that has it open, with or without a lock file: one of the user's own (for root, any)."""
    real = os.path.realpath(device)
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and int(entry) != os.getpid() and _has_open(entry, real):
            return describe_process(int(entry))
    return ""


def _has_open(entry: str, real: str) -> bool:
    try:
        place = "/proc/%s/fd" % entry
        return any(os.readlink("%s/%s" % (place, number)) == real for number in os.listdir(place))
    except OSError:  # it ended, or is not ours
        return False


def describe_process(pid: int) -> str:
    """ "picocom /dev/ttyUSB0 (process 4711 of alice)"."""
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            words = file.read().rstrip(b"\0").split(b"\0")
        owner = os.stat("/proc/%d" % pid).st_uid
    except OSError:
        return "process %d" % pid
    command = plain(b" ".join([os.path.basename(words[0])] + words[1:]).decode("utf-8", "replace"))[:60]
    return "%s (process %d of %s)" % (command or "a program", pid, user_name(owner))


def group_of(device: str) -> str:
    """The group that may use a device; "" if that would not help, or it is not known."""
    try:
        status = os.stat(device)
        return grp.getgrgid(status.st_gid).gr_name if status.st_mode & 0o060 == 0o060 else ""
    except (OSError, KeyError, ValueError):
        return ""


def user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def plain(text: str) -> str:
    """Others wrote it: one line, without what a terminal would obey."""
    return _CONTROLS.sub(" ", text).strip()[:_LONGEST_PURPOSE]
