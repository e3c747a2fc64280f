"""A board at another machine, as a process beside the keeper reaches it: over the keeper's link to that machine."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

from ...backends.contract import Receiver
from ..address import Address
from ..client import KeeperClient
from ..client_async import request
from ..errors import FarkernelError, RemoteError
from .contract import SerialOptions
from .errors import BoardError, BoardGone, BoardUnreachable
from .far_serial import FarProblem
from .holding import own_purpose
from .line_frames import Frame, FrameError, FrameReader, pack

_DEADLINE = 90.0  # with a login that asks somebody
_ANSWER = 30.0


class KeptLine:
    """A `contract.Transport`.  How the machine is reached, the keeper knows from the target with that address."""

    windowed = True
    pause = 0.0  # the agent makes the pauses, where the line is

    def __init__(self, address: Address, options: SerialOptions | None = None) -> None:
        self._address = address
        self._options = options or SerialOptions()
        self._client: KeeperClient | None = None
        self._line: _Line | None = None

    def __repr__(self) -> str:
        return f"<KeptLine {self.describe()}, {'open' if self.is_open else 'closed'}>"

    def describe(self) -> str:
        return f"{self._address.path} on {self._address.host}"

    @property
    def is_open(self) -> bool:
        return self._line is not None

    @property
    def buffered(self) -> int:
        return 0  # what the link holds is sent again if need be: nobody has to wait for it

    async def open(self, receiver: Receiver) -> None:
        client = self._client = KeeperClient()
        line: _Line | None = None
        try:
            answer = await request(client, "line", _DEADLINE, address=str(self._address), **self._wishes())
            _, line = await asyncio.get_running_loop().create_unix_connection(
                lambda: _Line(receiver, self._ended), str(answer["path"])
            )
            async with asyncio.timeout(_DEADLINE):
                await line.answer()
            self._line = line
        except BaseException as error:
            if line is not None:
                line.close()
            self.close()
            raise self._translated(error) from error

    def _wishes(self) -> dict[str, Any]:
        options = self._options
        return {
            "baud": options.baud,
            "dtr": options.dtr,
            "rts": options.rts,
            "purpose": f"{own_purpose()} at {socket.gethostname()}",
        }

    def _translated(self, error: BaseException) -> BaseException:
        if isinstance(error, RemoteError):
            if error.remote_kind == BoardGone.kind:
                return BoardGone(self.describe())
            if error.remote_kind.startswith("board-"):
                return FarProblem(error.remote_kind, error.what, error.advice)
        if isinstance(error, FarkernelError):
            return BoardUnreachable(f"{self.describe()} cannot be reached: {error.what}", error.advice)
        if isinstance(error, OSError | TimeoutError):
            advice = "See what is in the way: farkernel doctor with the target's name"
            return BoardUnreachable(
                f"{self.describe()} cannot be reached: {str(error) or 'no answer'}", advice
            )
        return error

    def write(self, data: bytes) -> None:
        if self._line is not None and data:
            self._line.send(Frame.WRITE, data)

    def paste(self, code: bytes) -> None:
        if self._line is not None:
            self._line.send(Frame.PASTE, code)

    async def signals(self, dtr: bool | None, rts: bool | None) -> None:
        if self._line is None:
            raise BoardGone(self.describe())
        self._line.send(Frame.SIGNALS, json.dumps({"dtr": dtr, "rts": rts}).encode())
        try:
            async with asyncio.timeout(_ANSWER):
                await self._line.answer()
        except (FarkernelError, TimeoutError) as error:
            raise self._translated(error) from error

    def close(self) -> None:
        line, self._line = self._line, None
        client, self._client = self._client, None
        if line is not None:
            line.close()
        if client is not None:
            # It ends its thread, which may take a moment: not in the loop.
            asyncio.get_running_loop().run_in_executor(None, client.close)

    def _ended(self, receiver: Receiver, why: str) -> None:
        if self._line is not None:
            self.close()
            receiver.closed(why)


class _Line(asyncio.Protocol):
    """The connection to the keeper."""

    def __init__(self, receiver: Receiver, ended: Callable[[Receiver, str], None]) -> None:
        self._receiver = receiver
        self._ended = ended
        self._frames = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._answers: asyncio.Queue[BoardError | RemoteError | None] = asyncio.Queue()
        self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            for kind, content in self._frames.feed(data):
                self._take(kind, content)
        except FrameError as error:
            self._finish(f"the keeper is of another version ({error})")

    def _take(self, kind: Frame, content: bytes) -> None:
        if kind is Frame.DATA:
            self._receiver.data_received(content)
        elif kind is Frame.PROBLEM:
            self._answers.put_nowait(RemoteError.from_dict(json.loads(content)))
        elif kind is Frame.CLOSED:
            self._finish(content.decode("utf-8", "replace"))
        else:
            self._answers.put_nowait(None)

    async def answer(self) -> None:
        """The next answer; raises what it says."""
        error = await self._answers.get()
        if error is not None:
            raise error

    def send(self, kind: Frame, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(pack(kind, data))

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish("the keeper has ended")

    def close(self) -> None:
        self._over = True
        if self._transport is not None:
            self._transport.close()

    def _finish(self, why: str) -> None:
        if not self._over:
            self._over = True
            self._answers.put_nowait(RemoteError("line", why, "Try again"))
            self._ended(self._receiver, why)
            if self._transport is not None:
                self._transport.close()
