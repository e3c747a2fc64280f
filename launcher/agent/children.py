"""A program in a process of its own, for what may hang: whatever it wrote until its end or a deadline counts."""

import os
import signal
from typing import Callable, List

from .loop import Loop

LARGEST = 4 << 20


class Child(object):
    """``done`` is called once, with what it wrote on stdout.  Raises OSError when it cannot be started.

    ``given`` is written to its stdin at once: less than a pipe takes (64 KiB), so that this does not wait.
    """

    def __init__(
        self, loop: Loop, argv: List[str], given: bytes, deadline: float, done: Callable[[bytes], None]
    ) -> None:
        import subprocess

        self._loop = loop
        self._done = done
        self._data = b""
        self._child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._stdout = self._child.stdout
        os.set_blocking(self._stdout.fileno(), False)
        try:
            self._child.stdin.write(given)
            self._child.stdin.close()
        except OSError:
            pass  # it ended at once; its silence says so
        self._timer = loop.later(deadline, self._finish)
        loop.watch(self._stdout.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._stdout.fileno(), 65536)
        except BlockingIOError:
            return
        self._data += data
        if not data or len(self._data) > LARGEST:
            self._finish()

    def _finish(self) -> None:
        self._timer.cancel()
        self._loop.forget(self._stdout.fileno())
        self._stdout.close()
        try:
            os.killpg(self._child.pid, signal.SIGKILL)
        except OSError:
            pass  # it has ended by itself
        self._reap()
        self._done(self._data)

    def _reap(self) -> None:
        """A child that hangs in a dead file system cannot even be killed: its end is not waited for."""
        if self._child.poll() is None:
            self._loop.later(1.0, self._reap)
