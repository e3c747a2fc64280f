"""The link's two ends against each other, and one end against a far end that breaks the rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from farkernel.launcher.agent import frames
from farkernel.launcher.agent.channels import CHANNEL_CREDIT, MESSAGE_COST
from farkernel.launcher.agent.credit import CHANNEL_MOST, POOL
from farkernel.launcher.agent.flow import HEARTBEAT_BUSY, HEARTBEAT_IDLE
from farkernel.launcher.agent.frames import (
    ACK,
    BYE,
    CLOSE,
    CREDIT,
    DATA,
    FIRST,
    HURRY,
    LAST,
    PING,
    PONG,
    WANT,
    encode,
)
from farkernel.launcher.agent.link import (
    ACK_DELAY,
    Bye,
    ChannelClosed,
    ChannelError,
    Connected,
    HalfOpen,
    Link,
    LinkState,
    LinkStateError,
    LinkViolation,
    Message,
    MessageTooLarge,
    NoCommonVersion,
    Priority,
    Role,
    StreamData,
)
from tests.launcher.agent.link_pair import SESSION, Pair, agent_link, frames_in, hello, keeper_link, written

WHOLE = FIRST | LAST
LIFE = "00112233445566ff"


def number(value: int) -> bytes:
    return frames.NUMBER.pack(value)


def data(payload: bytes, sequence: int, channel: int = 1, flags: int = WHOLE) -> bytes:
    return encode(DATA, payload, flags, channel, sequence)


def connected_keeper(channel: int = 1, max_message: int = 1 << 30) -> Link:
    """A keeper's link that has said HELLO and PING to a far end of which the test plays the part."""
    link = keeper_link(max_message)
    link.connect(0.0)
    written(link)
    assert link.receive(hello(life=LIFE), 0.0) == [Connected(False)]
    if channel:
        link.open(channel, Priority.OUTPUT)
    written(link)
    return link


def connected_pair(*channels: tuple[int, int, bool], **limits: int) -> Pair:
    pair = Pair(keeper_link(**limits), agent_link(**limits))
    pair.connect()
    pair.run()
    for channel in channels:
        pair.open(*channel)
    return pair


# -- connecting


def test_each_end_says_hello_and_a_ping_and_is_up() -> None:
    pair = Pair()
    assert [link.state for link in pair.links] == [LinkState.DOWN] * 2
    pair.connect()
    assert [link.state for link in pair.links] == [LinkState.GREETING] * 2
    keeper, agent = pair.links
    first = written(keeper)
    assert first == keeper.hello()
    assert not agent.has_output()
    assert agent.receive(first, 0.0) == [Connected(False)]
    assert [frame.kind for frame in frames_in(written(agent))] == [frames.HELLO, PING]
    pair.cut()
    pair.connect()
    pair.run()
    assert [link.state for link in pair.links] == [LinkState.UP] * 2
    assert keeper.peer["about"] == {"agent": "there"}
    assert agent.peer["about"] == {"host": "here"}


def test_a_hello_in_the_boot_script_is_not_said_again() -> None:
    keeper, agent = keeper_link(), agent_link()
    script = keeper.hello()
    keeper.connect(0.0, hello_sent=True)
    assert not keeper.has_output()
    agent.connect(0.0)
    agent.receive(script, 0.0)
    assert keeper.receive(written(agent), 0.0) == [Connected(False)]


def test_what_was_queued_before_the_first_connection_is_sent() -> None:
    pair = Pair()
    pair.open(1, Priority.SHELL)
    pair.keeper.link.send(1, [b"early"])
    pair.connect()
    pair.run()
    assert pair.agent.messages[1] == [b"early"]


def test_after_a_cut_the_session_is_resumed() -> None:
    pair = connected_pair((1, Priority.OUTPUT, False))
    pair.agent.link.send(1, [b"lost on the way"])
    assert written(pair.agent.link)
    pair.cut()
    pair.agent.link.send(1, [b"queued meanwhile"])
    pair.connect()
    pair.run()
    assert pair.keeper.messages[1] == [b"lost on the way", b"queued meanwhile"]
    assert pair.keeper.events == pair.agent.events == [Connected(False), Connected(True)]


