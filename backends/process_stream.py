"""Streams over file descriptors: the pipes of a process on this machine, or those that an ssh master took over."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import subprocess
from collections import deque
from collections.abc import Callable, Sequence

from .contract import Buffer, Receiver

_READ_SIZE = 256 * 1024
_PIPE_SIZE = 1024 * 1024  # the most that an ordinary user may ask for (fs.pipe-max-size)
_MOST_BUFFERS = 512  # below IOV_MAX
_STDERR_KEPT = 4096


class PipeStream:
    """Three descriptors, which are ours from now on: a command's stdin to write to, its stdout and stderr to read.

    ``on_end`` is called once, after `Receiver.closed`; its argument is that of `close`.
    """

    def __init__(
        self,
        receiver: Receiver,
        stdin: int,
        stdout: int,
        stderr: int,
        on_end: Callable[[bool], None] = lambda dead: None,
    ) -> None:
        self._receiver = receiver
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._pending: deque[memoryview] = deque()
        self._buffered = 0
        self._said = b""
        self._closed = False
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr
        for pipe in (stdin, stdout, stderr):
            os.set_blocking(pipe, False)
        for pipe in (stdin, stdout):
            # The user's share of pipe memory may be used up: smaller is only slower.
            with contextlib.suppress(OSError):
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        self._loop.add_reader(stdout, self._read)
        self._loop.add_reader(stderr, self._read_stderr)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self._buffered} bytes waiting"
        return f"<{type(self).__name__} on {self._stdin} and {self._stdout}, {state}>"

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
                self._loop.add_writer(self._stdin, self._on_writable)

    def close(self, dead: bool = False) -> None:
        if not self._closed:
            self._end(dead)

    def _on_writable(self) -> None:
        self._write()
        if not self._pending and not self._closed:
            self._loop.remove_writer(self._stdin)
            self._receiver.writable()

    def _write(self) -> None:
        try:
            while self._pending:
                first = [self._pending[i] for i in range(min(len(self._pending), _MOST_BUFFERS))]
                self._forget(os.writev(self._stdin, first))
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
            data = os.read(self._stdout, _READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._receiver.data_received(data)
        else:
            self._read_stderr()
            self._end(False)

    def _read_stderr(self) -> None:
        if self._closed:
            return
        try:
            data = os.read(self._stderr, 65536)
        except OSError:
            return
        self._said = (self._said + data)[-_STDERR_KEPT:]
        if not data:
            self._loop.remove_reader(self._stderr)

    def _end(self, dead: bool) -> None:
        self._closed = True
        self._loop.remove_reader(self._stdout)
        self._loop.remove_reader(self._stderr)
        self._loop.remove_writer(self._stdin)
        self._pending.clear()
        self._buffered = 0
        for pipe in (self._stdin, self._stdout, self._stderr):
            with contextlib.suppress(OSError):
                os.close(pipe)
        self._receiver.closed(self._said.decode("utf-8", "replace").strip())
        self._on_end(dead)


class ProcessStream(PipeStream):
    """The stream of a process that was started with three pipes.

    Closing them is all that ends it: whoever holds the other ends sees EOF.
    """

    def __init__(self, process: subprocess.Popen[bytes], receiver: Receiver) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ValueError("the process must have been started with three pipes")
        numbers = []
        for pipe in (process.stdin, process.stdout, process.stderr):
            numbers.append(os.dup(pipe.fileno()))
            pipe.close()
        super().__init__(receiver, numbers[0], numbers[1], numbers[2], self._process_ended)
        self._process = process
        self._reaping: asyncio.Task[None] | None = None

    def _process_ended(self, dead: bool) -> None:
        self._reaping = self._loop.create_task(reap(self._process))


async def reap(process: subprocess.Popen[bytes]) -> None:
    """Collect the exit status; a process that does not notice its closed pipes is ended."""
    for _ in range(50):
        if process.poll() is not None:
            return
        # No event can be had for a child without taking over SIGCHLD for the whole process.
        await asyncio.sleep(0.1)
    process.kill()
    process.wait()
