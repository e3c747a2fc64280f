"""A command's stdin and stdout as an SSH channel of asyncssh's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncssh
from asyncssh.constants import EXTENDED_DATA_STDERR

from .contract import Buffer, Receiver
from .ssh_connections import Done
from .ssh_errors import broke

_STDERR_KEPT = 4096
_AFTER_EOF = 1.0  # for what still comes on stderr


class SessionStream(asyncssh.SSHClientSession[bytes]):
    """The channel's session as asyncssh sees it, the stream as its user does.

    ``closing`` holds it from its `close` until the host has closed the channel too, which counts against MaxSessions.
    """

    def __init__(self, receiver: Receiver, done: Done, closing: set[SessionStream]) -> None:
        self.gone = asyncio.Event()
        self._receiver = receiver
        self._done = done
        self._closing = closing
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._said = b""
        self._ended = False
        self._dead = False
        self._after_eof: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<SessionStream, {'ended' if self._ended else f'{self.buffered} bytes waiting'}>"

    # Stream

    @property
    def buffered(self) -> int:
        return 0 if self._channel is None or self._ended else self._channel.get_write_buffer_size()

    def write(self, buffers: Sequence[Buffer]) -> None:
        if self._ended or self._channel is None:
            return
        for buffer in buffers:
            if len(buffer):
                self._channel.write(buffer)

    def close(self, dead: bool = False) -> None:
        if self._ended:
            return
        self._dead = dead
        if self._channel is not None and not dead:
            self._closing.add(self)
            self._channel.abort()
        self._end("")
        if dead:
            self._gone()

    def forsake(self) -> None:
        """Nobody waits for it any more; it is closed as soon as it has been opened, and counts until then."""
        self._done = _nobody
        self._closing.add(self)

    # the channel's session

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan
        chan.set_write_buffer_limits(0, 0)  # `writable` means that nothing waits here any more

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype == EXTENDED_DATA_STDERR:
            self._said = (self._said + data)[-_STDERR_KEPT:]
        elif not self._ended:
            self._receiver.data_received(data)

    def resume_writing(self) -> None:
        if not self._ended:
            self._receiver.writable()

    def eof_received(self) -> bool:
        self._after_eof = asyncio.get_running_loop().call_later(_AFTER_EOF, self.close)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(broke(exc))
        self._gone()

    def _end(self, why: str) -> None:
        if self._after_eof is not None:
            self._after_eof.cancel()
        if not self._ended:
            self._ended = True
            self._receiver.closed(self._said.decode("utf-8", "replace").strip() or why)

    def _gone(self) -> None:
        if not self.gone.is_set():
            self.gone.set()
            self._closing.discard(self)
            self._done(self._dead)


def _nobody(dead: bool) -> None:
    """Whoever opened it has been told in another way."""
