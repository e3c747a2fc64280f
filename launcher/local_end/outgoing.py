"""What goes out to clients: the kernel's output in its order, and each reply to whom it is for.

Both wait for a while for clients that a killed keeper's successor has not seen yet.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from ..agent.zmtp import Buffer
from ..messages import Message
from .cells import MissedCount
from .contract import LocalSockets
from .positions import PositionFile
from .received import Received

# After a keeper's restart output waits for the old subscribers, but not for ever: XPUB drops what nobody subscribed to.
_SUBSCRIBERS_DEADLINE = 3.0
_REPLIES_DEADLINE = 5.0
_AGAIN = 0.1

Consumed = Callable[[], None]


class Outgoing:
    """Of one local end; ``after_delivery``: calls back when the present batch of the kernel's messages is through."""

    def __init__(
        self,
        sockets: LocalSockets,
        published: PositionFile,
        received: Received,
        missed: Path,
        after_delivery: Callable[[Callable[[], None]], None],
    ) -> None:
        self.missed = MissedCount(missed)
        self.holding = False
        self._sockets = sockets
        self._iopub = sockets.iopub
        self._iopub.on_drained = self._flush
        self._published = published
        self._received = received
        self._after_delivery = after_delivery
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[int, list[Buffer], bool, Consumed]] = deque()
        self._written_soon = False
        self._undelivered: deque[tuple[float, str, bytes, list[Buffer]]] = deque()
        self._replies_until = 0.0

    def __repr__(self) -> str:
        held = ", held for old subscribers" if self.holding else ""
        return f"<Outgoing, {len(self._queue)} outputs queued{held}, {self._iopub!r}>"

    def wait_for_clients(self) -> None:
        """Those of a former keeper will come back."""
        self.holding = True
        self._loop.call_later(_SUBSCRIBERS_DEADLINE, self._release)
        self._replies_until = time.monotonic() + _REPLIES_DEADLINE

    def subscriber_came(self) -> None:
        if self.holding and not self._published.waiting:
            self._release()

    def _release(self) -> None:
        if self.holding:
            self.holding = False
            self._published.forget_waiting()
            self._flush()

    # output

    def publish(self, message: Message) -> None:
        """A message of ours on iopub."""
        self._iopub.publish(message.frames(), 0)

    def output(self, number: int, frames: list[Buffer], shown: bool, consumed: Consumed) -> None:
        """A message of the kernel's; without frames only its number counts."""
        if self._queue or self.holding or self._iopub.full:
            self._queue.append((number, frames, shown, consumed))
        else:
            self._publish(number, frames, shown, consumed)

    def _publish(self, number: int, frames: list[Buffer], shown: bool, consumed: Consumed) -> None:
        if shown and not self._iopub.subscribers:
            self.missed.add()
        if frames:
            self._iopub.publish(frames, number, more=True)
            if not self._written_soon:
                self._written_soon = True
                self._after_delivery(self._write)
        self._received["iopub"] = number
        consumed()

    def _write(self) -> None:
        self._written_soon = False
        self._iopub.flush()

    def _flush(self) -> None:
        while self._queue and not self.holding and not self._iopub.full:
            self._publish(*self._queue.popleft())

    # replies

    def reply(self, channel: str, message: Message) -> None:
        """To the client that the message's first identity names."""
        identity, *frames = message.frames()
        if self._send(channel, bytes(identity), frames):
            return
        if time.monotonic() < self._replies_until:
            # Its client has not come back yet after a keeper's restart.
            self._undelivered.append((self._replies_until, channel, bytes(identity), frames))
            if len(self._undelivered) == 1:
                self._loop.call_later(_AGAIN, self._send_again)

    def _send_again(self) -> None:
        waiting, self._undelivered = self._undelivered, deque()
        for deadline, channel, identity, frames in waiting:
            if not self._send(channel, identity, frames) and time.monotonic() < deadline:
                self._undelivered.append((deadline, channel, identity, frames))
        if self._undelivered:
            self._loop.call_later(_AGAIN, self._send_again)

    def _send(self, channel: str, identity: bytes, frames: list[Buffer]) -> bool:
        return bool(getattr(self._sockets, channel).send(identity, frames))
