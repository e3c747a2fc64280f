"""The sequenced frames: numbered, acknowledged, replayed after a cut; and those of the other side, in order.

A number belongs to one frame for ever once the frame has gone out.  A connection that turns up late (a boot
script that hung for a minute) may speak of an earlier time: it can then cause duplicates, never a mix-up.
"""

from collections import deque
from typing import Deque, Optional, Sequence

from .flow import Window
from .frames import ACK, DATA, HEADER, HURRY, NUMBER, Buffer, Frame, Gathered, LinkViolation

ACK_DELAY = 0.02  # seconds that an acknowledgement waits for something to travel with
# Bytes received after which it does not wait.  Four for each window are asked for by HURRY; more of them only cost.
ACK_SIZE = 1024 * 1024
_ACK_HEADER = HEADER.pack(NUMBER.size, ACK, 0, 0, 0)
_NEVER = float("inf")


class Sent:
    """A sequenced frame that is not acknowledged."""

    __slots__ = ("at", "channel", "flags", "kind", "number", "parts", "size")

    def __init__(
        self, kind: int, flags: int, channel: int, number: int, parts: Sequence[Buffer], size: int
    ) -> None:
        self.kind = kind
        self.flags = flags
        self.channel = channel
        self.number = number
        self.parts = parts
        self.size = size
        self.at = 0.0


class Flight:
    """Everything sent and not acknowledged, in one session; `window` is that of the present connection."""

    def __init__(self) -> None:
        self.last = 0  # the highest number given
        self.acknowledged = 0
        self.window = Window(0.0)
        self._flying: Deque[Sent] = deque()  # gone out on this connection
        self._replay: Deque[Sent] = deque()  # to go out again before anything new

    def __bool__(self) -> bool:
        """Whether anything is not acknowledged."""
        return bool(self._flying or self._replay)

    @property
    def must_replay(self) -> bool:
        return bool(self._replay)

    def reconnect(self, now: float) -> None:
        """A connection begins, or has ended: all that is not acknowledged will be replayed."""
        self._flying.extend(self._replay)
        self._flying, self._replay = deque(), self._flying
        self.window = Window(now)

    def replay(self, now: float, limit: int, out: Gathered) -> bool:
        """Send again what the other side lacks, as far as the window goes; whether that was all."""
        replay = self._replay
        while replay:
            if out.size >= limit or not self.window.has_room():
                return False
            self._put(replay.popleft(), now, out)
        return True

    def put(
        self,
        kind: int,
        flags: int,
        channel: int,
        parts: Sequence[Buffer],
        size: int,
        now: float,
        out: Gathered,
    ) -> None:
        """A new frame goes out."""
        self.last += 1
        self._put(Sent(kind, flags, channel, self.last, parts, size), now, out)

    def _put(self, frame: Sent, now: float, out: Gathered) -> None:
        frame.at = now
        size = frame.size
        flags = frame.flags
        if self.window.sent(HEADER.size + size) and frame.kind == DATA:
            flags |= HURRY
        self._flying.append(frame)
        out.add(HEADER.pack(size, frame.kind, flags, frame.channel, frame.number), frame.parts, size)

    def settle(self, received: int, exactly: bool) -> None:
        """HELLO says what the other side has.

        A keeper's HELLO is made before its connection is open, and may say too little: then `exactly` is
        False.
        """
        if received > self.last:
            raise LinkViolation("{} frames received of {} sent".format(received, self.last))
        if received < self.acknowledged and exactly:
            raise LinkViolation("frame {} acknowledged, then {}".format(self.acknowledged, received))
        self.acknowledged = max(self.acknowledged, received)
        self._forget_replay()

    def acknowledge(self, number: int, now: float) -> None:
        """ACK came."""
        if not self.acknowledged <= number <= self.last:
            raise LinkViolation(
                "frame {} acknowledged, after {} of {}".format(number, self.acknowledged, self.last)
            )
        self.acknowledged = number
        flying = self._flying
        size = 0
        newest: Optional[Sent] = None
        while flying and flying[0].number <= number:
            newest = flying.popleft()
            size += HEADER.size + newest.size
        if newest is not None:
            self.window.acknowledged(size, number, self.last, now - newest.at, now)
        self._forget_replay()

    def _forget_replay(self) -> None:
        """Frames can be acknowledged before they are replayed, when HELLO had said too little."""
        while self._replay and self._replay[0].number <= self.acknowledged:
            self._replay.popleft()


class Arrivals:
    """Which sequenced frames of the other side have come, and what has been said of it."""

    def __init__(self) -> None:
        self.received = 0  # the highest number received in order
        self.nothing_owed()

    def nothing_owed(self) -> None:
        """The other side has been told, by ACK or (on a new connection) by HELLO."""
        self.ack_due = False
        self._ack_at: Optional[float] = None  # when an acknowledgement has to go out
        self._bytes = 0

    def take(self, frame: Frame, now: float) -> bool:
        """Whether this frame is new; a gap is a violation."""
        if self._ack_at is None:
            self._ack_at = now + ACK_DELAY
        number = frame.number
        if number != self.received + 1:
            if number > self.received:
                raise LinkViolation("frame {} after frame {}".format(number, self.received))
            return False
        self.received = number
        self._bytes += HEADER.size + len(frame.payload)
        if self._bytes >= ACK_SIZE or (frame.flags & HURRY and frame.kind == DATA):
            self.ack_due = True
        return True

    def deadline(self) -> float:
        """When `tick` makes an acknowledgement due."""
        return _NEVER if self._ack_at is None or self.ack_due else self._ack_at

    def tick(self, now: float) -> None:
        if self._ack_at is not None and now >= self._ack_at:
            self.ack_due = True

    def put_ack(self, now: float, out: Gathered) -> None:
        """One that need not go yet travels along with whatever does."""
        at = self._ack_at
        if at is not None and (self.ack_due or now >= at or out.size):
            out.add(_ACK_HEADER + NUMBER.pack(self.received), (), 0)
            self.nothing_owed()
