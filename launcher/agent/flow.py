"""How much may be in flight, and when silence means that a connection is dead.  Sans-I/O, for one connection
each.

The window follows the round trip (the ideas of LEDBAT, RFC 6817, and of FAST TCP): what a round trip takes
beyond the smallest one seen lately is time in queues, the socket buffers at both ends included.  The window
is set so that queues take about `DELAY_TARGET`: enough to keep any line busy, little enough that an interrupt
is not held up.
"""

from typing import Optional

from .channels import SMALLEST_PIECE
from .frames import MAX_PIECE, NUMBER, PING, PONG, Buffer, Gathered, encode

DELAY_TARGET = 0.1  # seconds in queues that we aim at
SMALLEST_WINDOW = 4 * 1024  # 0.33 s of a line with 100 kbit/s
LARGEST_WINDOW = 64 * 1024 * 1024
FIRST_WINDOW = SMALLEST_WINDOW  # nothing is known of the line yet, and an interrupt may follow at once
BASE_SPAN = 30.0  # seconds; the smallest round trip is that of this span and of the one before
_DRAINED = 0.75  # of what is on the line without any queue: in flight while the round trip is measured anew

HEARTBEAT_IDLE = 10.0  # seconds without a byte after which we ask whether the far end is there
HEARTBEAT_BUSY = 3.0  # the same while something is unacknowledged or awaited
GREETING_PATIENCE = (
    120.0  # seconds from connect() to HELLO: a boot script may have to wait for a slow file system
)

_NEVER = float("inf")


