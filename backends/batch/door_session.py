"""TLS over a stream that is there already: what it makes of bytes, and the stream that looks like any other.

The far end is the door of a job (launcher/agent/errands/doorway.py), the stream is a relay's on the login host.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence

from ...launcher.agent.errands.doorway import context
from ..contract import Buffer, Receiver, RouteError, Stream
from .door_keys import DoorKeys

_GREETING_DEADLINE = 20.0


class DoorRefused(RouteError):
    """Something is there, and it is not the job's door."""

    def __init__(self, place: str, why: str) -> None:
        super().__init__(
            f"what listens for {place} is not its door: {why}",
            "Another program may have its port; other ways are tried",
        )


class Session:
    """One end of the conversation, without any I/O: bytes of the wire in and out."""

    def __init__(self, keys: DoorKeys) -> None:
        self._expected = keys.job_certificate
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context(ssl.PROTOCOL_TLS_CLIENT, keys.keeper, keys.job)
        self._tls = tls.wrap_bio(self._in, self._out)
        self.greeted = False
        self.over = False

    def __repr__(self) -> str:
        return f"<Session {'over' if self.over else 'open' if self.greeted else 'greeting'}>"

    def greet(self) -> None:
        """Go on with the handshake as far as it goes.  Raises `ssl.SSLError`; ValueError: another certificate."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        if self._tls.getpeercert(True) != self._expected:
            raise ValueError("it has another certificate")
        self.greeted = True

    def receive(self, data: bytes) -> list[bytes]:
        """Bytes of the wire; what they say.  Raises `ssl.SSLError`."""
        self._in.write(data)
        if not self.greeted:
            self.greet()
        found: list[bytes] = []
        while self.greeted and not self.over:
            try:
                piece = self._tls.read(1 << 16)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                piece = b""
            if piece:
                found.append(piece)
            else:
                self.over = True
        return found

    def send(self, buffers: Sequence[Buffer]) -> None:
        for buffer in buffers:
            if len(buffer):
                self._tls.write(buffer)

    def bye(self) -> None:
        """No more will be sent."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            return  # the other end has not said goodbye, and need not

    def outgoing(self) -> bytes:
        """For the wire."""
        return self._out.read()


class DoorStream:
    """The stream inside of the session, and the receiver of the one outside of it."""

    def __init__(self, keys: DoorKeys, receiver: Receiver) -> None:
        self._session = Session(keys)
        self._receiver = receiver
        self._outer: Stream | None = None
        self._closed = False
        self._greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<DoorStream {self._session!r} over {self._outer!r}>"

    async def greet(self, outer: Stream, place: str) -> None:
        """Over that stream.  Raises `DoorRefused`; the stream is closed then."""
        self._outer = outer
        try:
            self._session.greet()
            self._flush()
            async with asyncio.timeout(_GREETING_DEADLINE):
                await self._greeted
        except (ssl.SSLError, ValueError, EOFError) as error:
            self.close()
            raise DoorRefused(place, str(getattr(error, "reason", None) or error)) from None
        except TimeoutError:
            self.close()
            raise DoorRefused(place, f"it does not greet within {_GREETING_DEADLINE:g} s") from None
        except BaseException:
            self.close()
            raise

    # Stream

    @property
    def buffered(self) -> int:
        return self._outer.buffered if self._outer is not None else 0

    def write(self, buffers: Sequence[Buffer]) -> None:
        if not self._closed:
            self._session.send(buffers)
            self._flush()

    def close(self, dead: bool = False) -> None:
        if self._closed or self._outer is None:
            return
        self._closed = True
        if self._session.greeted:
            self._session.bye()
            self._flush()
        self._outer.close(dead)

    # Receiver

    def data_received(self, data: bytes) -> None:
        try:
            pieces = self._session.receive(data)
        except (ssl.SSLError, ValueError) as error:
            self._broken(error)
            return
        self._flush()
        if self._session.greeted and not self._greeted.done():
            self._greeted.set_result(None)
        for piece in pieces:
            self._receiver.data_received(piece)
        if self._session.over:
            self.close()

    def writable(self) -> None:
        if self._greeted.done():
            self._receiver.writable()

    def closed(self, said: str) -> None:
        self._closed = True
        if self._greeted.done() and self._greeted.exception() is None:
            self._receiver.closed(said)
        elif not self._greeted.done():
            self._greeted.set_exception(EOFError(said or "it closes the connection"))

    # inside

    def _broken(self, error: Exception) -> None:
        if not self._greeted.done():
            self._greeted.set_exception(error)
        elif self._outer is not None:
            self._outer.close()

    def _flush(self) -> None:
        data = self._session.outgoing()
        if data and self._outer is not None:
            self._outer.write([data])
