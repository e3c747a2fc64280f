"""The receiving half of a channel, and the credit that bounds what the far end may make us hold.

Every channel has a window: so much may be sent on it and not yet consumed.  64 KiB of it are the channel's
own; whatever is more is lent by the link's `Pool`, doubled while the sender says that it lacks credit (WANT)
and data is consumed, halved again when it does not.  A message that no window of its channel can hold is let
in piece by piece with the one allowance of its priority class: one such message per class at a time, the
others wait for their turn.

Why nothing blocks for ever: credit of complete messages comes back when they are consumed; a message being
put together that fits the window gets what it lacks from exactly that; one that does not fit gets the
allowance, which comes free when the message before it is consumed.
"""

from collections import deque
from typing import Deque, Dict, List, Optional

from .assembly import Assembly
from .channels import CHANNEL_CREDIT, MESSAGE_COST, Priority
from .frames import FIRST, LAST, NUMBER, WANT, Buffer, LinkViolation

CHANNEL_MOST = 8 * 1024 * 1024  # the largest window of a channel
POOL = 64 * 1024 * 1024  # what windows may have beyond CHANNEL_CREDIT, all channels of a link together
AHEAD = 16 * 1024 * 1024  # how far the allowance of a large message runs ahead of what came in
_SHARE = (
    8  # a channel's window grows by at most this part of what the pool has left: there is always some left
)
_CALM = 8  # so many windows consumed and credit never lacking: the window was too large


class Pool:
    """What all receivers of a link share: memory, allowances for large messages, who is owed CREDIT."""

    def __init__(self, max_message: int) -> None:
        self.max_message = max_message
        self.free = POOL
        self.held = 0  # cost of everything received and not consumed
        self.due: Dict[int, Receiver] = {}
        self._large: Dict[Priority, Receiver] = {}
        self._waiting: Dict[Priority, Deque[Receiver]] = {}

    def limit(self, receivers: List["Receiver"]) -> int:
        """The most that `held` can be with these channels open, whatever the far end does."""
        classes = {receiver.priority for receiver in receivers if not receiver.stream}
        return CHANNEL_CREDIT * len(receivers) + POOL + (self.max_message + MESSAGE_COST) * len(classes)

    def borrow(self, receiver: "Receiver") -> bool:
        """Take the allowance of this class; False: somebody has it, `receiver` will be told."""
        holder = self._large.setdefault(receiver.priority, receiver)
        if holder is receiver:
            return True
        waiting = self._waiting.setdefault(receiver.priority, deque())
        if receiver not in waiting:
            waiting.append(receiver)
        return False

    def give_back(self, receiver: "Receiver") -> None:
        """The large message is consumed: the next one may come in."""
        del self._large[receiver.priority]
        waiting = self._waiting.get(receiver.priority)
        while waiting and receiver.priority not in self._large:
            waiting.popleft().top_up()  # which takes the allowance, unless it can do without by now


