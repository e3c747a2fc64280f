"""`local:` targets: this machine, by the same agent and link as anywhere else."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import subprocess
from collections import deque
from collections.abc import Callable, Sequence

from ..launcher.configuration import Target
from .contract import Buffer, Receiver, RouteError, User

_READ_SIZE = 256 * 1024
_PIPE_SIZE = 1024 * 1024  # the most that an ordinary user may ask for (fs.pipe-max-size)
_MOST_BUFFERS = 512  # below IOV_MAX
_STDERR_KEPT = 4096


class ProcessStream:
    """The pipes of a process on this machine.  Closing them is all that ends it: whoever holds the
    other ends sees EOF.
    """

    def __init__(self, process: subprocess.Popen[bytes], receiver: Receiver) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ValueError("the process must have been started with three pipes")
        self._process = process
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._pending: deque[memoryview] = deque()
        self._buffered = 0
        self._said = b""
        self._closed = False
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        for pipe in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(pipe.fileno(), False)
        for pipe in (self._stdin, self._stdout):
            with contextlib.suppress(
                OSError
            ):  # the user's share of pipe memory may be used up: smaller is only slower
                fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        self._loop.add_reader(self._stdout.fileno(), self._read)
        self._loop.add_reader(self._stderr.fileno(), self._read_stderr)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self._buffered} bytes waiting"
        return f"<ProcessStream of process {self._process.pid}, {state}>"

    @property
    def buffered(self) -> int:
        return self._buffered

    def write(self, buffers: Sequence[Buffer]) -> None:
        if self._closed:
            return
        idle = not self._pending
        for buffer in buffers:
            if len(buffer):
                self._pending.append(memoryview(buffer).cast("B"))
                self._buffered += len(self._pending[-1])
        if idle and self._pending:
            self._write()
            if self._pending and not self._closed:
                self._loop.add_writer(self._stdin.fileno(), self._on_writable)

    def close(self) -> None:
        if not self._closed:
            self._end()

    def _on_writable(self) -> None:
        self._write()
        if not self._pending and not self._closed:
            self._loop.remove_writer(self._stdin.fileno())
            self._receiver.writable()

    def _write(self) -> None:
        try:
            while self._pending:
                first = [self._pending[i] for i in range(min(len(self._pending), _MOST_BUFFERS))]
                self._forget(os.writev(self._stdin.fileno(), first))
        except BlockingIOError:
            pass
        except OSError:
            # The reader is gone.  What it said before may still be in the other pipe: its EOF ends us.
            self._pending.clear()
            self._buffered = 0

    def _forget(self, written: int) -> None:
        self._buffered -= written
        while written:
            first = self._pending[0]
            if len(first) > written:
                self._pending[0] = first[written:]
                return
            written -= len(first)
            self._pending.popleft()

    def _read(self) -> None:
        try:
            data = os.read(self._stdout.fileno(), _READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._receiver.data_received(data)
        else:
            self._read_stderr()
            self._end()

    def _read_stderr(self) -> None:
        if self._closed:
            return
        try:
            data = os.read(self._stderr.fileno(), 65536)
        except OSError:
            return
        self._said = (self._said + data)[-_STDERR_KEPT:]
        if not data:
            self._loop.remove_reader(self._stderr.fileno())

    def _end(self) -> None:
        self._closed = True
        self._loop.remove_reader(self._stdout.fileno())
        self._loop.remove_reader(self._stderr.fileno())
        self._loop.remove_writer(self._stdin.fileno())
        self._pending.clear()
        self._buffered = 0
        for pipe in (self._stdin, self._stdout, self._stderr):
            with contextlib.suppress(OSError):
                pipe.close()
        self._receiver.closed(self._said.decode("utf-8", "replace").strip())
        self._loop.create_task(self._reap())

    async def _reap(self) -> None:
        """Collect the exit status; a process that does not notice its closed pipes is ended."""
        for _ in range(50):
            if self._process.poll() is not None:
                return
            await asyncio.sleep(
                0.1
            )  # no event can be had for a child without taking over SIGCHLD for the whole process
        self._process.kill()
        self._process.wait()


class LocalRoute:
    """Starts the command as a child of the keeper."""

    def __init__(self, user: User) -> None:
        self._user = user

    async def open(self, command: Sequence[str], receiver: Receiver) -> ProcessStream:
        try:
            process = subprocess.Popen(  # noqa: ASYNC220 - posix_spawn of a shell: under a millisecond
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                env={**os.environ, **self._user.environment()},
                start_new_session=True,
            )
        except OSError as error:
            raise RouteError(
                f"cannot start {command[0]} on this machine: {error.strerror}",
                "Is the machine out of processes or memory?",
            ) from error
        return ProcessStream(process, receiver)


class LocalAllocation:
    """This machine: always there, nothing to give back."""

    name = "host"

    def __init__(self, user: User) -> None:
        self._route = LocalRoute(user)

    async def ready(self, report: Callable[[str], None]) -> LocalRoute:
        return self._route

    async def release(self) -> None:
        """Nothing was taken."""


class LocalBackend:
    def key(self, target: Target, kernel: str | None) -> str:
        return "local:"

    def door(self, target: Target, user: User) -> LocalRoute:
        return LocalRoute(user)

    def allocate(self, target: Target, kernel: str | None, user: User) -> LocalAllocation:
        return LocalAllocation(user)


BACKEND = LocalBackend()
