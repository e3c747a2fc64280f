"""Leases of devices: who has which, for all users of this machine to see.

A lease is an flock on a file named by the device in one directory that everybody can write to.  The guard and the
kernel itself hold the open file: so it ends with the kernel whatever else was killed, and the system sees to it that
nobody else gets it before.
"""

import fcntl
import json
import os
import pwd
import re
import stat
import time
from typing import Any, Dict, List, Optional, Tuple

from .places import flock
from .problems import Problem

PLACE = "/tmp/farkernel-leases"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._-]{0,99}\Z")
_LARGEST = 4096
_LOOKS = 3


class NoLeases(Problem):
    kind = "leases"

    def __init__(self, directory: str, why: str) -> None:
        super().__init__(
            "devices cannot be leased there: %s %s" % (directory, why),
            "It must be a directory that everybody can write to (mode 1777); remove it, or ask its owner to",
        )


class Leases(object):
    """The directory; made by whoever needs it first."""

    def __init__(self, directory: Optional[str] = None) -> None:
        self.directory = directory or os.environ.get("FARKERNEL_LEASES") or PLACE

    def open(self) -> int:
        """The directory, checked, with a shared lock: what tidies up in /tmp leaves it alone (tmpfiles.d(5)).

        It must stay open as long as something is leased.  Raises `NoLeases`.
        """
        try:
            try:
                os.mkdir(self.directory, 0o700)
                os.chmod(self.directory, 0o1777)  # noqa: S103 - as /tmp: everybody makes files, nobody removes others'
            except FileExistsError:
                pass
            descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise NoLeases(self.directory, "cannot be used (%s)" % error.strerror) from None
        try:
            if os.fstat(descriptor).st_mode & 0o1777 != 0o1777:
                raise NoLeases(self.directory, "is closed to others")
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # it is being tidied up just now; the files are looked at again when they are locked
        except Problem:
            os.close(descriptor)
            raise
        return descriptor

    def take(self, device: str, about: Dict[str, Any]) -> Optional[int]:
        """The descriptor that must stay open, or None: somebody has it.  Others can read ``about``.

        Raises `NoLeases`.
        """
        path = self._path(device)
        try:
            while True:
                descriptor = self._file(path)
                if not flock(descriptor):
                    os.close(descriptor)
                    return None
                # Somebody may have removed the file between opening and locking: that would be another one's lock.
                if _is_still(descriptor, path):
                    self._write(path, about)
                    return descriptor
                os.close(descriptor)
        except OSError as error:
            raise NoLeases(self.directory, "cannot be used (%s)" % error.strerror) from None

    def holder(self, device: str, held: bool = False) -> Optional[Dict[str, Any]]:
        """Who has it: ``user``, ``mine``, and what `take` was given, as far as it is known; None: nobody.

        Nothing is locked for that: somebody who wants the lease just now would be told that it is taken.
        ``held``: that somebody has it is known; the list of locks, which is read in pieces, can miss one.
        """
        pid = self._locker(device)
        for _ in range(_LOOKS if held and pid is None else 0):
            pid = self._locker(device) if pid is None else pid
        if pid is None and not held:
            return None
        for uid, about in self._said(device):
            if not pid or about.get("pid") == pid:
                return dict(about, user=_user(uid), mine=uid == os.geteuid())
        try:
            uid = os.stat("/proc/%s" % pid).st_uid
        except OSError:
            return {}
        return {"user": _user(uid), "mine": uid == os.geteuid()}  # it has had no time to say more

    def _locker(self, device: str) -> Optional[int]:
        """The process that took the lock (proc_locks(5)); 0: one that is not seen from here; None: there is none."""
        try:
            there = os.stat(self._path(device))
            with open("/proc/locks") as stream:
                lines = stream.read().splitlines()
        except OSError:
            return None
        file = "%02x:%02x:%d" % (os.major(there.st_dev), os.minor(there.st_dev), there.st_ino)
        for line in lines:
            words = line.split()
            if len(words) > 5 and words[1] == "FLOCK" and words[3:6:2] == ["WRITE", file]:
                return int(words[4]) if words[4].isdigit() else 0
        return None

    def _said(self, device: str) -> List[Tuple[int, Dict[str, Any]]]:
        """What each user said about their last lease of it, newest first."""
        found: List[Tuple[float, int, Dict[str, Any]]] = []
        for name in os.listdir(self.directory):
            if not name.startswith(device + ".") or not name[len(device) + 1 :].isdigit():
                continue
            path = os.path.join(self.directory, name)
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError:
                continue
            with os.fdopen(descriptor, "rb") as stream:
                seen = os.fstat(descriptor)
                # Only what belongs to the user that its name says.
                if stat.S_ISREG(seen.st_mode) and str(seen.st_uid) == name[len(device) + 1 :]:
                    found.append((seen.st_mtime, seen.st_uid, _object(stream.read(_LARGEST))))
        return [(uid, about) for _, uid, about in sorted(found, key=lambda one: -one[0])]

    def add_to(self, machine: Dict[str, Any]) -> None:
        """Say of each GPU in the probe's document who has leased it."""
        for gpu in machine.get("gpus") or []:
            try:
                gpu["lease"] = self.holder(str(gpu.get("uuid")))
            except Problem:
                gpu["lease"] = None  # a device without a name that could be one

    def _path(self, device: str) -> str:
        if not _NAME.match(device):
            raise NoLeases(self.directory, "has no place for a device named %r" % device[:40])
        return os.path.join(self.directory, device)

    def _file(self, path: str) -> int:
        """Open for everybody from its first moment, whatever the umask: made elsewhere, and linked."""
        for _ in range(10):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            except FileNotFoundError:
                self._make(path)
                continue
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise OSError(0, "%s is no file" % path)
            return descriptor
        raise OSError(0, "%s does not stay" % path)

    def _make(self, path: str) -> None:
        import tempfile

        descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=self.directory)
        try:
            os.fchmod(descriptor, 0o644)
            os.link(temporary, path)
        except FileExistsError:
            pass  # another was faster
        finally:
            os.close(descriptor)
            os.unlink(temporary)

    def _write(self, path: str, about: Dict[str, Any]) -> None:
        """Beside the lock, in a file of our own: the lock's may be another user's."""
        import tempfile

        descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=self.directory)
        with os.fdopen(descriptor, "w") as stream:
            os.fchmod(descriptor, 0o644)
            json.dump(dict(about, pid=os.getpid(), since=time.time()), stream)
        try:
            os.rename(temporary, "%s.%d" % (path, os.geteuid()))
        except OSError:
            os.unlink(temporary)  # somebody else's file has that name: then nothing is said about it


def _is_still(descriptor: int, path: str) -> bool:
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    mine = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


def _object(data: bytes) -> Dict[str, Any]:
    try:
        content = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "user %d" % uid