def test_an_agent_that_does_not_know_the_session_means_a_new_one() -> None:
    pair = connected_pair((1, Priority.OUTPUT, False))
    pair.agent.link.send(1, [b"from the old agent"])
    pair.run()
    pair.keeper.link.send(1, [b"for the old agent"])
    pair.cut()
    fresh = Pair(pair.keeper.link, agent_link())
    fresh.connect()
    fresh.run()
    assert fresh.keeper.events == fresh.agent.events == [Connected(False)]
    with pytest.raises(ChannelError, match="Channel 1 is not open"):
        pair.keeper.link.send(1, [b"x"])
    fresh.open(1, Priority.OUTPUT)
    fresh.agent.link.send(1, [b"from the new agent"])
    fresh.keeper.link.send(1, [b"for the new agent"])
    fresh.run()
    assert fresh.keeper.messages[1] == [b"from the new agent"]
    assert fresh.agent.messages[1] == [b"for the new agent"]


def test_when_the_new_agents_answer_is_lost_the_keeper_still_learns_that_it_is_new() -> None:
    keeper = connected_pair((1, Priority.OUTPUT, False)).keeper.link
    keeper.send(1, [b"for the old agent"])
    keeper.disconnect(1.0)
    fresh = Pair(keeper, agent_link())
    fresh.connect()
    assert fresh.agent.link.receive(written(keeper), 1.0) == [Connected(False)]
    fresh.agent.link.send(0, [b"welcome"])
    assert written(fresh.agent.link)
    fresh.cut()
    fresh.connect()
    fresh.run()
    assert fresh.keeper.events == [Connected(False)]
    assert fresh.keeper.messages == {0: [b"welcome"]}
    assert fresh.agent.messages == {}


def test_a_boot_script_that_comes_late_does_no_harm() -> None:
    """Its HELLO speaks of an earlier time, and nobody is there behind it."""
    pair = connected_pair((1, Priority.OUTPUT, False))
    pair.cut()
    late = [keeper_link().hello(), pair.keeper.link.hello()]
    pair.connect()
    for text in (b"one", b"two", b"three"):
        pair.agent.link.send(1, [text])
    pair.run()
    pair.agent.link.send(1, [b"four"])
    agent = pair.agent.link
    pair.keeper.take(pair.keeper.link.receive(written(agent), pair.now))
    for text in late:
        agent.disconnect(pair.now)
        agent.connect(pair.now)
        assert agent.receive(text, pair.now) == [Connected(True)]
        written(agent)
    pair.cut()
    pair.connect()
    pair.agent.link.send(1, [b"five"])
    pair.run()
    assert pair.keeper.messages[1] == [b"one", b"two", b"three", b"four", b"five"]


def test_a_keeper_that_has_forgotten_is_refused_when_it_speaks() -> None:
    pair = connected_pair()
    pair.keeper.link.send(0, [b"x"])
    pair.run()
    pair.cut()
    agent = pair.agent.link
    agent.connect(pair.now)
    assert agent.receive(keeper_link().hello(), pair.now) == [Connected(True)]
    with pytest.raises(LinkViolation, match="forgotten what was said"):
        agent.receive(encode(PING, number(1)), pair.now)


def test_without_a_common_version_both_ends_fail_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair()
    pair.connect()
    keeper, agent = pair.links
    with monkeypatch.context() as patch:
        patch.setattr(frames, "VERSIONS", (2, 3))
        greeting = written(keeper)
    with pytest.raises(NoCommonVersion) as at_agent:
        agent.receive(greeting, 0.0)
    assert agent.state is LinkState.FAILED
    assert (at_agent.value.ours, at_agent.value.theirs) == ((1,), (2, 3))
    answer = written(agent)
    assert not agent.has_output()
    monkeypatch.setattr(frames, "VERSIONS", (2, 3))
    with pytest.raises(
        NoCommonVersion, match=r"the agent speaks version 1\. If .*`farkernel keeper restart`"
    ):
        keeper.receive(answer, 0.0)
    assert keeper.state is LinkState.FAILED


# -- messages and streams


