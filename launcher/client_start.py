"""Starting the keeper: exactly one, however many front ends want it at the same time."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .client import connect
from .client_protocol import LISTENS
from .errors import FarkernelError

START_DEADLINE = 15.0
LOG_TAIL = 2000

# The keeper must be nobody's child (no zombie in a notebook server, no death with a terminal), and must not
# inherit ignored signals: a server started with nohup ignores SIGINT, its local kernels would then do so too,
# and could never be interrupted.
_DETACH = """
import os, signal, sys
if os.fork() == 0:
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            try:
                signal.signal(number, signal.SIG_DFL)
            except (OSError, ValueError):
                pass
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o077)
    os.execv(sys.argv[1], sys.argv[1:])
"""

# They tell of the front end that happened to come first, not of the keeper.
_NOT_PASSED_ON = ("JPY_PARENT_PID", "JPY_SESSION_NAME", "JPY_API_TOKEN", "JUPYTERHUB_API_TOKEN")


class KeeperStartFailed(FarkernelError):
    kind = "keeper-start-failed"

    def __init__(self, why: str, directory: str) -> None:
        log = os.path.join(directory, "log")
        tail = log_tail(log)
        ending = f" The end of its log: {tail}" if tail else ""
        super().__init__(f"the keeper could not be started: {why}", f"See {log}.{ending}")


def start_keeper(directory: str, deadline: float = START_DEADLINE) -> None:
    """Return when a keeper listens in `directory`; raises `KeeperStartFailed`.  Blocks."""
    end = time.monotonic() + deadline
    os.makedirs(directory, mode=0o700, exist_ok=True)
    with _start_lock(directory, end):
        if _listens(directory):
            return
        while True:
            ready = _spawn(directory)
            try:
                if _is_ready(ready, directory, end):
                    return
            finally:
                os.close(ready)


@contextmanager
def _start_lock(directory: str, end: float) -> Iterator[None]:
    lock = os.open(
        os.path.join(directory, "start.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # Another front end is starting it; flock has no deadline of its own.
                if time.monotonic() > end:
                    raise KeeperStartFailed(
                        "another process is at it, and does not finish", directory
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(lock)


def _listens(directory: str) -> bool:
    sock = connect(os.path.join(directory, "socket"))
    if sock is None:
        return False
    sock.close()
    return True


def keeper_command(ready: int) -> list[str]:
    """What runs the keeper; -P, so that no file beside the current directory's can stand in for a module."""
    return [sys.executable, "-P", "-m", f"{__package__}.keeper", "--ready-fd", str(ready)]


def _spawn(directory: str) -> int:
    """Start the keeper, detached; returns the pipe on which it says that it listens."""
    ready, its_end = os.pipe()
    try:
        log = os.open(
            os.path.join(directory, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600
        )
        try:
            environment = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
            subprocess.run(
                [sys.executable, "-I", "-S", "-c", _DETACH, *keeper_command(its_end)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # What Python itself has to say before the keeper's own log is open (a broken environment).
                stderr=log,
                cwd="/",
                env=environment,
                pass_fds=(its_end,),
                start_new_session=True,
                check=True,
                timeout=START_DEADLINE,
            )
        finally:
            os.close(log)
    except (OSError, subprocess.SubprocessError) as error:
        os.close(ready)
        raise KeeperStartFailed(str(error), directory) from None
    finally:
        os.close(its_end)
    return ready


def _is_ready(ready: int, directory: str, end: float) -> bool:
    """Whether a keeper listens; False: the one that held the lock was about to end, so start another."""
    poller = select.poll()
    poller.register(ready, select.POLLIN)
    if not poller.poll(max(end - time.monotonic(), 0.0) * 1000):
        raise KeeperStartFailed("it did not say that it listens within the time given", directory)
    said = os.read(ready, 4096).decode("utf-8", "replace")
    if said.startswith(LISTENS):
        return True
    if said:
        raise KeeperStartFailed(said.rstrip("."), directory)
    # It closed the pipe without a word: another keeper holds the lock and is starting or ending, or it died.
    others = 0
    while not _listens(directory):
        if lock_holder(directory) is None:
            if others:
                return False
            raise KeeperStartFailed("it ended at once", directory)
        others += 1
        if time.monotonic() > end:
            raise KeeperStartFailed("another keeper holds the lock, and does not listen", directory)
        time.sleep(0.02)
    return True


def lock_holder(directory: str) -> int | None:
    """The process id of the keeper that runs in `directory`, whether it listens or not."""
    try:
        lock = os.open(os.path.join(directory, "lock"), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(lock, 32).decode("ascii", "replace").strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(lock)
    return None


def log_tail(path: str, size: int = LOG_TAIL) -> str:
    """The last lines of the keeper's log on one line, or nothing."""
    try:
        with open(path, "rb") as log:
            log.seek(max(os.fstat(log.fileno()).st_size - size, 0))
            text = log.read(size).decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-3:])
