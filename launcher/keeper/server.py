"""The keeper's request protocol on its unix socket (docs/architecture.md §7)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any

from ... import __version__
from ..client_protocol import PROTOCOL, UNKNOWN_REQUEST
from ..errors import FarkernelError

log = logging.getLogger(__name__)

LONGEST_LINE = 8 * 1024 * 1024
_MOST_UNSENT = 8 * 1024 * 1024

Handler = Callable[["ClientConnection", dict[str, Any]], Awaitable[dict[str, Any]]]


class BadRequest(FarkernelError):
    """A client asked for what the protocol has not got."""

    kind = "usage"

    def __init__(self, what: str) -> None:
        super().__init__(what, "Client and keeper may be of different versions: farkernel keeper restart")


class UnknownRequest(FarkernelError):
    """A client of a later version asked for what came with it."""

    kind = UNKNOWN_REQUEST

    def __init__(self, do: str) -> None:
        super().__init__(
            f"this keeper ({__version__}) does not know the request {do[:40]!r}",
            "Run: farkernel keeper restart (kernels live on)",
        )


class ProtocolMismatch(FarkernelError):
    """A client speaks another version of the protocol."""

    kind = "version"

    def __init__(self, theirs: Any) -> None:
        super().__init__(
            f"this keeper ({__version__}) speaks protocol {PROTOCOL}, the client {str(theirs)[:40]}",
            "Run: farkernel keeper restart (kernels live on)",
        )


class ClientConnection:
    """One client: its greeting, its requests, the events that it asked for."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        handlers: Mapping[str, Handler],
        lend: Callable[[dict[str, str]], None],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._handlers = handlers
        self._lend = lend
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_close: dict[Hashable, Callable[[], None]] = {}

    async def serve(self) -> None:
        """Until the client goes away."""
        try:
            if await self._greet():
                while line := await self._reader.readline():
                    self._take(line)
        except (ConnectionError, ValueError) as error:  # ValueError: a line longer than the limit
            log.info("a client's connection ended: %s", error)
        finally:
            for task in self._tasks:
                task.cancel()
            for callback in list(self.on_close.values()):
                callback()
            self._writer.close()

    def event(self, event: dict[str, Any]) -> None:
        """Tell the client something; one that does not read is cut off, rather than kept in memory."""
        if self._writer.is_closing():
            return
        self._writer.write(json.dumps(event, separators=(",", ":")).encode() + b"\n")
        if self._writer.transport.get_write_buffer_size() > _MOST_UNSENT:
            log.warning("a client does not read what it asked for: cut off")
            self._writer.transport.abort()

    def hang_up(self) -> None:
        """End the conversation after what was said."""
        self._reader.feed_eof()

    async def _greet(self) -> bool:
        try:
            greeting = json.loads(await asyncio.wait_for(self._reader.readline(), 30))
            theirs = greeting["farkernel"]
        except (ValueError, KeyError, TypeError, TimeoutError, RecursionError):
            return False
        if theirs != PROTOCOL:
            self.event(
                {"farkernel": PROTOCOL, "version": __version__, "error": ProtocolMismatch(theirs).as_dict()}
            )
            return False
        lent = greeting.get("environment")
        if isinstance(lent, dict):
            self._lend({str(name): str(value) for name, value in lent.items()})
        self.event({"farkernel": PROTOCOL, "version": __version__, "pid": os.getpid()})
        return True

    def _take(self, line: bytes) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(line))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, line: bytes) -> None:
        number = None
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise BadRequest("a request must be a JSON object")
            number = request.get("id")
            handler = self._handlers.get(str(request.get("do")))
            if handler is None:
                raise UnknownRequest(str(request.get("do")))
            self.event({"id": number, "ok": await handler(self, request)})
        except FarkernelError as error:
            self.event({"id": number, "error": error.as_dict()})
        except (ValueError, RecursionError) as error:
            self.event({"id": number, "error": BadRequest(f"not a request: {error}").as_dict()})
        except Exception as error:
            # The client must get an answer, and the log the traceback: this is a defect of ours.
            log.exception("request failed")
            what = f"the keeper failed on this request ({type(error).__name__})"
            self.event(
                {
                    "id": number,
                    "error": {"kind": "defect", "what": what, "advice": "See: farkernel keeper status"},
                }
            )


class Server:
    """The listening socket and its clients.  ``on_change`` is told how many there are whenever that changes."""

    def __init__(
        self,
        path: str,
        handlers: Mapping[str, Handler],
        lend: Callable[[dict[str, str]], None],
        on_change: Callable[[int], None],
    ) -> None:
        self._path = path
        self._handlers = handlers
        self._lend = lend
        self._on_change = on_change
        self._clients: dict[ClientConnection, asyncio.Task[Any]] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        before = os.umask(0o177)  # the socket is 0600 from its first moment
        try:
            self._server = await asyncio.start_unix_server(
                self._connected, self._path, limit=LONGEST_LINE, backlog=128
            )
        finally:
            os.umask(before)

    async def close(self) -> None:
        """No new clients; those that are there are told that this end was wanted."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        if self._server is not None:
            self._server.close()
        tasks = list(self._clients.values())
        for client in list(self._clients):
            client.event({"event": "end"})
            client.hang_up()
        if tasks:
            await asyncio.wait(tasks, timeout=2)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = ClientConnection(reader, writer, self._handlers, self._lend)
        task = asyncio.current_task()
        assert task is not None
        self._clients[client] = task
        self._on_change(len(self._clients))
        try:
            await client.serve()
        finally:
            del self._clients[client]
            self._on_change(len(self._clients))
