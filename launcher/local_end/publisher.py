"""XPUB, verbose: iopub.  Knows what each subscriber's socket has taken, and waits for no dead one."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..agent.zmtp import Buffer, Event, ZmtpError, as_subscription, encode_message
from . import contract
from .connections import Connection, Limits, Listener, State
from .endpoints import BoundSocket
from .positions import PositionFile, Staging
from .subscriber import BATCH, Entry, SubscriberConnection

log = logging.getLogger(__name__)

# A connection that reads nothing holds those of its own process up no longer than this at a time.
_SIBLING_PATIENCE = 0.1
_MAX_TOPICS = 1024


@dataclass(frozen=True)
class PublishLimits(Limits):
    high: int = 8 << 20
    low: int = 2 << 20
    stall: float = 30.0
    """seconds without taking a byte while full, after which a subscriber does not count any more"""


class Publisher:
    """The iopub socket (contract.PublishSocket)."""

    socket_type = "XPUB"

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        bound: BoundSocket,
        positions: PositionFile | None = None,
        limits: PublishLimits | None = None,
    ) -> None:
        self.on_subscribe: Callable[[contract.Subscriber, bytes], None] = _ignore_subscription
        self.on_gone: Callable[[contract.Subscriber], None] = _ignore_gone
        self.on_drained: Callable[[], None] = _ignore_drained
        self.limits = limits or PublishLimits()
        self.staging = Staging()
        self.full = False
        self._loop = loop
        self._positions = positions
        self._last = (positions.last_written() or 0) if positions else 0  # the highest number published
        self._open: list[SubscriberConnection] = []
        self._to_flush: set[SubscriberConnection] = set()
        self._flushing = False
        self._stall_timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._listener = Listener(loop, bound, self._connect, self.limits)

    def __repr__(self) -> str:
        full = ", full" if self.full else ""
        return f"<Publisher at {self._last}{full}, {self._open!r}>"

    def _connect(self, sock: socket.socket) -> SubscriberConnection:
        return SubscriberConnection(self._loop, sock, self)

    # -- what the local end uses

    @property
    def subscribers(self) -> int:
        return sum(1 for subscriber in self._open if subscriber.topics)

    @property
    def written(self) -> int:
        return min((s.position for s in self._open if s.placed and not s.stalled), default=self._last)

    def publish(self, frames: Sequence[Buffer], number: int, more: bool = False) -> int:
        entry = Entry(encode_message(frames), number)
        topic = bytes(frames[0])
        self._last = max(self._last, number)
        count = 0
        for subscriber in self._open:
            if 0 < number <= subscriber.floor:
                continue
            if not subscriber.matches(topic):
                if number and subscriber.placed:
                    subscriber.skip(number)
            elif subscriber.stalled:
                subscriber.missed += 1
            else:
                self._give(subscriber, entry, more)
                count += 1
        return count

    def send_to(self, subscriber: contract.Subscriber, frames: Sequence[Buffer]) -> None:
        if isinstance(subscriber, SubscriberConnection) and subscriber.state is State.OPEN:
            self._give(subscriber, Entry(encode_message(frames), 0))

    def close(self) -> None:
        """What is published goes out as far as the sockets take it.  The positions stay in their file."""
        self.flush()
        self._closing = True
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        self._listener.close()
        if self._positions is not None:
            self._positions.close()

    # -- what connections use

    def opened(self, connection: Connection) -> None:
        assert isinstance(connection, SubscriberConnection)
        self._open.append(connection)

    def received(self, connection: Connection, event: Event) -> None:
        assert isinstance(connection, SubscriberConnection)
        subscription = as_subscription(event)
        if subscription is None:
            return  # messages from a SUB have no meaning here
        subscribe, topic = subscription
        topics = connection.topics
        if subscribe:
            if not connection.placed:
                self._place(connection)
            topics[topic] = topics.get(topic, 0) + 1
            if len(topics) > _MAX_TOPICS:
                raise ZmtpError(f"over {_MAX_TOPICS} subscriptions")
            self.on_subscribe(connection, topic)
        elif topics.get(topic, 0) > 1:
            topics[topic] -= 1
        else:
            topics.pop(topic, None)

    def _place(self, subscriber: SubscriberConnection) -> None:
        slot = None
        if self._positions is not None:
            try:
                slot = self._positions.claim(subscriber.pid, self._last, subscriber.sock.fileno())
            except OSError as error:
                # It works without: after a kill, that subscriber is not known.
                log.warning("no position is kept for %r: %s", subscriber, error.strerror)
        subscriber.place(slot, self._last)
        self._share(subscriber.pid)

    def closed(self, connection: Connection) -> None:
        assert isinstance(connection, SubscriberConnection)
        self._open.remove(connection)
        self._to_flush.discard(connection)
        if self._closing:
            return
        if self._positions is not None:
            self._positions.release(connection.slot)
        self._share(connection.pid)
        self._check_drained()
        self.on_gone(connection)

    def taken(self, subscriber: SubscriberConnection) -> None:
        """It was given a chance to take something."""
        if subscriber.shared:
            for other in self._siblings(subscriber):
                if other.waiting and not other.blocked:
                    self.flush_soon(other)
        if subscriber.stalled and subscriber.waiting < self.limits.low:
            subscriber.stalled = False
            log.warning("%r takes messages again; it missed %d", subscriber, subscriber.missed)
        if self.full:
            self._check_drained()

    # -- flushing: what is published in one turn of the loop is written together

    def _give(self, subscriber: SubscriberConnection, entry: Entry, more: bool = False) -> None:
        subscriber.append(entry)
        if subscriber.waiting > self.limits.high and not self.full:
            self._become_full()
        if subscriber.blocked:
            return
        if subscriber.waiting >= BATCH:
            subscriber.flush()
        elif more:
            self._to_flush.add(subscriber)
        else:
            self.flush_soon(subscriber)

    def flush_soon(self, subscriber: SubscriberConnection) -> None:
        self._to_flush.add(subscriber)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush_later)

    def turn_of(self, subscriber: SubscriberConnection) -> bool:
        """Connections of one process go forward together: after a kill they cannot be told apart, and all
        go on from the
        position of the last of them (`positions`), so that nothing comes twice only if they stand at the
        same message."""
        if not subscriber.shared:
            return True
        position = subscriber.position
        turn = True
        now = self._loop.time()
        for other in self._siblings(subscriber):
            if other.position >= position:
                continue
            if not other.blocked:
                self.flush_soon(other)
                turn = False
            elif now - other.last_taken < _SIBLING_PATIENCE:
                self._loop.call_later(_SIBLING_PATIENCE, self.flush_soon, subscriber)
                turn = False
        return turn

    def _siblings(self, subscriber: SubscriberConnection) -> list[SubscriberConnection]:
        if not subscriber.pid:
            return []  # by TCP: nobody knows whose it is
        return [
            other
            for other in self._open
            if other is not subscriber and other.pid == subscriber.pid and other.placed and not other.stalled
        ]

    def _share(self, pid: int) -> None:
        """The number of that process's connections has changed."""
        same = [each for each in self._open if pid and each.pid == pid and each.placed]
        for each in same:
            each.shared = len(same) > 1
            if not each.blocked:
                self.flush_soon(each)

    def _flush_later(self) -> None:
        self._flushing = False
        self.flush()

    def flush(self) -> None:
        subscribers, self._to_flush = self._to_flush, set()
        for subscriber in subscribers:
            if subscriber.state is State.OPEN and not subscriber.blocked:
                subscriber.flush()

    # -- back-pressure

    def _become_full(self) -> None:
        self.full = True
        now = self._loop.time()
        for subscriber in self._open:
            subscriber.last_taken = max(subscriber.last_taken, now)
        self._check_stalled()

    def _check_stalled(self) -> None:
        self._stall_timer = None
        if not self.full:
            return
        limit = self.limits
        now = self._loop.time()
        for subscriber in self._open:
            silent = now - subscriber.last_taken >= limit.stall
            if silent and subscriber.waiting >= limit.low and not subscriber.stalled:
                subscriber.stalled = True
                self._share(subscriber.pid)
                log.warning("%r has taken nothing for %.0f s: it is not waited for", subscriber, limit.stall)
        self._check_drained()
        if self.full:
            self._stall_timer = self._loop.call_later(limit.stall / 4, self._check_stalled)

    def _check_drained(self) -> None:
        if self.full and not any(s.waiting >= self.limits.low and not s.stalled for s in self._open):
            self.full = False
            if self._stall_timer is not None:
                self._stall_timer.cancel()
                self._stall_timer = None
            # Not from here: whoever is told publishes more, and we may be in the middle of writing.
            self._loop.call_soon(self._drained)

    def _drained(self) -> None:
        if not self.full and not self._closing:
            self.on_drained()


def _ignore_subscription(subscriber: contract.Subscriber, topic: bytes) -> None:
    return


def _ignore_gone(subscriber: contract.Subscriber) -> None:
    return


def _ignore_drained() -> None:
    return
