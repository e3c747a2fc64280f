"""Serial lines of other machines, for our kernels and commands beside the keeper: the link is the keeper's alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from ...backends.serial import host_of
from ..board.contract import SerialOptions
from ..board.far_serial import FarSerial
from ..board.line_frames import Frame, FrameError, FrameReader, pack
from ..configuration import Target
from ..errors import FarkernelError
from .server import BadRequest, ClientConnection, Handler
from .visits import Owner, Visitor

log = logging.getLogger(__name__)

_MOST_UNSENT = 4 * 1024 * 1024

Resolve = Callable[[str], Target]
"""The target with that address, or one made of it."""


def handlers(owner: Owner, resolve: Resolve, directory: Path) -> dict[str, Handler]:
    """`line`: ``address`` (serial://host/…), ``baud``, ``dtr``, ``rts``, ``purpose`` (what others are told who want it
    too) → ``path``: a socket for one connection.

    What is spoken there: `board.line_frames`.  It ends with the client's connection.
    """

    async def line(client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        target = resolve(str(request.get("address") or ""))
        if target.address.scheme != "serial" or target.address.host is None or target.address.path is None:
            raise BadRequest(f"{target.address} is no board at another machine")
        purpose = str(request.get("purpose") or "")
        opened = Line(owner, target, _options(request), directory, purpose)
        client.on_close["line", opened.name] = opened.close
        await opened.listen()
        return {"path": str(opened.path)}

    return {"line": line}


def _options(request: dict[str, Any]) -> SerialOptions:
    baud, dtr, rts = request.get("baud"), request.get("dtr"), request.get("rts")
    if not isinstance(baud, int) or not isinstance(dtr, bool | None) or not isinstance(rts, bool | None):
        raise BadRequest("baud must be a number, dtr and rts true, false or null")
    return SerialOptions(baud, dtr, rts)


class _FromBoard:
    """The board's bytes on their way to the client: a `backends.contract.Receiver`."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def data_received(self, data: bytes) -> None:
        self._line.send(Frame.DATA, data)

    def writable(self) -> None:
        """Nobody waits for that."""

    def closed(self, said: str) -> None:
        self._line.gone(said)


class Line(asyncio.Protocol):
    """One line and the connection to it."""

    def __init__(
        self, owner: Owner, target: Target, options: SerialOptions, directory: Path, purpose: str
    ) -> None:
        self.name = secrets.token_hex(8)
        self.path = directory / f"line-{self.name}"
        self._target = target
        self._options = options
        self._purpose = purpose
        self._held = owner.allocation_for(host_of(target), None)
        self._visitor = Visitor(self._held)
        self._server: asyncio.Server | None = None
        self._transport: asyncio.Transport | None = None
        self._serial: FarSerial | None = None
        self._frames = FrameReader()
        self._tasks: set[asyncio.Task[None]] = set()
        self._inside = False

    def __repr__(self) -> str:
        return f"<Line {self.name} to {self._target.address}>"

    async def listen(self) -> None:
        """The allocation is held from now on, until the client goes away."""
        self._held.enter(self._visitor, self._visitor.waiting)
        self._inside = True
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: self, self.path)
        os.chmod(self.path, 0o600)

    def _stop_listening(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        self._stop_listening()
        for task in self._tasks:
            task.cancel()
        if self._serial is not None:
            self._serial.close()
        if self._transport is not None:
            self._transport.close()
        if self._inside:
            self._inside = False
            self._held.leave(self._visitor, self._visitor.waiting)
            if not self._visitor.lost.cancel() and not self._visitor.lost.cancelled():
                self._visitor.lost.exception()  # seen

    # the client's connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        # One line, one client.  Not here and now: the server still has to hand the connection over.
        asyncio.get_running_loop().call_soon(self._stop_listening)
        self._soon(self._open())

    def data_received(self, data: bytes) -> None:
        try:
            for kind, content in self._frames.feed(data):
                self._take(kind, content)
        except (FrameError, ValueError, TypeError) as error:
            log.warning("%r: %s", self, error)
            self.close()

    def _take(self, kind: Frame, content: bytes) -> None:
        if self._serial is None:
            return
        if kind is Frame.WRITE:
            self._serial.write(content)
        elif kind is Frame.PASTE:
            self._serial.paste(content)
        elif kind is Frame.SIGNALS:
            wishes = json.loads(content)
            self._soon(self._signals(self._serial, wishes.get("dtr"), wishes.get("rts")))

    def connection_lost(self, exc: Exception | None) -> None:
        self.close()

    def _soon(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self) -> None:
        host = str(self._target.address.host)
        path = str(self._target.address.path)
        serial = FarSerial(self._held.agent, host, path, self._options, self._purpose)
        try:
            # A channel is of one session: there must be one before it is opened.
            await self._unless_lost(self._held.agent.request("list"))
            await self._unless_lost(serial.open(_FromBoard(self)))
            self._serial = serial
            self.send(Frame.OPENED)
        except FarkernelError as error:
            self.send(Frame.PROBLEM, json.dumps(error.as_dict()).encode())

    async def _unless_lost(self, work: Coroutine[Any, Any, Any]) -> None:
        """Await it; raises why the allocation is lost, if that comes first."""
        task = asyncio.ensure_future(work)
        try:
            waits: list[asyncio.Future[Any]] = [task, self._visitor.lost]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if self._visitor.lost.done():
                self._visitor.lost.result()
            task.result()
        finally:
            if not task.done():
                task.cancel()

    async def _signals(self, serial: FarSerial, dtr: bool | None, rts: bool | None) -> None:
        try:
            await serial.signals(dtr, rts)
            self.send(Frame.DONE)
        except FarkernelError as error:
            self.send(Frame.PROBLEM, json.dumps(error.as_dict()).encode())

    def send(self, kind: Frame, data: bytes = b"") -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(pack(kind, data))
        if transport.get_write_buffer_size() > _MOST_UNSENT:
            log.warning("%r: its client does not read", self)
            transport.abort()

    def gone(self, said: str) -> None:
        """The board, or the way to it."""
        self._serial = None
        self.send(Frame.CLOSED, said.encode())
