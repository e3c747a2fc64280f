"""A board's WebREPL: its REPL in text frames of a websocket, behind a password.

The board sends whatever its REPL prints as text frames, UTF-8 or not (the window byte of raw-paste mode is one), and
takes text frames as typed; binary frames are its file protocol, which is not used here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

from ...backends.contract import Receiver
from .errors import BoardBusy, BoardGone, BoardUnreachable, Unsupported
from .websocket import Opcode, Websocket, WebsocketError, encode

PORT = 8266
_DEADLINE = 15.0
#: The board puts what comes into a ring of 256 bytes, and has other things to do than to read them at once.
_PAUSE = 0.035
_PASSWORD, _CONNECTED, _DENIED = b"Password: ", b"WebREPL connected\r\n", b"Access denied"


class WrongPassword(BoardUnreachable):
    """The board refuses the password, or wants one that we have not got."""

    kind = "board-password"

    def __init__(self, where: str, given: bool) -> None:
        super().__init__(
            f"{where} " + ("does not take this password" if given else "wants a password"),
            "Give the target a `password_command` that prints it (`import webrepl_setup` on the board sets one)",
        )


class NoWebRepl(BoardGone):
    """Nothing answers in the network, or not any more."""

    def __init__(self, where: str, detail: str) -> None:
        super().__init__(where, detail)
        self.advice = (
            "Is it switched on, in this network, at this address, and does its boot.py start the WebREPL "
            "(`import webrepl; webrepl.start()`)?"
        )


def _reason(error: OSError) -> str:
    """asyncio puts the address into its words for a refused connection, and gives several of them as one text."""
    if error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)


class WebRepl(asyncio.Protocol):
    """A `contract.Transport`."""

    windowed = False
    pause = _PAUSE

    def __init__(self, host: str, port: int | None = None, password: str = "") -> None:
        self._host = host
        self._port = port or PORT
        self._password = password
        self._receiver: Receiver | None = None
        self._connection: asyncio.Transport | None = None
        self._socket = Websocket(host)
        self._greeting = bytearray()
        self._ready: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<WebRepl at {self._host}:{self._port}, {'open' if self.is_open else 'closed'}>"

    def describe(self) -> str:
        return f"the WebREPL at {self._host}" + ("" if self._port == PORT else f":{self._port}")

    @property
    def is_open(self) -> bool:
        return self._receiver is not None

    @property
    def buffered(self) -> int:
        return self._connection.get_write_buffer_size() if self._connection is not None else 0

    async def open(self, receiver: Receiver) -> None:
        loop = asyncio.get_running_loop()
        self._socket = Websocket(self._host)
        self._greeting.clear()
        self._ready = loop.create_future()
        try:
            async with asyncio.timeout(_DEADLINE):
                await loop.create_connection(lambda: self, self._host, self._port)
                await self._ready
        except TimeoutError:
            self._drop()
            if self._socket.is_open:  # it lets one in at a time, and leaves the second waiting
                raise BoardBusy(
                    self.describe(), "somebody else (it answers, but does not ask for the password)"
                ) from None
            raise NoWebRepl(self.describe(), f"no answer within {_DEADLINE:.0f} s") from None
        except OSError as error:
            raise NoWebRepl(self.describe(), _reason(error)) from None
        except BaseException:
            self._drop()
            raise
        self._receiver = receiver

    def write(self, data: bytes) -> None:
        if self._connection is not None and data:
            self._connection.write(encode(Opcode.TEXT, data))

    def paste(self, code: bytes) -> None:
        raise NotImplementedError("this transport is not windowed")

    async def signals(self, dtr: bool | None, rts: bool | None) -> None:
        raise Unsupported(
            f"{self.describe()} has no control lines that could reset a board",
            "Press the board's reset button",
        )

    def close(self) -> None:
        self._receiver = None
        if self._connection is not None:
            self._connection.write(encode(Opcode.CLOSE, b"\x03\xe8"))
        self._drop(abort=False)

    def _drop(self, abort: bool = True) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            (connection.abort if abort else connection.close)()

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._connection = transport
        transport.write(self._socket.request)

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._socket.receive(data)
        except WebsocketError as error:
            self._broken(
                BoardUnreachable(f"{self.describe()} is no WebREPL: {error}", "Look at host and port")
            )
            return
        for frame in frames:
            if frame.opcode is Opcode.PING and self._connection is not None:
                self._connection.write(encode(Opcode.PONG, frame.payload))
            elif frame.opcode is Opcode.CLOSE:
                self._broken(NoWebRepl(self.describe(), "it has closed the connection"))
            elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION):
                self._take(frame.payload)

    def connection_lost(self, error: Exception | None) -> None:
        self._broken(
            NoWebRepl(self.describe(), "the connection broke" if error else "it has closed the connection")
        )

    def _take(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receiver.data_received(data)
            return
        self._greeting += data
        if self._greeting.endswith(_PASSWORD):
            self._greeting.clear()
            self._asked()
        elif _DENIED in self._greeting:
            self._broken(WrongPassword(self.describe(), bool(self._password)))
        elif _CONNECTED in self._greeting and self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    def _asked(self) -> None:
        if not self._password or not self._password.isprintable():
            self._broken(WrongPassword(self.describe(), False))
        else:
            self.write(self._password.encode() + b"\r\n")

    def _broken(self, error: BoardUnreachable | BoardGone) -> None:
        self._drop()
        receiver, self._receiver = self._receiver, None
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)
        elif receiver is not None:
            with contextlib.suppress(asyncio.InvalidStateError):
                receiver.closed(error.what)
