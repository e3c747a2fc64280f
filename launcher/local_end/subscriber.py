"""One subscriber of iopub: its queue, its place in the stream, and writing to its socket."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Protocol

from ..agent.zmtp import Buffer
from .connections import Connection, Owner, State
from .positions import STAGING, TABLE, Slot, Staging, anonymous_slot

BATCH = 32 << 10
# Where a process has several connections, so little is written to one before the others have it too.
SHARED_BATCH = 4 << 10
_BURST = 1 << 20
_SEND_BUFFER = 1 << 18


class Entry:
    """One message for one or several subscribers.  Number 0: not numbered."""

    __slots__ = ("buffers", "number", "size")

    def __init__(self, buffers: Sequence[Buffer], number: int) -> None:
        self.buffers = [memoryview(buffer) for buffer in buffers]
        self.size = sum(view.nbytes for view in self.buffers)
        self.number = number


class SubscriberOwner(Owner, Protocol):
    """The publisher, as a subscriber sees it."""

    staging: Staging

    def turn_of(self, subscriber: SubscriberConnection) -> bool:
        """Whether it may write: the other connections of its process have all that it has."""

    def flush_soon(self, subscriber: SubscriberConnection) -> None:
        """It has more to write; others first."""

    def taken(self, subscriber: SubscriberConnection) -> None:
        """It was given a chance to take something."""


class SubscriberConnection(Connection):
    """One subscriber.  What it has to get is a queue of whole messages; the first may be half written."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, owner: SubscriberOwner) -> None:
        self.publisher = owner
        self.topics: dict[bytes, int] = {}
        self.missed = 0
        self.stalled = False
        self.placed = False
        self.floor = 0
        """messages numbered up to here it has from before"""
        self.shared = False
        """its process has other connections to this kernel"""
        self.last_taken = loop.time()
        self._slot: Slot = anonymous_slot()
        self._slot.take((0, 0), 0, sock.fileno())
        self._entries: deque[Entry] = deque()
        self._index = 0  # in the first entry: the buffer, and …
        self._offset = 0  # … the byte of it that come next
        self._guarded = sock.family == socket.AF_UNIX
        # Enough for whole batches of a large message, and little enough to be soon taken.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        super().__init__(loop, sock, owner)

    def __repr__(self) -> str:
        state = " blocked" if self.blocked else ""
        return f"<{self.state.value}{state} pid={self.pid} at {self.position}, {self.waiting} bytes waiting>"

    @property
    def position(self) -> int:
        return self._slot.position

    def place(self, slot: Slot | None, position: int) -> None:
        """At its first subscription: where it stands, and the slot of a file that says so."""
        if slot is None:
            self._slot.advance(position)
        else:
            self._slot = slot
        self.floor = self._slot.position
        self.placed = True

    @property
    def slot(self) -> Slot:
        return self._slot

    def matches(self, topic: bytes) -> bool:
        topics = self.topics
        return b"" in topics or any(topic.startswith(prefix) for prefix in topics)

    # -- queue

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Handshake, PONG."""
        self.append(Entry(buffers, 0))
        if not self.blocked:
            self.flush()

    def append(self, entry: Entry) -> None:
        if self.state is State.CLOSED or self._broken:
            return
        self._entries.append(entry)
        self.waiting += entry.size

    def skip(self, number: int) -> None:
        """A message that is not for it: the position moves on, in its turn."""
        if not self._entries:
            self._slot.advance(number)
        elif len(self._entries) > 1 and not self._entries[-1].size:
            self._entries[-1].number = number
        else:
            self._entries.append(Entry((), number))

    def flush(self) -> None:
        written = 0
        try:
            while self._entries and self.state is not State.CLOSED and self.publisher.turn_of(self):
                if written >= _BURST:
                    self.publisher.flush_soon(self)  # others have their turn
                    break
                size, sent = self._write_batch()
                written += sent
                if sent < size:
                    self._wait_writable()
                    break
        except (BlockingIOError, InterruptedError):
            self._wait_writable()
        except OSError as error:
            self._entries.clear()
            self.fail_later(error)
        if written:
            self.last_taken = self.loop.time()
        self.publisher.taken(self)

    def _write_batch(self) -> tuple[int, int]:
        """(bytes offered, bytes taken) of one system call."""
        pieces: list[memoryview] = []
        numbers: list[int] = []
        ends: list[int] = []
        size = 0
        ended = 0
        batch = SHARED_BATCH if self.shared else BATCH
        index, offset = self._index, self._offset
        for entry in islice(self._entries, TABLE):
            for view in islice(entry.buffers, index, None):
                piece = view[offset:] if offset else view
                offset = 0
                if size and size + piece.nbytes > batch:
                    break
                pieces.append(piece[:STAGING])
                size += pieces[-1].nbytes
                if piece.nbytes > STAGING:
                    break
            else:
                index = 0
                ended += 1
                if entry.number:
                    numbers.append(entry.number)
                    ends.append(size)
                continue
            break
        if not size:
            self._advance(0, ended, numbers)
            return 0, 0
        if not ended and len(pieces) == 1:
            # The middle of a large message: no position depends on it, and it can be sent from where it lies.
            sent = self.sock.send(pieces[0])
            self._advance(sent, 0, ())
            return size, sent
        staging = self.publisher.staging
        staging.view[:size] = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        sent = self._slot.send(self.sock, staging, size, numbers, ends, self._guarded and ended > 0)
        self._advance(sent, 0, ())
        return size, sent

    def _advance(self, sent: int, empty: int, numbers: Sequence[int]) -> None:
        """Takes what was written out of the queue (`empty`: so many entries without a byte)."""
        if empty:
            for _ in range(empty):
                self._entries.popleft()
            if numbers:
                self._slot.advance(numbers[-1])
            return
        self.waiting -= sent
        while self._entries:
            entry = self._entries[0]
            while self._index < len(entry.buffers):
                left = entry.buffers[self._index].nbytes - self._offset
                if sent < left:
                    self._offset += sent
                    return
                sent -= left
                self._index += 1
                self._offset = 0
            if not entry.size and not sent:
                return  # the table may not have had room for it: its own turn comes
            self._entries.popleft()
            self._index = 0

    def close(self) -> None:
        self._entries.clear()
        super().close()
