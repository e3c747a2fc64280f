"""The ZMTP codec: exact bytes both ways, any cut of the stream, hostile input, and libzmq itself."""

from __future__ import annotations

import itertools
import socket
import struct

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.agent import zmtp
from farkernel.launcher.agent.zmtp import Command, Handshake, MessageParser, Scanner, ZmtpError

GREETING = b"\xff\0\0\0\0\0\0\0\0\x7f\x03\x01NULL" + bytes(16 + 1 + 31)
LIBZMQ_GREETING = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x01NULL" + bytes(16 + 1 + 31)
SUB_READY = b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03SUB"

frames_of_any_size = st.lists(
    st.one_of(
        st.binary(max_size=300),
        st.integers(250, 260).map(bytes),
        st.integers(zmtp.COPY_LIMIT - 2, zmtp.COPY_LIMIT + 2).map(bytes),
    ),
    min_size=1,
    max_size=6,
)
commands = st.tuples(st.binary(min_size=1, max_size=20), st.binary(max_size=300)).map(lambda c: Command(*c))


def encoded(frames: list[bytes]) -> bytes:
    return b"".join(zmtp.encode_message(frames))


def cut(data: bytes, points: list[int]) -> list[bytes]:
    edges = [0, *sorted(point % (len(data) + 1) for point in points), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


# -- encoding


def test_a_message_of_small_frames_is_one_buffer() -> None:
    assert zmtp.encode_message([b"ab", b"", b"c"]) == [b"\x01\x02ab\x01\x00\x00\x01c"]


def test_a_frame_of_256_bytes_has_a_long_header() -> None:
    assert encoded([bytes(255)]) == b"\x00\xff" + bytes(255)
    assert encoded([bytes(256)]) == b"\x02\0\0\0\0\0\0\x01\0" + bytes(256)


def test_large_frames_are_passed_by_reference() -> None:
    large = bytes(1 << 20)
    header, body, rest = zmtp.encode_message([b"a", large, b"z"])
    assert header == b"\x01\x01a\x03" + struct.pack(">Q", 1 << 20)
    assert body is large
    assert rest == b"\x00\x01z"


def test_a_buffer_of_numbers_counts_in_bytes() -> None:
    numbers = memoryview(bytes(80000)).cast("d")
    assert encoded([b"x", numbers]) == encoded([b"x", bytes(80000)])  # type: ignore[list-item]
    assert encoded([memoryview(bytes(80)).cast("d")]) == encoded([bytes(80)])  # type: ignore[list-item]


def test_no_message_is_without_frames() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        zmtp.encode_message([])


def test_subscriptions_in_both_versions() -> None:
    assert zmtp.encode_subscription(b"ab", minor=1) == b"\x04\x0c\x09SUBSCRIBEab"
    assert zmtp.encode_subscription(b"ab", minor=1, subscribe=False) == b"\x04\x09\x06CANCELab"
    assert zmtp.encode_subscription(b"ab", minor=0) == b"\x00\x03\x01ab"
    assert zmtp.encode_subscription(b"ab", minor=0, subscribe=False) == b"\x00\x03\x00ab"


@pytest.mark.parametrize("minor", [0, 1])
@pytest.mark.parametrize("subscribe", [True, False])
def test_subscriptions_are_understood(minor: int, subscribe: bool) -> None:
    (event,) = MessageParser().feed(zmtp.encode_subscription(b"topic", minor, subscribe))
    assert zmtp.as_subscription(event) == (subscribe, b"topic")


@pytest.mark.parametrize("event", [[b"\x02x"], [b""], [b"\x01a", b"b"], Command(b"PONG", b"")])
def test_other_things_are_no_subscriptions(event: zmtp.Event) -> None:
    assert zmtp.as_subscription(event) is None


def test_ping_is_answered_with_its_context() -> None:
    (ping,) = MessageParser().feed(b"\x04\x0a\x04PING\x00\x2aabc")
    assert isinstance(ping, Command)
    assert zmtp.answer_to(ping) == b"\x04\x08\x04PONGabc"


@pytest.mark.parametrize("body", [b"", b"\0", bytes(19)])
def test_a_ping_of_a_wrong_size_is_a_violation(body: bytes) -> None:
    with pytest.raises(ZmtpError, match="PING"):
        zmtp.answer_to(Command(b"PING", body))


def test_an_error_command_raises_with_its_reason_made_harmless() -> None:
    (error,) = MessageParser().feed(zmtp.encode_error("no\x1b[31m"))
    assert isinstance(error, Command)
    with pytest.raises(ZmtpError, match=r"the peer says: no\?\[31m$"):
        zmtp.answer_to(error)


def test_unknown_commands_are_left_alone() -> None:
    assert zmtp.answer_to(Command(b"JOIN", b"group")) is None


# -- handshake


def test_the_bytes_of_a_subscribers_handshake() -> None:
    handshake = Handshake("SUB")
    assert handshake.start() == GREETING
    assert handshake.receive(LIBZMQ_GREETING) == SUB_READY
    assert not handshake.done
    assert handshake.receive(b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04XPUB") == b""
    assert handshake.done
    assert handshake.peer == zmtp.Peer(1, "XPUB", b"", {"socket-type": b"XPUB"})


def test_a_dealer_tells_its_identity() -> None:
    handshake = Handshake("DEALER", b"me")
    ready = handshake.receive(GREETING)
    assert ready == b"\x04\x2b\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\x02me"
    router = Handshake("ROUTER")
    router.receive(GREETING + ready)
    assert (router.peer.socket_type, router.peer.identity) == ("DEALER", b"me")


@given(st.lists(st.integers(0, 1000)), st.binary(max_size=20))
def test_the_handshake_comes_in_any_pieces_and_leaves_the_rest(points: list[int], rest: bytes) -> None:
    handshake = Handshake("XPUB")
    output = b"".join(handshake.receive(piece) for piece in cut(LIBZMQ_GREETING + SUB_READY + rest, points))
    assert output == b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04XPUB"
    assert handshake.done
    assert handshake.surplus == rest


@pytest.mark.parametrize("long", [False, True])
def test_wanted_never_asks_for_a_byte_after_the_handshake(long: bool) -> None:
    ready = b"\x06" + struct.pack(">Q", 0x19) + SUB_READY[2:] if long else SUB_READY
    stream = LIBZMQ_GREETING + ready + b"NEXT"
    handshake = Handshake("XPUB")
    position = 0
    while handshake.wanted:
        step = handshake.wanted
        handshake.receive(stream[position : position + step])
        position += step
    assert handshake.done
    assert stream[position:] == b"NEXT"
    assert handshake.surplus == b""


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"GET / HTTP/1.1\r\n", "not ZMTP"),
        (b"\xff" + bytes(9), "not ZMTP"),
        (b"\xff\0\0\0\0\0\0\0\x01\x7f\x01\x00", "ZMTP 1"),
        (GREETING.replace(b"NULL\0", b"CURVE"), "mechanism 'CURVE'"),
        (GREETING + b"\x00\x05hello", "command was expected"),
        (GREETING + b"\x04\x08\x05ERROR\x01!", "the peer says: !"),
        (GREETING + b"\x04\x06\x05HELLO", "'HELLO' instead of READY"),
        (GREETING + b"\x06" + struct.pack(">Q", 1 << 40), "command of"),
        (GREETING + b"\x04\x00", "without a name"),
        (GREETING + b"\x04\x07\x05READY\x0b", "broken metadata"),
        (GREETING + b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\xffXPUB", "broken metadata"),
        (GREETING + b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03PUB", "'PUB' cannot talk to XPUB"),
        (GREETING + b"\x04\x06\x05READY", "'' cannot talk to XPUB"),
    ],
)
def test_a_bad_handshake_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(ZmtpError, match=problem):
        Handshake("XPUB").receive(data)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
def test_no_input_breaks_the_handshake_otherwise(data: bytes, points: list[int]) -> None:
    handshake = Handshake("ROUTER")
    try:
        for piece in cut(GREETING + data, points):
            handshake.receive(piece)
    except ZmtpError:
        return
    assert handshake.done or handshake.wanted > 0


# -- messages


@given(st.lists(st.one_of(frames_of_any_size, commands), max_size=6), st.lists(st.integers(0, 60000)))
def test_messages_and_commands_come_out_as_they_went_in(events: list[zmtp.Event], points: list[int]) -> None:
    stream = b"".join(zmtp.encode_command(*e) if isinstance(e, Command) else encoded(e) for e in events)
    parser = MessageParser()
    assert [event for piece in cut(stream, points) for event in parser.feed(piece)] == events


def test_a_command_amid_a_message_is_reported_first() -> None:
    events = MessageParser().feed(b"\x01\x01a" + zmtp.encode_command(b"PING", b"\0\0") + b"\x00\x01b")
    assert events == [Command(b"PING", b"\0\0"), [b"a", b"b"]]


def test_an_announced_size_takes_no_memory() -> None:
    parser = MessageParser()
    assert parser.feed(b"\x02" + struct.pack(">Q", zmtp.MAX_MESSAGE) + b"x") == []


@pytest.mark.parametrize(
    "stream",
    [
        b"\x02" + struct.pack(">Q", 1001),
        b"\x03" + struct.pack(">Q", 600) + bytes(600) + b"\x02" + struct.pack(">Q", 401),
        b"\x01\x00" * 11,
        b"\x04\x00",
        b"\x04\x02\x05P",
        b"\x05\x05\x04PING",
        b"\x08\x00",
        b"\x06" + struct.pack(">Q", 65537),
    ],
)
def test_limits_and_rules(stream: bytes) -> None:
    with pytest.raises(ZmtpError):
        MessageParser(max_message=1000, max_frames=10).feed(stream)


@given(st.binary(max_size=100), st.lists(st.integers(0, 100)))
def test_no_input_breaks_the_parser_otherwise(data: bytes, points: list[int]) -> None:
    parser = MessageParser(max_message=1000, max_frames=10)
    try:
        for piece in cut(data, points):
            parser.feed(piece)
    except ZmtpError:
        pass


@given(frames_of_any_size)
def test_decode_message_gives_the_frames(frames: list[bytes]) -> None:
    assert [bytes(frame) for frame in zmtp.decode_message(encoded(frames))] == frames


def test_decode_message_does_not_copy_large_frames() -> None:
    data = bytearray(encoded([b"small", bytes(100000)]))
    small, large = zmtp.decode_message(data)
    assert isinstance(small, bytes)
    assert isinstance(large, memoryview)
    data[-1] = 7
    assert large[-1] == 7


def test_decode_message_leaves_commands_out() -> None:
    data = b"\x01\x01a" + zmtp.encode_command(b"PING", b"\0\0") + b"\x00\x01b"
    assert zmtp.decode_message(data) == [b"a", b"b"]


@pytest.mark.parametrize(
    "data", [b"", b"\x01\x01a", b"\x00", b"\x00\x05a", b"\x00\x01a\x00\x01b", b"\x02\0\0", b"\x08\x01a"]
)
def test_decode_message_wants_one_whole_message(data: bytes) -> None:
    with pytest.raises(ZmtpError):
        zmtp.decode_message(data)


# -- scanning


@given(st.lists(st.one_of(frames_of_any_size, commands), max_size=6), st.lists(st.integers(0, 60000)))
def test_the_scanner_finds_the_end_of_each_unit(events: list[zmtp.Event], points: list[int]) -> None:
    units = [zmtp.encode_command(*e) if isinstance(e, Command) else encoded(e) for e in events]
    scanner = Scanner()
    found = []
    unit = b""
    for piece in cut(b"".join(units), points):
        start = 0
        while (end := scanner.feed(piece, start, len(piece))) is not None:
            found.append((unit + piece[start:end], scanner.is_command))
            assert scanner.unit_size == len(found[-1][0])
            unit = b""
            start = end
        unit += piece[start:]
    assert found == [(unit, isinstance(event, Command)) for unit, event in zip(units, events, strict=True)]


def test_commands_amid_a_message_are_listed() -> None:
    ping = zmtp.encode_command(b"PING", b"\0\0")
    data = b"\x01\x01a" + ping + b"\x00\x01b"
    scanner = Scanner()
    assert zmtp.scan(data, 0, len(data), scanner) == len(data)
    assert not scanner.is_command
    ((offset, size),) = scanner.commands
    assert zmtp.parse_command(data[offset : offset + size]) == Command(b"PING", b"\0\0")


def test_scan_looks_at_nothing_twice_and_survives_a_move() -> None:
    class Watched(bytearray):
        """Counts the bytes that are looked at."""

        looked = 0

        def __getitem__(self, key):  # type: ignore[no-untyped-def]
            got = super().__getitem__(key)
            Watched.looked += len(got) if isinstance(key, slice) else 1
            return got

    message = encoded([b"topic", bytes(5_000_000), b"end"])
    buffer = Watched(b"junk" + message)
    scanner = Scanner()
    ends = [zmtp.scan(buffer, 4, end, scanner) for end in range(4, len(buffer), 5000)]
    assert set(ends) == {None}
    moved = Watched(message + b"\x00")
    assert zmtp.scan(moved, 0, len(moved), scanner) == len(message)
    assert Watched.looked < 30


@pytest.mark.parametrize("data", [b"\x08\x00", b"\x05\x05", b"\x06\0\0\0\0\0\x01\0\x01", b"\x01\0" * 11])
def test_the_scanner_refuses_what_breaks_the_protocol(data: bytes) -> None:
    with pytest.raises(ZmtpError):
        Scanner(max_frames=10).feed(data, 0, len(data))


# -- libzmq


def greet(sock: socket.socket, handshake: Handshake) -> zmtp.Peer:
    """Reads exactly the handshake."""
    sock.sendall(handshake.start())
    while not handshake.done:
        sock.sendall(handshake.receive(sock.recv(handshake.wanted)))
    assert handshake.surplus == b""
    return handshake.peer


@pytest.mark.timeout(20)
def test_as_clients_of_libzmq() -> None:
    with zmq.Context() as context, context.socket(zmq.XPUB) as xpub, context.socket(zmq.ROUTER) as router:
        sub = socket.create_connection(("127.0.0.1", xpub.bind_to_random_port("tcp://127.0.0.1")))
        dealer = socket.create_connection(("127.0.0.1", router.bind_to_random_port("tcp://127.0.0.1")))
        with sub, dealer:
            peer = greet(sub, Handshake("SUB"))
            assert (peer.socket_type, peer.minor) == ("XPUB", 1)
            sub.sendall(zmtp.encode_subscription(b"t", peer.minor))
            assert xpub.recv() == b"\x01t"
            xpub.send_multipart([b"topic", bytes(70000)])
            parser = MessageParser()
            events: list[zmtp.Event] = []
            while not events:
                events = parser.feed(sub.recv(65536))
            assert events == [[b"topic", bytes(70000)]]
            sub.sendall(zmtp.encode_subscription(b"t", peer.minor, subscribe=False))
            assert xpub.recv() == b"\x00t"

            assert greet(dealer, Handshake("DEALER", b"me")).socket_type == "ROUTER"
            dealer.sendall(encoded([b"", b"hello"]))
            assert router.recv_multipart() == [b"me", b"", b"hello"]
            router.send_multipart([b"me", b"back"])
            assert MessageParser().feed(dealer.recv(100)) == [[b"back"]]