def test_a_message_is_one_frame_and_its_acknowledgement_waits_for_company() -> None:
    pair = connected_pair((7, Priority.SHELL, False))
    keeper, agent = pair.links
    keeper.send(7, [b"ab", bytearray(b"cd"), memoryview(b"ef")])
    frame = encode(DATA, b"abcdef", WHOLE, 7, 1)
    now = 5.0
    assert keeper.send_buffers(now) == [frame]
    assert agent.receive(frame, now) == [Message(7, b"abcdef")]
    assert not agent.has_output()
    assert agent.deadline() == now + ACK_DELAY
    assert agent.tick(now + ACK_DELAY / 2) == []
    assert not agent.has_output()
    agent.tick(now + ACK_DELAY)
    assert agent.send_buffers(now + ACK_DELAY) == [encode(ACK, number(1))]
    keeper.receive(encode(ACK, number(1)), now + ACK_DELAY)
    keeper.send(7, [b"more"])
    agent.receive(b"".join(keeper.send_buffers(now)), now)
    agent.send(7, [b"answer"])
    assert agent.send_buffers(now) == [encode(DATA, b"answer", WHOLE, 7, 1) + encode(ACK, number(2))]


def test_a_large_message_goes_in_pieces_that_say_its_size_first() -> None:
    pair = connected_pair((1, Priority.OUTPUT, False))
    text = bytes(range(256)) * 20
    pair.agent.link.send(1, [text])
    pieces = frames_in(written(pair.agent.link, pair.now))
    flags = [frame.flags & ~HURRY for frame in pieces]
    assert flags == [FIRST, 0, 0, 0]
    assert pieces[0].payload == number(len(text)) + text[:1024]
    assert pieces[3].payload == text[3072:4096]
    assert [bool(frame.flags & HURRY) for frame in pieces] == [True] * 4
    pair.cut()
    pair.connect()
    pair.run()
    assert pair.keeper.messages[1] == [text]


def test_large_buffers_are_referred_to_and_not_copied() -> None:
    pair = connected_pair((1, Priority.OUTPUT, False))
    block = bytearray(10 << 20)
    for _ in range(3):
        pair.agent.link.send(1, [block])
        pair.run()
    pair.agent.link.send(1, [block])
    buffers = pair.agent.link.send_buffers(pair.now)
    views = [buffer for buffer in buffers if isinstance(buffer, memoryview)]
    assert views
    assert all(view.obj is block for view in views)


def test_a_stream_is_bytes_without_borders() -> None:
    pair = connected_pair((9, Priority.PORT, True))
    pair.keeper.link.send(9, [b"some ", b"bytes"])
    pair.keeper.link.send(9, [b""])
    assert pair.agent.link.receive(written(pair.keeper.link), 0.0) == [StreamData(9, b"some bytes")]
    pair.agent.link.consumed(9, 4)
    pair.agent.link.consumed(9, 6)
    assert pair.agent.link.held == 0


def test_an_empty_message_arrives() -> None:
    pair = connected_pair((1, Priority.SHELL, False))
    pair.keeper.link.send(1, [])
    pair.keeper.link.send(1, [b""])
    pair.run()
    assert pair.agent.messages[1] == [b"", b""]
    assert pair.agent.link.held == 0


def test_what_the_far_end_would_refuse_is_not_sent() -> None:
    pair = connected_pair((1, Priority.SHELL, False), max_message=1000)
    pair.keeper.link.send(1, [b"x" * 1000])
    with pytest.raises(
        MessageTooLarge, match="1,001 bytes is too large for the link: the far end takes 1,000 at most"
    ):
        pair.keeper.link.send(1, [b"x" * 1001])
    pair.run()
    assert pair.agent.messages[1] == [b"x" * 1000]


def test_a_message_queued_before_the_far_ends_limit_is_known_is_found_out() -> None:
    link = keeper_link()
    link.send(0, [b"x" * 2000])
    link.connect(0.0)
    with pytest.raises(LinkViolation, match="no more than 1999 bytes"):
        link.receive(hello(life=LIFE, max_message=1999), 0.0)


def test_a_closed_channel_says_so_and_its_number_can_be_used_again() -> None:
    pair = connected_pair((5, Priority.PORT, True))
    keeper, agent = pair.links
    keeper.send(5, [b"last words"])
    keeper.close(5)
    with pytest.raises(ChannelError, match="Channel 5 is closed"):
        keeper.send(5, [b"x"])
    pair.run()
    assert pair.agent.streams[5] == b"last words"
    assert pair.agent.events[-1] == ChannelClosed(5)
    agent.send(5, [b"the other half is open"])
    agent.close(5)
    pair.run()
    assert pair.keeper.streams[5] == b"the other half is open"
    for link in pair.links:
        with pytest.raises(ChannelError, match="not open"):
            link.backlog(5)
    pair.open(5, Priority.OUTPUT)
    agent.send(5, [b"another life"])
    pair.run()
    assert pair.keeper.messages[5] == [b"another life"]


