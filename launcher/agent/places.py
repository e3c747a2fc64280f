"""Private directories: where sockets, kernels' files and pushed programs live on one machine.

Used by the keeper, the agent and the loader.  The loader sends this file's text along (backends/archive.py),
and must be able to say "this Python is too old" instead of failing to compile: so the syntax here is that of
Python 2.7 and 3.
"""

import errno
import fcntl
import hashlib
import os
import re
import stat

# sun_path has 108 bytes with its zero (unix(7)); what we append to the private directory takes 47 at most.
LONGEST_DIRECTORY = 60
LONGEST_SOCKET = 107


class PlaceError(Exception):
    """There is no directory that only this user can enter; what was tried, why each failed, and what to do."""

    kind = "no-directory"

    def __init__(self, tried):
        # type: (list[tuple[str, str]]) -> None
        listed = "; ".join("%s: %s" % pair for pair in tried)
        self.what = "no private directory for sockets on %s (%s)" % (os.uname()[1], listed)
        self.advice = (
            "Set FARKERNEL_RUN_DIR to a directory on a local disk there, owned by you, mode 0700, "
            "with a path of at most %d bytes" % LONGEST_DIRECTORY
        )
        Exception.__init__(self, "%s. %s" % (self.what, self.advice))


def private_directory():
    # type: () -> str
    """The directory (0700, ours, no symlink) that all of this user's logins here find; raises `PlaceError`."""
    tried = []
    for candidate in candidates():
        try:
            claim(candidate)
        except (OSError, ValueError) as error:
            tried.append((candidate, getattr(error, "strerror", None) or str(error)))
        else:
            return candidate
    raise PlaceError(tried)


def candidates():
    # type: () -> list[str]
    """In a fixed order, as far as possible the same for every login: a second login must find the first one's
    agent.

    XDG_RUNTIME_DIR is not first because logind removes it, sockets and all, at the last logout of a user
    without lingering (pam_systemd(8)), and because cron, batch jobs and su have none.
    """
    chosen = os.environ.get("FARKERNEL_RUN_DIR")
    if chosen:
        return [os.path.abspath(chosen)]
    ours = "farkernel-%d" % os.getuid()
    found = ["/tmp/" + ours]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        found.append(os.path.join(runtime, "farkernel"))
    found += ["/var/tmp/" + ours, "/dev/shm/" + ours]
    home = os.path.expanduser("~")
    if home.startswith("/"):
        # A home is often shared by many machines, and a socket only means something on its own.
        found.append(os.path.join(home, ".cache", "farkernel", "run-" + os.uname()[1]))
    return found


def claim(path):
    # type: (str) -> None
    """Make sure that `path` is a private directory of ours; raises OSError or ValueError, which say why not."""
    if len(os.fsencode(path) if hasattr(os, "fsencode") else path) > LONGEST_DIRECTORY:
        raise ValueError("its path is too long for the names of sockets")
    parent = os.path.dirname(path)
    if os.sep + ".cache" + os.sep in path and not os.path.isdir(parent):
        os.makedirs(parent, 0o700)
    open_to_all = os.stat(parent).st_mode
    if open_to_all & 0o022 and not open_to_all & stat.S_ISVTX:
        raise ValueError("others could rename it: %s is writable for them and not sticky" % parent)
    try:
        os.mkdir(path, 0o700)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise
    # lstat, and not "does it exist": in /tmp anybody may have put a symlink or a directory of their own
    # there.
    seen = os.lstat(path)
    if stat.S_ISLNK(seen.st_mode):
        raise ValueError("it is a symbolic link")
    if not stat.S_ISDIR(seen.st_mode):
        raise ValueError("it is not a directory")
    if seen.st_uid != os.geteuid():
        raise ValueError("it belongs to user %d" % seen.st_uid)
    if stat.S_IMODE(seen.st_mode) != 0o700:
        os.chmod(path, 0o700)
    if not os.access(path, os.W_OK | os.X_OK):
        raise ValueError("it is not writable")


def lock_directory(path):
    # type: (str) -> int | None
    """Hold it for ourselves; the descriptor that must stay open, or None: somebody else holds it.

    The directory itself is locked, and not a file in it, because that also keeps systemd-tmpfiles(8) from cleaning it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if flock(descriptor):
            return descriptor
    except (IOError, OSError):
        # NFS wants an exclusive lock on something opened for writing (flock(2)).
        os.close(descriptor)
        descriptor = os.open(os.path.join(path, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        if flock(descriptor):
            return descriptor
    os.close(descriptor)
    return None


def flock(descriptor):
    # type: (int) -> bool
    """Whether it could be locked now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (IOError, OSError) as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def subdirectory(*parts):
    # type: (*str) -> str
    """A directory below a private one, made if missing, 0700 whatever the umask."""
    path = parts[0]
    for part in parts[1:]:
        path = os.path.join(path, part)
        try:
            os.mkdir(path, 0o700)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
    return path


def short_name(name, longest):
    # type: (str, int) -> str
    """`name` as one short path component: itself where it is harmless, else the beginning of its hash."""
    if len(name) <= longest and re.match(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z", name):
        return name
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:longest]


def agent_directory(private, allocation):
    # type: (str, str) -> str
    """Where the agent of an allocation keeps its socket and its kernels; made if missing."""
    return subdirectory(private, "agents", short_name(allocation, 16))