class Receiver:
    """The receiving half of one channel.

    Positions count the cost (payload and MESSAGE_COST) since the channel was opened: `released` ≤ `arrived` ≤
    `allowed`.
    """

    __slots__ = (
        "_allowance_end", "_calm", "_coming", "_end", "_lent", "_pool", "_reserved", "_units",
        "_wanting", "allowed", "arrived", "closed", "number", "priority", "released", "stream", "window",
    )  # fmt: skip

    def __init__(self, number: int, priority: Priority, stream: bool, pool: Pool) -> None:
        self.number = number
        self.priority = priority
        self.stream = stream
        self.closed = False
        self.window = CHANNEL_CREDIT
        self.allowed = CHANNEL_CREDIT
        self.arrived = 0
        self.released = 0
        self._pool = pool
        self._reserved = 0  # what the pool has given beyond CHANNEL_CREDIT
        self._units: Deque[int] = deque()  # payload bytes of each message given out and not consumed
        self._coming: Optional[Assembly] = None  # the message being put together,
        self._end = 0  # and the position of its end
        self._lent = 0  # of the class's allowance
        self._allowance_end = 0  # position of the end of the large message that has the allowance; 0: none
        self._wanting = False
        self._calm = 0

    @property
    def held(self) -> int:
        return self.arrived - self.released

    # -- what comes in

    def accept(self, flags: int, payload: Buffer) -> Optional[Buffer]:
        """One DATA frame; gives the message (or the bytes of a stream) that is whole with it."""
        if self.closed:
            raise self._violation("data after CLOSE")
        whole: Optional[Buffer] = None
        if flags & FIRST:
            if self._coming is not None:
                raise self._violation("a message within a message")
            if flags & LAST:
                if len(payload) > self._pool.max_message:
                    raise self._violation("a message of {} bytes".format(len(payload)))
                self._arrive(len(payload) + MESSAGE_COST)
                self._units.append(len(payload))
                whole = bytes(payload)
            else:
                self._begin(payload)
        else:
            whole = self._go_on(payload, bool(flags & LAST))
        if flags & WANT:
            self._wanting = True
        if self._coming is not None:
            self.top_up()
        return whole

    def close(self) -> None:
        """CLOSE came: what was allowed and not used is void."""
        if self.closed or self._coming is not None:
            raise self._violation("CLOSE at the wrong moment")
        self.closed = True
        self.allowed = self.arrived
        self.window = 0
        self._pool.due.pop(self.number, None)
        self._settle()

    def _begin(self, payload: Buffer) -> None:
        begun = len(payload) - NUMBER.size
        if self.stream or begun <= 0:
            raise self._violation("a message that begins wrongly")
        size = NUMBER.unpack_from(payload)[0]
        if not begun < size <= self._pool.max_message:
            raise self._violation("a message of {} bytes".format(size))
        self._end = self.arrived + MESSAGE_COST + size
        self._arrive(begun + MESSAGE_COST)
        self._coming = Assembly(size, memoryview(payload)[NUMBER.size :])

    def _go_on(self, payload: Buffer, last: bool) -> Optional[Buffer]:
        coming = self._coming
        if coming is None:
            raise self._violation("a piece of no message")
        filled = coming.filled + len(payload)
        if not payload or (filled != coming.size if last else filled >= coming.size):
            raise self._violation("a message that is not as long as announced")
        self._arrive(len(payload))
        coming.add(payload)
        if not last:
            return None
        self._coming = None
        self._units.append(coming.size)
        return coming.whole()

    def _arrive(self, cost: int) -> None:
        self.arrived += cost
        if self.arrived > self.allowed:
            self.arrived -= cost
            raise self._violation("data beyond its credit")
        self._pool.held += cost

    # -- what is consumed, and the credit for it

    def consume(self, size: int) -> None:
        """That many bytes of payload, in the order given out, have been dealt with.  Raises ValueError."""
        released = self._release(size)
        self.released += released
        self._pool.held -= released
        self._calm += released
        if self._wanting or self._calm > _CALM * self.window:
            self._adapt()
        if self._allowance_end and self.released >= self._allowance_end:
            self._allowance_end = self._lent = 0
            self._pool.give_back(self)
        if self._reserved or self.window > CHANNEL_CREDIT:
            self._settle()
        self.top_up()

    def _release(self, size: int) -> int:
        """Take `size` bytes off what was given out; the cost that this sets free.

        consumed(0) is for one empty message; empty ones in between go with what follows them.
        """
        units = self._units
        if units and units[0] == size:
            units.popleft()
            return size + MESSAGE_COST
        left = size
        messages = 0
        while units and left > 0:
            unit = units[0]
            if unit > left:
                units[0] = unit - left
                left = 0
                break
            left -= unit
            units.popleft()
            messages += 1
        if left:
            raise ValueError("consumed {} bytes more than channel {} gave".format(left, self.number))
        return size + messages * MESSAGE_COST

    def _adapt(self) -> None:
        """A larger window for a sender that lacks credit while we consume; a smaller one if it never does."""
        if self.closed:
            return
        if self._wanting:
            self._wanting = False
            self._calm = 0
            self.window += min(self.window, CHANNEL_MOST - self.window, self._pool.free // _SHARE)
        elif self._coming is None:
            self._calm = 0
            self.window = max(CHANNEL_CREDIT, self.window // 2)

    def top_up(self) -> None:
        """Raise what the sender is allowed, if that is worth a CREDIT frame."""
        if self.closed:
            return
        coming = self._coming
        if coming is not None:
            self._lend(coming, self.allowed - self.arrived)
        target = self.released + self.window
        if self._allowance_end:
            target += min(self._lent, self._allowance_end - self.released)
        gain = target - self.allowed
        quarter = self.window // 4
        if gain < quarter:
            lacking = (
                coming is not None and self.allowed < self._end and self.allowed - self.arrived < quarter
            )
            if gain <= 0 or not lacking:
                return
        self.allowed = target
        self._pool.due[self.number] = self

    def _lend(self, coming: Assembly, room: int) -> None:
        """The message being put together may not fit the window, also when all before it is consumed."""
        size = MESSAGE_COST + coming.size
        if size <= self.window or self._allowance_end not in (0, self._end) or not self._pool.borrow(self):
            return
        self._allowance_end = self._end
        if room < AHEAD * 3 // 4:
            self._lent = min(size, self._lent + AHEAD - max(0, room))

    def _settle(self) -> None:
        """Give back to the pool what the sender can no longer make us hold."""
        lent = min(self._lent, self._allowance_end - self.released) if self._allowance_end else 0
        needed = max(self.window, self.allowed - self.released - lent) - CHANNEL_CREDIT
        needed = max(0, needed)
        self._pool.free -= needed - self._reserved
        self._reserved = needed

    def _violation(self, why: str) -> LinkViolation:
        return LinkViolation("{} on channel {}".format(why, self.number))