def test_credit_for_an_earlier_life_of_a_number_is_ignored() -> None:
    link = connected_keeper()
    link.close(1)
    written(link)
    assert link.receive(encode(CLOSE, b"", 0, 1, 1), 0.0) == [ChannelClosed(1)]
    link.open(1, Priority.OUTPUT)
    link.receive(encode(CREDIT, number(1 << 40), 0, 1, 2), 0.0)
    link.send(1, [b"x" * 2 * CHANNEL_CREDIT])
    link.receive(encode(CREDIT, number(CHANNEL_CREDIT + 9), 1, 1, 3), 0.0)
    link.close(1)
    with pytest.raises(LinkViolation, match="channel 2, which is not open"):
        link.receive(encode(CREDIT, number(1 << 40), 0, 2, 4), 0.0)


def test_numbers_of_channels_come_round_late() -> None:
    link = keeper_link()
    assert link.unused_channel() == 1
    link.open(1, Priority.SHELL)
    assert link.unused_channel() == 2
    link.open(65535, Priority.SHELL)
    assert link.unused_channel() == 2


# -- priority and flow


def test_control_goes_before_shell_before_stdin_before_output_before_ports() -> None:
    pair = connected_pair(
        *[(10 + priority, priority, priority == Priority.PORT) for priority in reversed(Priority)]
    )
    for priority in reversed(Priority):
        pair.keeper.link.send(10 + priority, [b"x"])
    pair.keeper.link.send(0, [b"x"])
    order = [frame.channel for frame in frames_in(written(pair.keeper.link))]
    assert order == [10, 0, 11, 12, 13, 14]


def test_channels_of_one_class_take_turns() -> None:
    pair = connected_pair((1, Priority.OUTPUT, False), (2, Priority.OUTPUT, False))
    for _ in range(3):
        pair.keeper.link.send(1, [b"one"])
    for _ in range(3):
        pair.keeper.link.send(2, [b"two"])
    assert [frame.channel for frame in frames_in(written(pair.keeper.link))] == [1, 2, 1, 2, 1, 2]


def test_control_does_not_wait_for_a_window_full_of_output() -> None:
    pair = connected_pair((1, Priority.OUTPUT, False))
    pair.agent.link.send(1, [bytes(1 << 20)])
    assert written(pair.agent.link)
    assert not pair.agent.link.has_output()
    pair.agent.link.send(0, [b"urgent"])
    assert frames_in(written(pair.agent.link))[0].payload == b"urgent"


def test_backlog_tells_what_has_not_gone_out() -> None:
    pair = connected_pair((1, Priority.OUTPUT, False))
    pair.agent.link.send(1, [bytes(10_000)])
    assert pair.agent.link.backlog(1) == 10_000
    written(pair.agent.link)
    assert pair.agent.link.backlog(1) == 10_000 - 4096


def test_send_buffers_gives_about_what_was_asked_for() -> None:
    pair = connected_pair((1, Priority.OUTPUT, False))
    pair.agent.link.send(1, [bytes(8 << 20)])
    pair.run()
    pair.agent.link.send(1, [bytes(8 << 20)])
    size = sum(len(buffer) for buffer in pair.agent.link.send_buffers(pair.now, 10_000))
    assert 10_000 <= size <= 10_000 + frames.MAX_FRAME


# -- credit


def test_what_is_not_consumed_stops_the_sender_and_nobody_else() -> None:
    pair = connected_pair((1, Priority.SHELL, False), (2, Priority.OUTPUT, False))
    pair.keeper.consume = False
    pair.keeper.on_event = lambda event: (
        pair.keeper.link.consumed(2, len(event.data))
        if isinstance(event, Message) and event.channel == 2
        else None
    )
    for _ in range(200):
        pair.agent.link.send(1, [b"x" * 1000])
        pair.agent.link.send(2, [b"y" * 1000])
    pair.run()
    assert len(pair.keeper.messages[1]) == CHANNEL_CREDIT // (1000 + MESSAGE_COST)
    assert len(pair.keeper.messages[2]) == 200
    for _ in range(len(pair.keeper.messages[1])):
        pair.keeper.link.consumed(1, 1000)
    pair.keeper.consume = True
    pair.keeper.on_event = lambda event: None
    pair.run()
    assert len(pair.keeper.messages[1]) == 200
    assert pair.keeper.link.held == 0