class Window:
    """Bytes that may be in flight on one connection.

    Works in rounds: one round is from a moment until everything sent up to it is acknowledged.
    """

    def __init__(self, now: float) -> None:
        self.size = FIRST_WINDOW
        self.in_flight = 0
        self._starting = True  # until queues are seen: double each round
        self._limited = False  # whether the window (not the lack of data) held us back in this round
        self._round_begin = self._round_end = 0  # sequence numbers
        self._round_least = (
            _NEVER  # the smallest round trip in this round's second half: its queue is the fresher
        )
        self._since_hurry = 0
        self._base = self._base_now = self._base_before = _NEVER
        self._base_until = now + BASE_SPAN
        self._resume = 0  # the window to come back to after draining; 0: not draining
        self._drained = False

    @property
    def base(self) -> Optional[float]:
        """The round trip without queues, as far as it is known."""
        return None if self._base == _NEVER else self._base

    @property
    def piece(self) -> int:
        """The largest piece to cut from a message now."""
        return min(MAX_PIECE, max(SMALLEST_PIECE, self.size // 4))

    def has_room(self, urgent: bool = False) -> bool:
        """Whether a frame may go out; urgent ones (control) need not wait for a window full of others."""
        most = self.size + max(SMALLEST_PIECE, self.size // 4) if urgent else self.size
        return self.in_flight < most

    def sent(self, size: int) -> bool:
        """A frame goes out; True: ask for an ACK at once (four for each window, and when it is full)."""
        self.in_flight += size
        self._since_hurry += size
        full = self.in_flight >= self.size
        hurry = full or self._since_hurry * 4 >= self.size
        # At the start a quarter counts as a need, as in Linux's slow start (`tcp_is_cwnd_limited`): or short cells
        # would never outgrow the first window, and each of their messages would be acknowledged at once.
        if full or (hurry and self._starting):
            self._limited = True
        if hurry:
            self._since_hurry = 0
        return hurry

    def measured(self, round_trip: float, now: float) -> None:
        """A round trip was seen, of a PING (or, by `acknowledged`, of a frame)."""
        round_trip = max(round_trip, 0.0)  # a clock that goes backwards must not break anything
        if now >= self._base_until:
            self._base_until = now + BASE_SPAN
            self._drain(round_trip)
            self._base = self._base_before = self._base_now
            self._base_now = _NEVER
        if round_trip < self._base_now:
            self._base_now = round_trip
            self._base = min(self._base, round_trip)

    def acknowledged(self, size: int, number: int, last_sent: int, round_trip: float, now: float) -> None:
        """`size` bytes have arrived, the last of them in frame `number`; `last_sent` begins a new round."""
        self.in_flight -= size
        if not self.in_flight:
            self._since_hurry = 0
        self.measured(round_trip, now)
        if 2 * number >= self._round_begin + self._round_end:
            self._round_least = min(self._round_least, round_trip)
        if number >= self._round_end:
            if self._round_end:
                self._adjust()
            self._round_begin, self._round_end = number, last_sent + 1
            self._round_least = _NEVER
            self._limited = False

    def _adjust(self) -> None:
        """At the end of a round."""
        least, base = self._round_least, self._base
        if least == _NEVER or (least - base <= DELAY_TARGET and not (self._limited or self._resume)):
            return
        if self._resume:
            self._refill()
            return
        factor = min(2.0, max(0.5, (base + DELAY_TARGET) / max(least, 1e-6)))
        if least - base > DELAY_TARGET / 2:
            self._starting = False
        if factor > 1.0:
            factor = 2.0 if self._starting else (1.0 + factor) / 2
        self.size = int(min(LARGEST_WINDOW, max(SMALLEST_WINDOW, self.size * factor)))

    def _refill(self) -> None:
        """While draining: one round after the queues have become empty, go back to the window of before."""
        if self._drained:
            self.size, self._resume = self._resume, 0
        self._drained = self.in_flight <= self.size

    def _drain(self, round_trip: float) -> None:
        """The smallest round trip is about to be forgotten: let the queues run empty once, to see it again.

        Otherwise our own queue would pass for a part of the line, and the window would creep up for ever.
        """
        base = self._base
        if self._limited and not self._resume and base != _NEVER:
            self._resume, self._drained = self.size, False
            self.size = max(1, int(self.size * _DRAINED * base / max(round_trip, base, 1e-6)))


class Heartbeat:
    """Tells silence from death: ask after one heartbeat, give up after another one without a byte."""

    def __init__(self, now: float) -> None:
        self._heard = now
        self._asked: Optional[float] = None
        self._over = False

    def heard(self, now: float) -> None:
        self._heard = now
        self._asked = None

    def deadline(self, busy: bool) -> float:
        """When `ask` or `silent` will say something."""
        if self._over:
            return _NEVER
        interval = HEARTBEAT_BUSY if busy else HEARTBEAT_IDLE
        return (self._heard if self._asked is None else self._asked) + interval

    def ask(self, now: float, busy: bool) -> bool:
        """Whether a PING is due; says so once."""
        if self._asked is not None or now < self.deadline(busy):
            return False
        self._asked = now
        return True

    def silent(self, now: float, busy: bool) -> Optional[float]:
        """For how long nothing was heard, once that is too long."""
        if self._asked is None or now < self.deadline(busy):
            return None
        self._over = True
        return now - self._heard


class Pings:
    """Our PING and the answer to theirs: one of each at most, however many are asked for."""

    def __init__(self) -> None:
        self._ask = False
        self._number = 0
        self._at: Optional[float] = None  # when the last one went out; None: answered, or not out yet
        self._pong: Optional[bytes] = None

    @property
    def waiting(self) -> bool:
        """Whether something is to go out."""
        return self._ask or self._pong is not None

    def ask(self) -> None:
        self._ask = True
        self._number += 1
        self._at = None

    def answer(self, payload: bytes) -> None:
        self._pong = payload

    def put(self, now: float, out: Gathered) -> None:
        if self._pong is not None:
            out.add(encode(PONG, self._pong), (), 0)
            self._pong = None
        if self._ask:
            self._ask = False
            self._at = now
            out.add(encode(PING, NUMBER.pack(self._number)), (), 0)

    def take_pong(self, payload: Buffer, now: float) -> Optional[float]:
        """The round trip, if this is the answer to our last PING."""
        at = self._at
        if at is None or NUMBER.unpack(payload)[0] != self._number:
            return None
        self._at = None
        return now - at
