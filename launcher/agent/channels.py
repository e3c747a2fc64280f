"""The sending half of a channel: what is queued, cut into pieces within the credit that the far end gave.

Credit is counted in bytes of payload, plus `MESSAGE_COST` for each message (on a stream: for each piece), so
that a flood of tiny messages cannot make the receiver hold more than the bytes say.
"""

import enum
from collections import deque
from typing import Deque, List, NamedTuple, Sequence

from .frames import FIRST, LAST, MOST_NUMBER, NUMBER, WANT, Buffer, LinkError, LinkViolation

CHANNEL_CREDIT = 64 * 1024  # what every channel may send without having been given any credit
MESSAGE_COST = 128  # about what Python needs to hold a message beside its bytes
SMALLEST_PIECE = 1024


class Priority(enum.IntEnum):
    """Classes of channels: strict between them, round-robin within one."""

    CONTROL = 0
    SHELL = 1
    STDIN = 2
    OUTPUT = 3
    PORT = 4


class MessageTooLarge(LinkError):
    """A message that the far end would refuse; nothing was sent."""

    kind = "message-too-large"

    def __init__(self, channel: int, size: int, most: int) -> None:
        super().__init__(
            "A message of {:,} bytes is too large for the link: the far end takes {:,} at most".format(
                size, most
            ),
            "Send it in parts, or by way of a file",
        )
        self.channel = channel
        self.size = size
        self.most = most


class ChannelError(LinkError):
    """A channel was used in a way that its state forbids: a mistake on our own side."""

    kind = "link-channel"

    def __init__(self, channel: int, why: str) -> None:
        super().__init__(
            "Channel {} {}".format(channel, why), "This is a mistake in Farkernel: please report it"
        )
        self.channel = channel


class Piece(NamedTuple):
    """The payload of one DATA frame: `size` bytes in `parts`."""

    flags: int
    parts: Sequence[Buffer]
    size: int


class _Queued:
    """A message (or some bytes of a stream) not yet out whole.  Buffers are referred to, never copied."""

    __slots__ = ("left", "parts", "size")

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        parts: Deque[Buffer] = deque()
        size = 0
        for buffer in buffers:
            if type(buffer) is not bytes:
                buffer = memoryview(buffer).cast("B")
            if buffer:
                parts.append(buffer)
                size += len(buffer)
        self.parts = parts
        self.size = self.left = size

    def take(self, size: int) -> List[Buffer]:
        """The next `size` bytes."""
        self.left -= size
        if not self.left:
            return list(self.parts)
        taken: List[Buffer] = []
        parts = self.parts
        while size:
            head = parts[0]
            if len(head) <= size:
                taken.append(parts.popleft())
                size -= len(head)
            else:
                view = memoryview(head)
                taken.append(view[:size])
                parts[0] = view[size:]
                size = 0
        return taken


class Sender:
    """The sending half of one channel."""

    __slots__ = (
        "_allowed",
        "_queue",
        "_spent",
        "backlog",
        "closed",
        "closing",
        "number",
        "priority",
        "ready",
        "stream",
    )

    def __init__(self, number: int, priority: Priority, stream: bool) -> None:
        self.number = number
        self.priority = priority
        self.stream = stream
        self.backlog = 0  # bytes that have not gone out once
        self.closing = False
        self.closed = False  # CLOSE has gone out
        self.ready = False  # whether the link has it in one of its rounds
        self._queue: Deque[_Queued] = deque()
        self._allowed = CHANNEL_CREDIT
        self._spent = 0

    def queue(self, buffers: Sequence[Buffer], most: int) -> None:
        if self.closing:
            raise ChannelError(self.number, "is closed: nothing more can be sent on it")
        queued = _Queued(buffers)
        if self.stream:
            if not queued.size:
                return
        elif queued.size > most:
            raise MessageTooLarge(self.number, queued.size, most)
        self._queue.append(queued)
        self.backlog += queued.size

    def largest(self) -> int:
        """The size of the largest message in the queue."""
        return max((queued.size for queued in self._queue), default=0)

    def allow(self, total: int) -> None:
        """The far end gave credit."""
        if not self._allowed <= total <= MOST_NUMBER:
            raise LinkViolation(
                "the credit of channel {} went from {} to {}".format(self.number, self._allowed, total)
            )
        self._allowed = total

    def can_send(self) -> bool:
        """Whether a frame could go out, as far as this channel is concerned."""
        if self._queue:
            return self._has_credit(self._queue[0])
        return self.closing and not self.closed

    def must_close(self) -> bool:
        """Whether the frame to go out is CLOSE."""
        return not self._queue

    def next_piece(self, most: int) -> Piece:
        """The next piece, of at most `most` bytes; only when `can_send` and not `must_close`."""
        queued = self._queue[0]
        begins = queued.left == queued.size or self.stream
        cost = MESSAGE_COST if begins else 0
        size = queued.left
        if size > most or size > self._allowed - self._spent - cost:
            size = min(most, self._allowed - self._spent - cost)
        flags = FIRST if begins else 0
        parts = queued.take(size)
        if not queued.left:
            self._queue.popleft()
            flags |= LAST
        elif self.stream:
            flags |= LAST
        elif begins:
            parts.insert(0, NUMBER.pack(queued.size))
        self._spent += size + cost
        self.backlog -= size
        if self._queue and not self._has_credit(self._queue[0]):
            flags |= WANT
        return Piece(flags, parts, size + NUMBER.size if flags & (FIRST | LAST) == FIRST else size)

    def _has_credit(self, queued: _Queued) -> bool:
        """Enough for a piece that is worth its header."""
        room = self._allowed - self._spent
        if queued.left == queued.size or self.stream:
            room -= MESSAGE_COST
        return room >= queued.left or room >= SMALLEST_PIECE