def test_consuming_more_than_came_is_a_mistake() -> None:
    pair = connected_pair((1, Priority.SHELL, False))
    with pytest.raises(ValueError, match="consumed 3 bytes more than channel 1 gave"):
        pair.keeper.link.consumed(1, 3)


def test_large_messages_of_one_class_take_turns_and_other_classes_do_not_wait() -> None:
    pair = connected_pair(
        *[(n, Priority.OUTPUT, False) for n in (1, 2, 3)], (4, Priority.SHELL, False), max_message=1 << 22
    )
    sizes = [1 << 22, 1 << 20, 70_000, 5]
    for channel in (1, 2, 3, 4):
        for size in sizes:
            pair.agent.link.send(channel, [bytes(size)])
    pair.run()
    for channel in (1, 2, 3, 4):
        assert [len(message) for message in pair.keeper.messages[channel]] == sizes
    assert pair.keeper.link.held == 0
    assert pair.keeper.link.hold_limit == frames.MAX_FRAME + 5 * CHANNEL_CREDIT + POOL + 3 * (
        (1 << 22) + MESSAGE_COST
    )


def test_a_busy_channel_gets_a_larger_window_and_loses_it_when_calm() -> None:
    pair = connected_pair((1, Priority.OUTPUT, False))
    receiver = pair.keeper.link._channels.get(1).receiver
    for _ in range(40):
        for _ in range(50):
            pair.agent.link.send(1, [bytes(200_000)])
        pair.run()
    assert receiver.window == CHANNEL_MOST
    assert pair.keeper.link._pool.free <= POOL - CHANNEL_MOST + CHANNEL_CREDIT
    for _ in range(3000):
        pair.agent.link.send(1, [bytes(60_000)])
        pair.run()
    assert receiver.window == CHANNEL_CREDIT
    assert pair.keeper.link._pool.free == POOL
    pair.agent.link.close(1)
    pair.run()
    assert pair.keeper.link._pool.free == POOL


# -- time


def test_silence_is_asked_about_and_then_given_up() -> None:
    pair = connected_pair()
    link = pair.keeper.link
    heard = pair.now
    deadline = link.deadline()
    assert deadline is not None
    assert deadline <= heard + HEARTBEAT_IDLE
    assert link.tick(deadline) == []
    assert [frame.kind for frame in frames_in(written(link, deadline))] == [PING]
    assert link.tick(deadline + HEARTBEAT_IDLE - 0.1) == []
    (event,) = link.tick(deadline + HEARTBEAT_IDLE)
    assert isinstance(event, HalfOpen)
    assert event.silent_for == pytest.approx(2 * HEARTBEAT_IDLE, abs=0.1)
    assert link.tick(deadline + 100) == []


@pytest.mark.parametrize("why", ["unacknowledged", "awaited"])
def test_silence_is_noticed_sooner_when_something_is_expected(why: str) -> None:
    pair = connected_pair()
    link = pair.keeper.link
    start = pair.now
    if why == "awaited":
        link.awaiting = True
    else:
        link.send(0, [b"request"])
    written(link, start)
    assert link.tick(start + HEARTBEAT_BUSY) == []
    assert [frame.kind for frame in frames_in(written(link, start + HEARTBEAT_BUSY))] == [PING]
    assert isinstance(link.tick(start + 2 * HEARTBEAT_BUSY)[0], HalfOpen)


def test_a_ping_is_answered_once_however_many_came() -> None:
    link = connected_keeper()
    link.receive(encode(PING, b"11111111") + encode(PING, b"22222222"), 0.0)
    assert written(link) == encode(PONG, b"22222222")


def test_an_idle_pair_only_exchanges_heartbeats() -> None:
    pair = connected_pair()
    count = 0
    while pair.now < 3600:
        pair.now = min(link.deadline() or 1e9 for link in pair.links)
        for side in pair.sides:
            side.take(side.link.tick(pair.now))
        count += sum(pair.run())
    assert not any(isinstance(event, HalfOpen) for side in pair.sides for event in side.events)
    assert count < 3600 / HEARTBEAT_IDLE * 24 * 4


def test_an_agent_that_does_not_greet_is_given_up() -> None:
    link = keeper_link()
    link.connect(1.0)
    deadline = link.deadline()
    assert deadline is not None
    assert link.tick(deadline - 1) == []
    assert link.tick(deadline) == [HalfOpen(deadline - 1.0)]


