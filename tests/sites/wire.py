"""A TCP wire to a server on loopback that can be cut, silenced, slowed and narrowed, in a thread of its own.

What is on its way does not hold up what follows it: a long wire is as wide as a short one.  (For a network that is
really gone, with its packets, see `netns`.)
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .ssh import Sshd, free_port

TO_SERVER, TO_CLIENT = 0, 1
_PIECE = 16 * 1024
_ON_THE_WAY = 64 * 1024 * 1024
_PIECES_A_SECOND = 50  # of a narrow wire: what comes between two pieces waits for one of them


@dataclass(frozen=True)
class Cut:
    """How much had got through to the server and to the client when a connection was cut."""

    to_server: int
    to_client: int


class Wire:
    """Listens on ``port``, and carries what comes there to another one; attributes may be set at any time.

    ``delay``: seconds one way; ``rate``: bytes per second and direction, for all connections together, of which
    ``queue`` seconds' worth wait at its end; ``cut_after``: gives for each new connection after how many bytes, in one
    direction chosen by it, both sides are closed (a negative number: never).
    """

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.delay = 0.0
        self.rate: float | None = None
        self.queue = 0.1
        self.cut_after: Callable[[], tuple[int, int]] | None = None
        self.cuts: list[Cut] = []
        self.connections = 0
        self.carried = [0, 0]
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._through = asyncio.Event()
        self._free_at = [0.0, 0.0]  # when the last bit of what is on the way has left
        self._links: set[_Link] = set()
        self._stop = asyncio.Event()
        self._listening = threading.Event()

    def __repr__(self) -> str:
        return f"<Wire to {self._target}, {self.connections} connections, {len(self.cuts)} cuts>"

    def silence(self) -> None:
        """The cable is pulled: nothing gets through, and nobody is told."""
        self._loop.call_soon_threadsafe(self._through.clear)

    def heal(self) -> None:
        """It is plugged in again; what was sent meanwhile arrives late, as TCP's repetitions do."""
        self._loop.call_soon_threadsafe(self._through.set)

    def strand(self) -> None:
        """The client has another address now: its old connections are silent for ever, new ones are not."""
        self._loop.call_soon_threadsafe(self._strand_all)

    def cut(self) -> None:
        """Both ends of every connection are closed now."""
        self._loop.call_soon_threadsafe(self._cut_all)

    def _strand_all(self) -> None:
        for link in self._links:
            link.stranded = True

    def _cut_all(self) -> None:
        for link in list(self._links):
            link.cut()

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
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await self._through.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(self, writer, far_writer)
        self._links.add(link)
        try:
            with contextlib.suppress(
                asyncio.CancelledError
            ):  # the wire is taken away: asyncio would complain
                await asyncio.gather(
                    link.directions[TO_SERVER].carry(reader, far_writer),
                    link.directions[TO_CLIENT].carry(far_reader, writer),
                )
        finally:
            self._links.discard(link)
            link.close()

    # what a connection asks of the line

    @property
    def piece(self) -> int:
        rate = self.rate
        return _PIECE if rate is None else max(256, min(_PIECE, int(rate / _PIECES_A_SECOND)))

    async def arrival(self, direction: int, size: int) -> float:
        """When so many bytes will be at the other end, which are put on the line as soon as it has room for them."""
        now = self._loop.time()
        if self.rate is not None:
            while self._free_at[direction] - now > self.queue:
                await asyncio.sleep(self._free_at[direction] - now - self.queue)
                now = self._loop.time()
            now = self._free_at[direction] = max(now, self._free_at[direction]) + size / self.rate
        return now + self.delay

    async def get_through(self, due: float, link: _Link) -> None:
        """Wait until then, and for the cable; for ever on a connection that has no other end any more."""
        if (wait := due - self._loop.time()) > 0:
            await asyncio.sleep(wait)
        await self._through.wait()
        if link.stranded:
            await self._loop.create_future()


class _Link:
    """One connection through the wire."""

    def __init__(self, wire: Wire, *writers: asyncio.StreamWriter) -> None:
        self.wire = wire
        self.stranded = False
        self._writers = writers
        direction, left = (TO_SERVER, -1) if wire.cut_after is None else wire.cut_after()
        self.directions = [_Direction(self, each, left if each == direction else -1) for each in (0, 1)]
        self._closed = False

    def close(self) -> None:
        self._closed = True
        for writer in self._writers:
            with contextlib.suppress(OSError, RuntimeError):
                writer.transport.abort()

    def cut(self) -> None:
        if not self._closed:
            self.wire.cuts.append(Cut(*(each.carried for each in self.directions)))
            self.close()


class _Direction:
    """One of a connection's two: a reader puts pieces on the line, a writer takes them off when they are due."""

    def __init__(self, link: _Link, number: int, left: int) -> None:
        self.carried = 0
        self._link = link
        self._number = number
        self._left = left  # bytes until the cut; negative: none
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reading = asyncio.create_task(self._put(reader))
        try:
            with contextlib.suppress(OSError, RuntimeError):
                await self._take(writer)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _put(self, reader: asyncio.StreamReader) -> None:
        wire, data = self._link.wire, b"begin"
        while data:
            try:
                data = await reader.read(wire.piece)
            except OSError:
                data = b""
            while self._size > _ON_THE_WAY:
                self._room.clear()
                await self._room.wait()
            self._pieces.append((await wire.arrival(self._number, len(data)), data))
            self._size += len(data)
            self._news.set()

    async def _take(self, writer: asyncio.StreamWriter) -> None:
        wire = self._link.wire
        while True:
            while not self._pieces:
                self._news.clear()
                await self._news.wait()
            due, data = self._pieces.popleft()
            self._size -= len(data)
            self._room.set()
            await wire.get_through(due, self._link)
            if not data:
                writer.write_eof()
                return
            if 0 <= self._left < len(data):
                await self._write(data[: self._left], writer)
                self._link.cut()
                return
            self._left -= len(data) if self._left >= 0 else 0
            await self._write(data, writer)

    async def _write(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        self.carried += len(data)
        self._link.wire.carried[self._number] += len(data)
        await writer.drain()


@contextmanager
def wire_to(host: Sshd) -> Iterator[Wire]:
    """A wire to that server, whose key is known at the wire's near end too."""
    wire = Wire(host.port)
    kind, key = (host.directory / "host_key.pub").read_text().split()[:2]
    with host.known_hosts.open("a") as known:
        known.write(f"[127.0.0.1]:{wire.port} {kind} {key}\n")
    with wire.running():
        yield wire
