"""What must hold whatever happens to the line, and whatever the far end sends."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farkernel.launcher.agent import frames
from farkernel.launcher.agent.frames import ACK, BYE, CLOSE, CREDIT, DATA, PING, PONG, encode
from farkernel.launcher.agent.link import (
    Bye,
    ChannelClosed,
    Connected,
    Link,
    LinkState,
    LinkViolation,
    Message,
    Priority,
    StreamData,
)
from tests.launcher.agent.link_pair import Pair, agent_link, hello, keeper_link, written
from tests.sites.pythons import PYTHONS

SHELL, OUTPUT, OTHER, PORT = 1, 2, 3, 4
INFINITY = float("inf")


def opened() -> Pair:
    pair = Pair(keeper_link(1 << 22), agent_link(1 << 22))
    for channel, priority in ((SHELL, Priority.SHELL), (OUTPUT, Priority.OUTPUT), (OTHER, Priority.OUTPUT)):
        pair.open(channel, priority)
    pair.open(PORT, Priority.PORT, True)
    return pair


class Talk:
    """Sends on both sides and knows what must arrive."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.expected: tuple[dict[int, list[bytes]], dict[int, list[bytes]]] = (
            defaultdict(list),
            defaultdict(list),
        )
        self.count = 0

    def say(self, who: int, channel: int, size: int) -> None:
        self.count += 1
        text = (b"%d:" % self.count + bytes(range(256)) * (size // 256 + 1))[:size]
        self.expected[1 - who][channel].append(text)
        self.pair.sides[who].link.send(channel, [text[: size // 3], b"", text[size // 3 :]])

    def check(self) -> None:
        """All that was said has arrived: identical, once, in order."""
        for side, expected in zip(self.pair.sides, self.expected, strict=True):
            streamed = {PORT: b"".join(expected[PORT])}
            assert {PORT: bytes(side.streams[PORT])} == streamed
            for channel in (0, SHELL, OUTPUT, OTHER):
                assert side.messages[channel] == expected[channel]
            assert side.link.held == 0


# -- cuts


def exchange(pair: Pair) -> Talk:
    talk = Talk(pair)
    for who, channel, size in (
        (0, SHELL, 40), (1, 0, 20), (1, OUTPUT, 1500), (1, OTHER, 300), (0, PORT, 700), (0, 0, 33), (1, PORT, 90),
        (0, OUTPUT, 1200), (1, SHELL, 0), (0, OTHER, 1),
    ):  # fmt: skip
        talk.say(who, channel, size)
    for link in pair.links:
        link.close(PORT)
    return talk


def recorded() -> tuple[int, int]:
    """How many bytes each direction of the exchange has."""
    pair = opened()
    exchange(pair)
    pair.connect()
    return pair.run()


def cut_once(budgets: tuple[float, float]) -> None:
    pair = opened()
    talk = exchange(pair)
    pair.connect()
    pair.run(budgets)
    if pair.keeper.link.state is LinkState.UP:
        pair.cut()
    pair.connect()
    pair.run()
    talk.check()
    assert pair.keeper.closed == pair.agent.closed == [PORT]


def test_a_cut_at_every_byte_of_an_exchange() -> None:
    forth, back = recorded()
    assert forth > 2000
    assert back > 2000
    for size in range(forth + 1):
        cut_once((size, INFINITY))
    for size in range(back + 1):
        cut_once((INFINITY, size))


def test_a_cut_at_every_seventh_byte_of_both_directions() -> None:
    forth, back = recorded()
    for sizes in itertools.product(range(0, forth + 1, 97), range(0, back + 1, 71)):
        cut_once(sizes)


SIZES = st.one_of(st.integers(0, 300), st.integers(0, 9000), st.integers(60_000, 300_000))
SAYING = st.tuples(st.integers(0, 1), st.sampled_from([0, SHELL, OUTPUT, OTHER, PORT]), SIZES)
CUT = st.tuples(
    st.one_of(st.integers(0, 3000), st.integers(0, 400_000)),
    st.one_of(st.integers(0, 3000), st.integers(0, 400_000)),
)


@settings(max_examples=80)
@given(
    st.lists(st.tuples(st.lists(SAYING, max_size=6), CUT), min_size=1, max_size=8),
    st.lists(st.integers(1, 70_000), min_size=1, max_size=5),
)
def test_all_that_is_said_arrives_once_and_in_order_whatever_is_cut(
    acts: list[tuple[list[tuple[int, int, int]], tuple[int, int]]], sizes: list[int]
) -> None:
    pair = opened()
    talk = Talk(pair)
    portions = itertools.cycle(sizes)
    pair.connect()
    for sayings, budgets in acts:
        for saying in sayings:
            talk.say(*saying)
        pair.run(budgets, portions)
        if pair.keeper.link.state is LinkState.DOWN:
            pair.connect()
    pair.run(sizes=portions)
    talk.check()


def test_a_thousand_cuts_lose_nothing() -> None:
    chance = random.Random(20260101)
    pair = opened()
    talk = Talk(pair)
    for _ in range(1000):
        for _ in range(3):
            talk.say(
                chance.randrange(2),
                chance.choice([0, SHELL, OUTPUT, OTHER, PORT]),
                int(2 ** chance.uniform(0, 15)),
            )
        pair.connect()
        pair.run((chance.randrange(60_000), chance.randrange(60_000)))
        pair.cut()
    pair.connect()
    pair.run()
    talk.check()


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from([SHELL, OUTPUT, OTHER]), st.integers(0, 900_000)), max_size=30),
    st.randoms(),
)
def test_a_slow_reader_blocks_nothing_for_ever(
    messages: list[tuple[int, int]], chance: random.Random
) -> None:
    """Data is consumed late and in any order between channels; the next is let in only by that."""
    pair = opened()
    pair.keeper.consume = False
    talk = Talk(pair)
    waiting: list[tuple[int, int]] = []
    pair.keeper.on_event = lambda event: (
        waiting.append((event.channel, len(event.data))) if isinstance(event, Message) else None
    )
    for channel, size in messages:
        talk.say(1, channel, size)
    pair.connect()
    pair.run()
    while waiting:
        channel = chance.choice(sorted({channel for channel, _ in waiting}))
        first = next(index for index, entry in enumerate(waiting) if entry[0] == channel)
        pair.keeper.link.consumed(*waiting.pop(first))
        pair.run()
    talk.check()


# -- a hostile far end


def hostile_frames() -> st.SearchStrategy[bytes]:
    payloads = st.one_of(
        st.binary(max_size=40),
        st.integers(0, 1 << 64).map(lambda value: min(value, (1 << 64) - 1).to_bytes(8, "big")),
        st.integers(0, 1 << 23).map(lambda value: value.to_bytes(8, "big") + b"some data"),
        st.integers(0, 70_000).map(bytes),
    )
    return st.builds(
        encode,
        st.integers(0, 9), payloads, st.integers(0, 16), st.integers(0, 6), st.integers(0, 30),
    )  # fmt: skip


def plausible(chance: random.Random, number: Iterator[int]) -> bytes:
    """A frame with the next sequence number, otherwise of any content: it gets far into the link."""
    kind = chance.choice([DATA] * 12 + [CREDIT, CLOSE, ACK, PING, PONG, BYE])
    channel = chance.choice([0, SHELL, OUTPUT, OTHER, PORT])
    if kind == DATA:
        flags = chance.choice([0, 1, 2, 3, 3, 3, 5, 7, 11, 15])
        size = chance.choice([0, 1, 100, 1024, 8192, 60_000, 262_144])
        prefix = (
            frames.NUMBER.pack(chance.choice([1, 5000, 65_536, 1 << 20, 1 << 22])) if flags & 3 == 1 else b""
        )
        return encode(kind, prefix + bytes(size), flags, channel, next(number))
    if kind == CREDIT:
        return encode(kind, frames.NUMBER.pack(chance.randrange(1 << 17)), 0, channel, next(number))
    if kind == CLOSE:
        return encode(kind, b"", 0, channel, next(number))
    if kind == BYE:
        return encode(kind, b'{"reason": "x"}')
    return encode(kind, frames.NUMBER.pack(0))


def attacked(link: Link) -> Link:
    """A link that is up and whose far end is the test."""
    link.connect(0.0)
    written(link)
    link.receive(hello(life="" if link.role.value == "agent" else "0" * 16, max_message=1 << 22), 0.0)
    written(link)
    for channel, priority in ((SHELL, Priority.SHELL), (OUTPUT, Priority.OUTPUT), (OTHER, Priority.OUTPUT)):
        link.open(channel, priority)
    link.open(PORT, Priority.PORT, True)
    return link


@settings(max_examples=300)
@given(
    st.lists(hostile_frames() | st.binary(max_size=60), max_size=20), st.integers(1, 100_000), st.booleans()
)
def test_any_bytes_give_events_or_a_violation(pieces: list[bytes], portion: int, greeted: bool) -> None:
    link = keeper_link(1 << 22)
    if greeted:
        attacked(link)
    else:
        link.connect(0.0)
    data = b"".join(pieces)
    try:
        for start in range(0, len(data), portion):
            for event in link.receive(data[start : start + portion], 1.0):
                assert isinstance(event, Connected | Message | StreamData | ChannelClosed | Bye)
            assert link.held <= link.hold_limit
            written(link, 1.0)
    except LinkViolation:
        assert link.state is LinkState.FAILED


@pytest.mark.parametrize("consuming", [0.0, 0.3, 1.0])
def test_what_a_hostile_far_end_makes_us_hold_is_bounded(consuming: float) -> None:
    survived = 0
    for seed in range(400):
        chance = random.Random(seed)
        link = attacked((keeper_link if seed % 2 else agent_link)(1 << 22))
        number = itertools.count(1)
        given_out: list[tuple[int, int]] = []
        try:
            for _ in range(60):
                for event in link.receive(plausible(chance, number), 1.0):
                    if isinstance(event, Message | StreamData):
                        given_out.append((event.channel, len(event.data)))
                assert link.held <= link.hold_limit
                if given_out and chance.random() < consuming:
                    link.consumed(*given_out.pop(0))
                written(link, 1.0)
                survived += 1
        except LinkViolation:
            pass
    assert survived > 400, "the attack must get beyond the first frame"


def test_a_far_end_that_obeys_and_never_ends_a_message_cannot_exceed_the_bound() -> None:
    """It uses all the credit that it gets, on every channel, and nothing is consumed."""
    link = attacked(keeper_link(1 << 22))
    number = itertools.count(1)
    room = dict.fromkeys((0, SHELL, OUTPUT, OTHER), 65536)
    sent = dict.fromkeys(room, 0)
    open_messages: set[int] = set()
    for _ in range(3000):
        for channel in room:
            first = channel not in open_messages
            size = min(16_384, room[channel] - 128 * first, (1 << 22) - 1 - sent[channel])
            if size < 1:
                continue
            open_messages.add(channel)
            sent[channel] += size
            room[channel] -= size + 128 * first
            prefix = frames.NUMBER.pack(1 << 22) if first else b""
            link.receive(encode(DATA, prefix + bytes(size), int(first), channel, next(number)), 1.0)
            assert link.held <= link.hold_limit
        for frame in frames.FrameReader().feed(written(link, 1.0)):
            if frame.kind == CREDIT:
                total = frames.NUMBER.unpack(frame.payload)[0]
                room[frame.channel] = total - sent[frame.channel] - 128
            if frame.kind != ACK:
                link.receive(
                    encode(ACK, frames.NUMBER.pack(max(frame.number, link._flight.acknowledged))), 1.0
                )
    assert sorted(sent.values())[1:] == [(1 << 22) - 1] * 3, (
        "one large message of each class came in but for a byte"
    )
    assert sorted(sent.values())[0] < 65_536


def test_a_flood_of_tiny_messages_counts_for_what_it_costs() -> None:
    link = attacked(keeper_link())
    messages = 65_536 // 128
    for number in range(1, messages + 1):
        link.receive(encode(DATA, b"", 3, SHELL, number), 0.0)
    with pytest.raises(LinkViolation, match="beyond its credit"):
        link.receive(encode(DATA, b"", 3, SHELL, messages + 1), 0.0)
    assert link.held == 65_536


def test_pings_and_duplicates_pile_up_nothing() -> None:
    link = attacked(keeper_link())
    link.receive(encode(DATA, b"x", 3, SHELL, 1), 0.0)
    for _ in range(10_000):
        link.receive(encode(PING, b"12345678") + encode(DATA, b"x", 3, SHELL, 1), 0.0)
    assert len(written(link)) < 100


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_million_inputs() -> None:
    script = Path(__file__).parents[3] / "scripts" / "fuzz_link.py"
    answer = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    print(answer.stdout)
    assert (answer.returncode, answer.stderr) == (0, ""), answer.stdout


# -- every Python that the agent may meet


def test_the_link_works_in_every_python_that_is_here() -> None:
    script = Path(__file__).with_name("link_selfcheck.py")
    package = Path(frames.__file__).parent
    for interpreter in PYTHONS:
        command = [str(interpreter), "-I", "-W", "error", str(script), str(package)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (answer.returncode, answer.stderr) == (0, ""), f"{interpreter}: {answer.stderr}"
        assert answer.stdout.startswith("link works in 3.")