def test_bye_is_the_last_word() -> None:
    pair = connected_pair()
    keeper, agent = pair.links
    agent.send(0, [b"not any more"])
    agent.bye("taken over by a keeper on laptop")
    said = written(agent)
    assert [frame.kind for frame in frames_in(said)] == [BYE]
    assert keeper.receive(said + b"\xff" * 100, 1.0) == [Bye("taken over by a keeper on laptop")]
    assert keeper.receive(b"and more", 1.0) == []
    assert not agent.has_output()


# -- a far end that breaks the rules


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (data(b"x", 2), "frame 2 after frame 0"),
        (data(b"x", 1, channel=2), "channel 2, which is not open"),
        (encode(CLOSE, b"", 0, 2, 1), "channel 2, which is not open"),
        (encode(CLOSE, b"", 0, 0, 1), "channel 0, which is not open"),
        (encode(CREDIT, number(1), 0, 2, 1), "channel 2, which is not open"),
        (encode(CREDIT, number(CHANNEL_CREDIT - 1), 0, 1, 1), "went from 65536 to 65535"),
        (encode(CREDIT, number(1 << 63), 0, 1, 1), "went from 65536"),
        (encode(ACK, number(1)), "frame 1 acknowledged, after 0 of 0"),
        (encode(ACK, number((1 << 64) - 1)), "acknowledged, after 0 of 0"),
        (data(b"x", 1, flags=LAST), "a piece of no message"),
        (data(b"x", 1, flags=0), "a piece of no message"),
        (data(number(9), 1, flags=FIRST), "begins wrongly"),
        (data(number(1 << 62) + b"x", 1, flags=FIRST), "a message of 4611686018427387904 bytes"),
        (data(number(1) + b"x", 1, flags=FIRST), "a message of 1 bytes"),
        (data(number(3) + b"x", 1, flags=FIRST) + data(b"x", 2, flags=FIRST), "a message within a message"),
        (data(number(3) + b"x", 1, flags=FIRST) + data(b"", 2, flags=0), "not as long as announced"),
        (data(number(3) + b"x", 1, flags=FIRST) + data(b"xx", 2, flags=0), "not as long as announced"),
        (data(number(3) + b"x", 1, flags=FIRST) + data(b"x", 2, flags=LAST), "not as long as announced"),
        (data(number(3) + b"x", 1, flags=FIRST) + encode(CLOSE, b"", 0, 1, 2), "CLOSE at the wrong moment"),
        (data(b"x" * CHANNEL_CREDIT, 1), "data beyond its credit"),
        (hello(), "a second HELLO"),
        (encode(BYE, b"[]"), "no object"),
        (b"\xff" * 16, "unknown type 255"),
    ],
)
def test_a_broken_rule_is_a_violation(bad: bytes, why: str) -> None:
    link = connected_keeper()
    with pytest.raises(LinkViolation, match=why):
        link.receive(bad, 0.0)
    assert link.state is LinkState.FAILED
    assert not link.has_output()
    assert link.deadline() is None
    assert link.tick(1.0) == []
    with pytest.raises(LinkViolation, match=why):
        link.receive(b"more", 1.0)


def test_data_after_close_is_a_violation() -> None:
    link = connected_keeper()
    link.receive(encode(CLOSE, b"", 0, 1, 1), 0.0)
    with pytest.raises(LinkViolation, match="data after CLOSE"):
        link.receive(data(b"x", 2), 0.0)


def test_a_piece_on_a_stream_must_be_whole() -> None:
    link = connected_keeper(channel=0)
    link.open(3, Priority.PORT, True)
    with pytest.raises(LinkViolation, match="begins wrongly"):
        link.receive(data(number(100) + b"x", 1, 3, FIRST), 0.0)


def test_an_acknowledgement_that_goes_backwards_is_a_violation() -> None:
    link = connected_keeper()
    for _ in range(3):
        link.send(1, [b"x"])
    written(link)
    link.receive(encode(ACK, number(2)) * 2, 0.0)
    with pytest.raises(LinkViolation, match="frame 1 acknowledged, after 2 of 3"):
        link.receive(encode(ACK, number(1)), 0.0)


