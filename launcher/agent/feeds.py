"""From a tape to a channel of the link: no more than the link can soon send, the rest stays on the disk."""

import struct
from typing import Callable, List, Optional

from .link import Link, MessageTooLarge
from .outbox import Buffer
from .tape import Tape

#: How much may wait in the link for one channel.
ENOUGH = 1 << 20
_HEADER = struct.Struct(">QQ")

#: (first, last, bytes or None): messages that cannot be passed on any more.
OnDropped = Callable[[int, int, Optional[int]], None]


class Feed(object):
    """Messages of one tape from number `first` on; `last`: up to there, then CLOSE (None: whatever comes)."""

    def __init__(
        self,
        link: Link,
        channel: int,
        tape: Tape,
        first: int,
        on_dropped: OnDropped,
        last: Optional[int] = None,
    ) -> None:
        self.channel = channel
        self.next = first
        self.closed = False
        self._link = link
        self._tape = tape
        self._last = last
        self._on_dropped = on_dropped

    def __repr__(self) -> str:
        return "<Feed to channel %d: %d of %r>" % (self.channel, self.next, self._tape)

    @property
    def target(self) -> int:
        return self._tape.last if self._last is None else min(self._last, self._tape.last)

    @property
    def has_more(self) -> bool:
        return not self.closed and (self.next <= self.target or self._last is not None)

    @property
    def is_through(self) -> bool:
        """Everything that is there has been sent once."""
        return self.closed or (self.next > self.target and not self._link.backlog(self.channel))

    def feed(self) -> None:
        while not self.closed and self.next <= self.target and self._link.backlog(self.channel) < ENOUGH:
            try:
                time, views = self._tape.message(self.next)
            except KeyError:
                self._skip()
                continue
            try:
                buffers: List[Buffer] = [_HEADER.pack(self.next, time)]
                self._link.send(self.channel, buffers + list(views))
            except MessageTooLarge:
                self._on_dropped(self.next, self.next, self._tape.size_of(self.next))
            if self._last is None:
                self._tape.passed_on = self.next
            self.next += 1
        if self._last is not None and self.next > self.target:
            self.close()

    def _skip(self) -> None:
        """What was to come next is gone."""
        following = self._tape.first
        lost = self._tape.dropped()
        known = lost is not None and (lost.first, lost.last) == (self.next, following - 1)
        self._on_dropped(self.next, following - 1, lost.bytes if known and lost is not None else None)
        self._tape.dropped_told()
        self.next = following

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._link.close(self.channel)

    def abandon(self) -> None:
        """The link, or the other side's channel, is gone."""
        self.closed = True
