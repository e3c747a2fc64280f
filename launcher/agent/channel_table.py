"""The channels that are open on a link, and whose turn it is to send."""

from collections import deque
from typing import Deque, Dict, Iterator, List, NamedTuple, Optional

from .channels import ChannelError, Priority, Sender
from .credit import Pool, Receiver

NUMBERS = 1 << 16


class Channel(NamedTuple):
    """Both halves of one."""

    sender: Sender
    receiver: Receiver
    life: int  # how often this number was opened before; travels with CREDIT, modulo 256


class Channels:
    """By number; channel 0 is always open."""

    def __init__(self, pool: Pool) -> None:
        # For each class those that can send something, in the order of their turns.
        self.ready: List[Deque[Sender]] = [deque() for _ in Priority]
        self._pool = pool
        self._channels: Dict[int, Channel] = {}
        self._lives: Dict[int, int] = {}
        self._newest = 0
        self._add(0, Priority.CONTROL, False)

    def __iter__(self) -> Iterator[Channel]:
        return iter(self._channels.values())

    def find(self, number: int) -> Optional[Channel]:
        return self._channels.get(number)

    def get(self, number: int) -> Channel:
        """Raises ChannelError."""
        channel = self._channels.get(number)
        if channel is None:
            raise ChannelError(number, "is not open")
        return channel

    def was_open(self, number: int) -> bool:
        """Whether this number was ever opened in this session."""
        return number in self._lives

    def open(self, number: int, priority: Priority, stream: bool) -> None:
        """Raises ChannelError."""
        if not 0 < number < NUMBERS:
            raise ChannelError(number, "cannot be opened: numbers are 1 to 65535")
        if number in self._channels:
            raise ChannelError(number, "is already open")
        self._add(number, priority, stream)

    def unused(self) -> int:
        """A number that is not open; they come round as late as possible.  Raises ChannelError."""
        for step in range(1, NUMBERS):
            number = (self._newest + step - 1) % (NUMBERS - 1) + 1
            if number not in self._channels:
                return number
        raise ChannelError(self._newest, "and all others are open")

    def close(self, number: int) -> None:
        """Our half, after what is queued.  Raises ChannelError."""
        sender = self.get(number).sender
        if number == 0 or sender.closing:
            raise ChannelError(number, "cannot be closed")
        sender.closing = True
        self.make_ready(sender)

    def make_ready(self, sender: Sender) -> None:
        """Give it its turn, if it has something to send and may."""
        if not sender.ready and sender.can_send():
            sender.ready = True
            self.ready[sender.priority].append(sender)

    def finish(self, number: int) -> None:
        """Forget a channel of which nothing is left."""
        channel = self._channels[number]
        if channel.sender.closed and channel.receiver.closed and not channel.receiver.held:
            del self._channels[number]

    def _add(self, number: int, priority: Priority, stream: bool) -> None:
        life = self._lives.get(number, -1) + 1
        self._lives[number] = life
        self._newest = number
        receiver = Receiver(number, priority, stream, self._pool)
        self._channels[number] = Channel(Sender(number, priority, stream), receiver, life)