@pytest.mark.parametrize(
    ("greeting", "why"),
    [
        (hello(life=LIFE, session="f" * 32), "HELLO of another session"),
        (hello(life=""), "contradicts itself"),
        (hello(life=LIFE, resumed=True), "contradicts itself"),
        (hello(life=LIFE, received=1), "1 frames received of 0 sent"),
        (encode(ACK, number(0)), "a frame of type 5 before HELLO"),
    ],
)
def test_a_greeting_that_breaks_the_rules_is_a_violation(greeting: bytes, why: str) -> None:
    link = keeper_link()
    link.connect(0.0)
    with pytest.raises(LinkViolation, match=why):
        link.receive(greeting, 0.0)


@pytest.mark.parametrize(
    ("received", "why"), [(1, "frame 2 acknowledged, then 1"), (9, "9 frames received of 3")]
)
def test_an_agent_that_remembers_wrongly_is_a_violation(received: int, why: str) -> None:
    link = connected_keeper()
    for _ in range(3):
        link.send(1, [b"x"])
    written(link)
    link.receive(encode(ACK, number(2)), 0.0)
    link.disconnect(0.0)
    link.connect(0.0)
    with pytest.raises(LinkViolation, match=why):
        link.receive(hello(received, True, LIFE), 0.0)


def test_what_was_good_before_a_violation_is_given_out_first() -> None:
    link = connected_keeper()
    assert link.receive(data(b"good", 1) + data(b"bad", 5), 2.0) == [Message(1, b"good")]
    assert not link.has_output()
    deadline = link.deadline()
    assert deadline is not None
    assert deadline <= 2.0
    with pytest.raises(LinkViolation, match="frame 5 after frame 1"):
        link.tick(2.0)
    assert link.state is LinkState.FAILED


def test_duplicates_are_dropped() -> None:
    link = connected_keeper()
    assert link.receive(data(b"a", 1) + data(b"a", 1) + data(b"b", 2) + data(b"a", 1), 0.0) == [
        Message(1, b"a"),
        Message(1, b"b"),
    ]


def test_a_sender_says_when_it_lacks_credit() -> None:
    link = connected_keeper()
    link.send(1, [b"x" * (2 * CHANNEL_CREDIT)])
    said = b""
    for acknowledged in range(200):
        new = written(link)
        said += new
        if not new:
            break
        link.receive(encode(ACK, number(link._flight.last)), 0.001 * acknowledged)
    pieces = frames_in(said)
    assert [bool(frame.flags & WANT) for frame in pieces] == [False] * (len(pieces) - 1) + [True]


# -- mistakes of our own


@pytest.mark.parametrize(
    ("mistake", "why"),
    [
        (lambda link: link.connect(0.0), "A link that is up cannot become greeting"),
        (lambda link: link.open(1, Priority.SHELL), "Channel 1 is already open"),
        (lambda link: link.open(0, Priority.SHELL), "Channel 0 cannot be opened"),
        (lambda link: link.open(65536, Priority.SHELL), "Channel 65536 cannot be opened"),
        (lambda link: link.send(2, [b""]), "Channel 2 is not open"),
        (lambda link: link.close(0), "Channel 0 cannot be closed"),
    ],
)
def test_mistakes_are_errors(mistake: Callable[[Link], Any], why: str) -> None:
    with pytest.raises((LinkStateError, ChannelError), match=why):
        mistake(connected_keeper())


def test_a_link_that_has_failed_can_do_nothing_more() -> None:
    link = connected_keeper()
    with pytest.raises(LinkViolation):
        link.receive(b"\xff" * 16, 0.0)
    link.disconnect(0.0)
    acts: list[Callable[[], None]] = [
        lambda: link.connect(0.0),
        lambda: link.send(1, [b"x"]),
        lambda: link.open(4, Priority.SHELL),
        lambda: link.close(1),
    ]
    for act in acts:
        with pytest.raises(LinkStateError, match="A link that is failed cannot"):
            act()


def test_nothing_can_be_received_without_a_connection() -> None:
    with pytest.raises(LinkStateError, match="A link that is down cannot receive"):
        keeper_link().receive(b"x", 0.0)


@pytest.mark.parametrize("session", ["", "0" * 31, "0" * 33, "G" * 32, SESSION + "\n"])
def test_a_session_is_named_by_32_hex_digits(session: str) -> None:
    with pytest.raises(ValueError, match="32 hex digits"):
        Link(Role.KEEPER, session, {})


def test_repr_tells_where_it_stands() -> None:
    link = connected_keeper()
    link.send(1, [b"abc"])
    assert repr(link) == (
        "<Link keeper 01234567 up: sent 0, acked 0, received 0, window 4096, in flight 0, backlog 3, held 0>"
    )
