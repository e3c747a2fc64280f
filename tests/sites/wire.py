"""A TCP wire to a server on loopback that can be cut, silenced, slowed and narrowed, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .ssh import free_port

_PIECE = 16 * 1024


class Wire:
    """Listens on ``port``, and carries what comes there to another one; attributes may be set at any time.

    ``delay``: seconds one way; ``rate``: bytes per second and direction; ``silent``: nothing gets through, and nobody is
    told (a pulled cable); ``cut_after``: gives for each new connection after how many bytes, in one direction chosen
    by it, both sides are closed.
    """

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.delay = 0.0
        self.rate: float | None = None
        self.cut_after: Callable[[], tuple[int, int]] | None = None
        self.cuts = 0
        self.connections = 0
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._through = asyncio.Event()
        self._links: set[_Link] = set()
        self._stop = asyncio.Event()
        self._listening = threading.Event()

    def __repr__(self) -> str:
        return f"<Wire to {self._target}, {self.connections} connections, {self.cuts} cuts>"

    def silence(self) -> None:
        """The cable is pulled."""
        self._loop.call_soon_threadsafe(self._through.clear)

    def heal(self) -> None:
        """It is plugged in again; what was sent meanwhile arrives late, as TCP's repetitions do."""
        self._loop.call_soon_threadsafe(self._through.set)

    def cut(self) -> None:
        """Both ends of every connection are closed now."""
        self._loop.call_soon_threadsafe(self._cut_all)

    def _cut_all(self) -> None:
        for link in list(self._links):
            self.cuts += 1
            link.close()

    @contextmanager
    def running(self) -> Iterator[Wire]:
        thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))
        thread.start()
        try:
            assert self._listening.wait(10)
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            thread.join(10)
            self._loop.close()

    async def _run(self) -> None:
        self._through.set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self._listening.set()
        await self._stop.wait()
        server.close()
        for link in list(self._links):
            link.close()
        await server.wait_closed()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await self._through.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        link = _Link(self, writer, far_writer)
        self._links.add(link)
        try:
            await asyncio.gather(link.carry(0, reader, far_writer), link.carry(1, far_reader, writer))
        finally:
            self._links.discard(link)
            link.close()

    async def pass_on(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.rate:
            await asyncio.sleep(len(data) / self.rate)
        await self._through.wait()
        writer.write(data)
        await writer.drain()


class _Link:
    """One connection through the wire."""

    def __init__(self, wire: Wire, *writers: asyncio.StreamWriter) -> None:
        self._wire = wire
        self._writers = writers
        self._direction, self._left = (0, -1) if wire.cut_after is None else wire.cut_after()

    def close(self) -> None:
        for writer in self._writers:
            with contextlib.suppress(OSError, RuntimeError):
                writer.transport.abort()

    async def carry(self, direction: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_PIECE):
                if self._left >= 0 and direction == self._direction:
                    data, self._left = data[: self._left], self._left - len(data)
                    if self._left < 0:
                        await self._cut_at(data, writer)
                        return
                await self._wire.pass_on(data, writer)
            writer.write_eof()

    async def _cut_at(self, last: bytes, writer: asyncio.StreamWriter) -> None:
        """The byte before the cut still gets through."""
        await self._wire.pass_on(last, writer)
        writer.write_eof()
        self._wire.cuts += 1
        self.close()
