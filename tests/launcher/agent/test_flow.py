"""The window and the heartbeat: alone, and on simulated lines from 100 kbit/s to 1 Gbit/s."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from farkernel.launcher.agent.flow import (
    FIRST_WINDOW,
    HEARTBEAT_BUSY,
    HEARTBEAT_IDLE,
    LARGEST_WINDOW,
    SMALLEST_WINDOW,
    Heartbeat,
    Window,
)
from farkernel.launcher.agent.frames import MAX_PIECE
from farkernel.launcher.agent.link import Event, Link, Message, Priority, StreamData
from tests.launcher.agent.link_pair import Side, SimulatedWire, agent_link, keeper_link

OUTPUT, PORT = 1, 2


class Round:
    """Fills a window and acknowledges it after a round trip, over and over."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.number = 0
        self.now = 0.0

    def go(self, round_trip: float, full: bool = True) -> int:
        size = self.window.size if full else 100
        while self.window.in_flight < size:
            self.number += 1
            self.window.sent(max(100, size // 8))
        self.now += round_trip
        self.window.acknowledged(self.window.in_flight, self.number, self.number, round_trip, self.now)
        return self.window.size


def test_the_window_doubles_each_round_until_queues_are_seen() -> None:
    rounds = Round(Window(0.0))
    assert rounds.window.size == FIRST_WINDOW
    assert [rounds.go(0.04) for _ in range(4)] == [FIRST_WINDOW * 2**n for n in range(4)]


def test_the_window_does_not_grow_while_it_is_not_needed() -> None:
    rounds = Round(Window(0.0))
    assert [rounds.go(0.04, full=False) for _ in range(4)] == [FIRST_WINDOW] * 4


def test_at_the_start_a_quarter_of_the_window_is_need_enough() -> None:
    window = Window(0.0)
    for number in range(1, 200):
        for part in range(4):
            window.sent(1000)
            assert window.in_flight == 1000 * (part + 1)
        window.acknowledged(4000, number, number, 0.01, 0.01 * number)
    assert 16_000 < window.size <= 64_000  # four times what a cell needs, and it stays there
    hurries = 0
    for number in range(200, 300):
        hurries += sum(window.sent(1000) for _ in range(4))
        window.acknowledged(4000, number, number, 0.01, 0.01 * number)
    assert hurries == 0


def test_the_window_shrinks_while_queues_are_long_and_stays_within_its_bounds() -> None:
    rounds = Round(Window(0.0))
    for _ in range(20):
        rounds.go(0.04)
    assert rounds.window.size == LARGEST_WINDOW
    before = rounds.window.size
    assert rounds.go(0.24) < before
    for _ in range(60):
        rounds.go(1.0)
    assert rounds.window.size == SMALLEST_WINDOW


def test_a_piece_is_a_quarter_of_the_window_between_1_and_256_kib() -> None:
    window = Window(0.0)
    window.size = 4096
    assert window.piece == 1024
    window.size = 100_000
    assert window.piece == 25_000
    window.size = LARGEST_WINDOW
    assert window.piece == MAX_PIECE


def test_an_acknowledgement_is_asked_for_at_each_quarter_and_when_the_window_is_full() -> None:
    window = Window(0.0)
    window.size = 4000
    assert [window.sent(600) for _ in range(7)] == [False, True, False, True, False, True, True]
    assert not window.has_room()
    assert window.has_room(urgent=True)
    window.sent(1000)
    assert not window.has_room(urgent=True)


def test_a_longer_way_is_learnt_when_the_old_one_is_forgotten() -> None:
    rounds = Round(Window(0.0))
    rounds.go(0.01)
    for _ in range(400):
        rounds.go(0.25)
    assert rounds.window.base == pytest.approx(0.25)
    assert rounds.window.size > 20 * SMALLEST_WINDOW


def test_a_clock_that_goes_backwards_breaks_nothing() -> None:
    rounds = Round(Window(100.0))
    assert rounds.go(-3.0) >= SMALLEST_WINDOW
    assert rounds.window.base == 0.0


def test_one_heartbeat_of_silence_asks_and_a_second_one_gives_up() -> None:
    heart = Heartbeat(0.0)
    assert heart.deadline(busy=False) == HEARTBEAT_IDLE
    assert heart.deadline(busy=True) == HEARTBEAT_BUSY
    assert not heart.ask(9.9, busy=False)
    assert heart.ask(10.0, busy=False)
    assert not heart.ask(10.1, busy=False)
    assert heart.silent(19.9, busy=False) is None
    assert heart.silent(20.0, busy=False) == 20.0
    assert heart.deadline(busy=False) == float("inf")


def test_silence_that_began_before_we_were_busy_is_not_held_against_the_far_end() -> None:
    heart = Heartbeat(0.0)
    assert heart.silent(9.0, busy=True) is None
    assert heart.ask(9.0, busy=True)
    assert heart.silent(11.9, busy=True) is None
    heart.heard(11.95)
    assert heart.silent(12.0, busy=True) is None


# -- on simulated lines


class Flood(Side):
    """Keeps one channel full of messages of `size` bytes, and notes when control messages arrive."""

    def __init__(self, link: Link, size: int = 0, channel: int = OUTPUT) -> None:
        super().__init__(link)
        link.open(OUTPUT, Priority.OUTPUT)
        link.open(PORT, Priority.PORT, True)
        self.load = memoryview(bytes(size))
        self.channel = channel
        self.received = 0
        self.arrived: list[float] = []
        self.answers = b""  # what is said to each control message
        self.clock: Callable[[], float] = lambda: 0.0
        self.feed()

    def feed(self) -> None:
        while self.load and self.link.backlog(self.channel) < 4 * len(self.load) + 2**23:
            self.link.send(self.channel, [self.load])

    def take(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Message) and event.channel == 0:
                self.arrived.append(self.clock())
                if self.answers:
                    self.link.send(0, [self.answers])
            if isinstance(event, Message | StreamData):
                self.received += len(event.data)
                self.link.consumed(event.channel, len(event.data))
        self.feed()


def flooded(
    rate: float, delay: float, keeper_size: int, agent_size: int, channel: int = OUTPUT
) -> SimulatedWire:
    keeper, agent = Flood(keeper_link(), keeper_size, channel), Flood(agent_link(), agent_size, channel)
    wire = SimulatedWire(keeper, agent, rate, delay, segment=1448 if rate < 1e7 else 32768)
    keeper.clock = agent.clock = lambda: wire.now
    return wire


@pytest.mark.parametrize(("sizes", "first"), [((0, 10**6), 0.5), ((0, 200), 0.5), ((10**6, 10**6), 0.8)])
def test_control_passes_a_flood_at_100_kbit_in_half_a_second(sizes: tuple[int, int], first: float) -> None:
    """With floods in both directions the way without queues is known only after some seconds: `first`."""
    wire = flooded(12_500, 0.025, *sizes)
    sent = [0.5 + 0.73 * n for n in range(60)]
    for when in sent:
        for side in wire.sides:
            wire.at(when, lambda side=side: side.link.send(0, [b'{"do": "interrupt"}']))  # type: ignore[misc]
    wire.run(sent[-1] + 5)
    for side in wire.sides:
        assert isinstance(side, Flood)
        waits = [arrived - when for arrived, when in zip(side.arrived, sent, strict=True)]
        assert max(waits) < first
        assert max(waits[3:]) < 0.5
    assert wire.carried[1] > 0.85 * 12_500 * wire.now


def test_an_interrupt_and_its_answer_pass_a_flood_that_has_just_begun() -> None:
    wire = flooded(12_500, 0.025, 0, 10**6)
    keeper, agent = wire.sides
    assert isinstance(keeper, Flood)
    assert isinstance(agent, Flood)
    agent.answers = b"done"
    asked = [0.2, 0.5, 1.0]
    for when in asked:
        wire.at(when, lambda: keeper.link.send(0, [b"interrupt"]))
    wire.run(4.0)
    assert all(end - begin < 0.9 for begin, end in zip(asked, keeper.arrived, strict=True)), keeper.arrived


@pytest.mark.parametrize(("size", "channel"), [(8 * 2**20, OUTPUT), (60_000, OUTPUT), (2**16, PORT)])
def test_a_line_with_1_gbit_and_40_ms_is_used(size: int, channel: int) -> None:
    wire = flooded(125e6, 0.02, 0, size, channel)
    keeper = wire.sides[0]
    assert isinstance(keeper, Flood)
    wire.run(2.0)
    before = keeper.received
    wire.run(4.0)
    assert keeper.received - before > 0.8 * 125e6 * 2


def test_a_pipe_with_no_delay_to_speak_of_is_used() -> None:
    wire = flooded(1e9, 0.00005, 0, 2**20)
    keeper = wire.sides[0]
    assert isinstance(keeper, Flood)
    wire.run(0.2)
    assert keeper.received > 0.8 * 1e9 * 0.2


def test_the_window_does_not_creep_up_on_its_own_queue() -> None:
    wire = flooded(125_000, 0.025, 0, 10**6)
    wire.run(40)
    window = wire.sides[1].link._flight.window
    early = window.base
    wire.run(400)
    late = window.base
    assert early is not None
    assert late is not None
    assert late < 0.12
    assert window.size < 125_000 * 0.35
