"""A command's stdin and stdout as a channel of paramiko's, read and written by two threads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import paramiko

from .contract import Buffer, Receiver
from .ssh_connections import Done
from .ssh_errors import broke

_STDERR_KEPT = 4096
_AFTER_EOF = 1.0  # for what still comes on stderr


class ThreadedStream:
    """A channel with a thread that reads it and one that writes it.  Everything else happens in the loop."""

    def __init__(self, channel: paramiko.Channel, receiver: Receiver, done: Done) -> None:
        self._channel = channel
        self._receiver = receiver
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._said = b""
        self._ended = False
        self._dead = False
        self._buffered = 0
        self._pending: deque[memoryview] = deque()
        self._changed = threading.Condition()
        self.gone = asyncio.Event()
        for work in (self._read, self._write):
            threading.Thread(target=work, name="ssh stream", daemon=True).start()

    def __repr__(self) -> str:
        return f"<ThreadedStream, {'ended' if self._ended else f'{self._buffered} bytes waiting'}>"

    @property
    def buffered(self) -> int:
        return self._buffered

    def write(self, buffers: Sequence[Buffer]) -> None:
        if self._ended:
            return
        with self._changed:
            for buffer in buffers:
                if len(buffer):
                    self._pending.append(memoryview(buffer).cast("B"))
                    self._buffered += len(self._pending[-1])
            self._changed.notify()

    def close(self, dead: bool = False) -> None:
        if not self._ended:
            self._dead = dead
            self._end("")
            if dead:
                self._over()

    # in the loop

    def _received(self, data: bytes) -> None:
        if not self._ended:
            self._receiver.data_received(data)

    def _written(self, size: int) -> None:
        self._buffered -= size
        if not self._buffered and not self._ended:
            self._receiver.writable()

    def _end(self, why: str) -> None:
        if self._ended:
            return
        self._ended = True
        with self._changed:
            self._pending.clear()
            self._buffered = 0
            self._changed.notify()
        self._receiver.closed(self._said.decode("utf-8", "replace").strip() or why)
        # It takes a lock that a thread may hold while it writes to a dead host.
        threading.Thread(target=self._shut, name="ssh close", daemon=True).start()

    def _over(self) -> None:
        if not self.gone.is_set():
            self.gone.set()
            self._done(self._dead)

    # in threads

    def _call(self, act: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(act, *arguments)

    def _shut(self) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.close()
        self._call(self._over)

    def _read(self) -> None:
        why = ""
        try:
            while data := self._channel.recv(256 * 1024):
                self._call(self._received, data)
                self._keep_stderr()
            self._channel.status_event.wait(_AFTER_EOF)
        except (OSError, EOFError) as error:
            why = broke(error)
        self._keep_stderr()
        transport = self._channel.get_transport()
        if not transport.is_active():
            why = why or "the connection was lost"
        self._call(self._end, why)

    def _keep_stderr(self) -> None:
        while self._channel.recv_stderr_ready():
            data = self._channel.recv_stderr(65536)
            if not data:
                return
            self._said = (self._said + data)[-_STDERR_KEPT:]

    def _write(self) -> None:
        while True:
            with self._changed:
                while not self._pending and not self._ended:
                    self._changed.wait()
                if self._ended:
                    return
                piece = self._pending.popleft()
            try:
                self._channel.sendall(piece)  # type: ignore[arg-type]  # it slices and copies
            except (OSError, EOFError):
                return  # the reader says so
            self._call(self._written, len(piece))
