"""Two links joined by wires of memory: one that moves bytes at once, one with a rate, a delay and large buffers."""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from farkernel.launcher.agent import frames
from farkernel.launcher.agent.link import (
    ChannelClosed,
    Event,
    Link,
    Message,
    Role,
    StreamData,
)

SESSION = "0123456789abcdef" * 2


def keeper_link(max_message: int = 1 << 30) -> Link:
    return Link(Role.KEEPER, SESSION, {"host": "here"}, max_message)


def agent_link(max_message: int = 1 << 30) -> Link:
    return Link(Role.AGENT, SESSION, {"agent": "there"}, max_message)


def hello(
    received: int = 0,
    resumed: bool = False,
    life: str = "",
    max_message: int = 1 << 30,
    session: str = SESSION,
) -> bytes:
    return frames.encode_hello(session, life, received, resumed, max_message, {})


def written(link: Link, now: float = 0.0, limit: int = 1 << 20) -> bytes:
    """Everything that a link writes now."""
    out = bytearray()
    while link.has_output():
        out += b"".join(link.send_buffers(now, limit))
    return bytes(out)


def frames_in(data: bytes) -> list[frames.Frame]:
    return [frame._replace(payload=bytes(frame.payload)) for frame in frames.FrameReader().feed(data)]


def portions(data: bytes, sizes: Iterator[int]) -> Iterator[bytes]:
    position = 0
    while position < len(data):
        size = next(sizes)
        yield data[position : position + size]
        position += size


WHOLE = itertools.repeat(1 << 30)


class Side:
    """A link and what came out of it."""

    def __init__(self, link: Link, consume: bool = True) -> None:
        self.link = link
        self.consume = consume
        self.events: list[Event] = []
        self.messages: dict[int, list[bytes]] = defaultdict(list)
        self.streams: dict[int, bytearray] = defaultdict(bytearray)
        self.closed: list[int] = []
        self.on_event: Callable[[Event], None] = lambda event: None

    def take(self, events: Iterable[Event]) -> None:
        for event in events:
            assert self.link.held <= self.link.hold_limit
            if isinstance(event, Message):
                self.messages[event.channel].append(bytes(event.data))
            elif isinstance(event, StreamData):
                self.streams[event.channel] += event.data
            elif isinstance(event, ChannelClosed):
                self.closed.append(event.channel)
                self.events.append(event)
            else:
                self.events.append(event)
            self.on_event(event)
            if self.consume and isinstance(event, Message | StreamData):
                self.link.consumed(event.channel, len(event.data))


class Pair:
    """A keeper's and an agent's link; bytes move at once, in portions, and can be cut anywhere."""

    def __init__(self, keeper: Link | None = None, agent: Link | None = None, consume: bool = True) -> None:
        self.now = 0.0
        self.keeper = Side(keeper or keeper_link(), consume)
        self.agent = Side(agent or agent_link(), consume)
        self.sides = (self.keeper, self.agent)

    @property
    def links(self) -> tuple[Link, Link]:
        return self.keeper.link, self.agent.link

    def open(self, channel: int, priority: int, stream: bool = False) -> None:
        for link in self.links:
            link.open(channel, priority, stream)

    def connect(self) -> None:
        for link in self.links:
            link.connect(self.now)

    def cut(self) -> None:
        for link in self.links:
            link.disconnect(self.now)

    def run(
        self,
        budgets: tuple[float, float] = (float("inf"), float("inf")),
        sizes: Iterator[int] = WHOLE,
    ) -> tuple[int, int]:
        """Move bytes until nothing is left to say, or until the budget of a direction (keeper's, agent's) is
        used up: then the connection is cut.  Returns the bytes moved.
        """
        moved = [0, 0]
        while self._speak(moved, budgets, sizes):
            pass
        return moved[0], moved[1]

    def _speak(self, moved: list[int], budgets: tuple[float, float], sizes: Iterator[int]) -> bool:
        for index, (side, other) in enumerate(((self.keeper, self.agent), (self.agent, self.keeper))):
            while side.link.has_output():
                self.now += 0.0001
                data = b"".join(side.link.send_buffers(self.now))
                left = budgets[index] - moved[index]
                for portion in portions(data[: int(min(left, len(data)))], sizes):
                    other.take(other.link.receive(portion, self.now))
                moved[index] += int(min(left, len(data)))
                if left <= len(data):
                    self.cut()
                    return False
        return self._speaks_again()

    def _speaks_again(self) -> bool:
        if any(link.has_output() for link in self.links):
            return True
        deadline = min((link.deadline() or 1e9 for link in self.links), default=1e9)
        if deadline > self.now + 1:
            return False
        self.now = max(self.now, deadline)
        for side in self.sides:
            side.take(side.link.tick(self.now))
        return any(link.has_output() for link in self.links)


class SimulatedWire:
    """Two sides joined by a line with a rate (bytes/s), a one-way delay and buffers without end, in simulated time."""

    def __init__(self, keeper: Side, agent: Side, rate: float, delay: float, segment: int = 1448) -> None:
        self.now = 0.0
        self.sides = (keeper, agent)
        self.rate = rate
        self.delay = delay
        self.segment = segment
        self.carried = [0, 0]
        self._busy_until = [0.0, 0.0]
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._wake: list[float] = [0.0, 0.0]
        for side in self.sides:
            side.link.connect(0.0)

    def at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (when, next(self._order), act))

    def run(self, until: float) -> None:
        self._write()
        while self._agenda and self._agenda[0][0] <= until:
            self.now, _, act = heapq.heappop(self._agenda)
            act()
            self._write()
        self.now = until

    def _write(self) -> None:
        for index, side in enumerate(self.sides):
            while side.link.has_output():
                data = b"".join(side.link.send_buffers(self.now))
                for start in range(0, len(data), self.segment):
                    self._transmit(index, data[start : start + self.segment])
            deadline = side.link.deadline()
            if deadline is not None and not self.now < self._wake[index] <= deadline:
                self._wake[index] = max(deadline, self.now)
                self.at(self._wake[index], lambda side=side: side.take(side.link.tick(self.now)))  # type: ignore[misc]

    def _transmit(self, index: int, data: bytes) -> None:
        self.carried[index] += len(data)
        self._busy_until[index] = max(self._busy_until[index], self.now) + len(data) / self.rate
        other = self.sides[1 - index]
        self.at(self._busy_until[index] + self.delay, lambda: other.take(other.link.receive(data, self.now)))
