"""Frames, byte by byte: what is written, what is read, what is refused."""

from __future__ import annotations

import itertools
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.agent import frames
from farkernel.launcher.agent.frames import (
    ACK,
    BYE,
    CLOSE,
    CREDIT,
    DATA,
    FIRST,
    HELLO,
    LAST,
    MAX_HELLO,
    MAX_PIECE,
    PING,
    Frame,
    FrameReader,
    Gathered,
    LinkViolation,
    NoCommonVersion,
    encode,
)
from tests.launcher.agent.link_pair import SESSION

EXCHANGE = [
    Frame(ACK, 0, 0, 0, bytes(7) + b"\x05"),
    Frame(DATA, FIRST | LAST, 7, 1, b"hello"),
    Frame(DATA, FIRST | LAST, 0, 2, b""),
    Frame(CREDIT, 3, 65535, 3, b"\0\0\0\0\0\x01\0\0"),
    Frame(CLOSE, 0, 7, 4, b""),
    Frame(DATA, 0, 7, frames.MOST_NUMBER, b"x" * 5000),
    Frame(PING, 0, 0, 0, b"12345678"),
]
BYTES = b"".join(
    encode(kind, bytes(payload), flags, channel, number) for kind, flags, channel, number, payload in EXCHANGE
)


def read(data: bytes) -> list[Frame]:
    return [frame._replace(payload=bytes(frame.payload)) for frame in FrameReader().feed(data)]


def test_a_frame_is_sixteen_bytes_of_header_and_its_payload() -> None:
    assert encode(DATA, b"hi", FIRST | LAST, 258, 3) == (
        b"\x00\x00\x00\x02\x02\x03\x01\x02\x00\x00\x00\x00\x00\x00\x00\x03hi"
    )
    assert encode(ACK, b"\0" * 7 + b"\x09") == bytes.fromhex(
        "00000008 05 00 0000 0000000000000000 0000000000000009"
    )


def test_frames_are_read_as_they_were_written() -> None:
    assert read(BYTES) == EXCHANGE


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 100])
def test_portions_make_no_difference(size: int) -> None:
    reader = FrameReader()
    seen = []
    for start in range(0, len(BYTES), size):
        for frame in reader.feed(BYTES[start : start + size]):
            seen.append(frame._replace(payload=bytes(frame.payload)))
    assert seen == EXCHANGE
    assert reader.held == 0


@given(st.lists(st.integers(0, len(BYTES)), max_size=8))
def test_no_portioning_makes_a_difference(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(BYTES)]
    reader = FrameReader()
    seen = []
    for start, end in itertools.pairwise(edges):
        for frame in reader.feed(bytearray(BYTES[start:end])):
            seen.append(frame._replace(payload=bytes(frame.payload)))
        assert reader.held <= frames.MAX_FRAME
    assert seen == EXCHANGE


def header(length: int, kind: int, flags: int = 0, channel: int = 0, number: int = 0) -> bytes:
    return frames.HEADER.pack(length, kind, flags, channel, number)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (header(0, 0), "unknown type 0"),
        (header(0, 9), "unknown type 9"),
        (header(0xFFFFFFFF, DATA, 3, 1, 1), "4294967295 bytes"),
        (header(MAX_PIECE + 9, DATA, 3, 1, 1), "262153 bytes"),
        (header(MAX_HELLO + 1, HELLO), "16385 bytes"),
        (header(7, ACK), "7 bytes"),
        (header(1, CLOSE, 0, 1, 1), "1 bytes"),
        (header(1, DATA, 16, 1, 1), "flags 0x10"),
        (header(8, ACK, 1), "flags 0x1"),
        (header(8, PING, 0, 1), "on channel 1"),
        (header(8, ACK, 0, 0, 1), "sequence number 1"),
        (header(1, DATA, 3, 1, 0), "sequence number 0"),
        (header(0, CLOSE, 0, 1, 1 << 63), "sequence number 9223372036854775808"),
    ],
)
@pytest.mark.parametrize("portion", [1, 1000])
def test_a_bad_frame_is_refused_at_its_header(bad: bytes, why: str, portion: int) -> None:
    reader = FrameReader()
    seen = []
    data = BYTES + bad

    def feed() -> None:
        for start in range(0, len(data), portion):
            for frame in reader.feed(data[start : start + portion]):
                seen.append(frame.kind)

    with pytest.raises(LinkViolation, match=why):
        feed()
    assert seen == [frame.kind for frame in EXCHANGE], "what was good before is given out"


@given(st.binary(max_size=400), st.integers(1, 50))
def test_whatever_the_bytes_frames_or_a_violation(data: bytes, portion: int) -> None:
    reader = FrameReader()
    try:
        for start in range(0, len(data), portion):
            for frame in reader.feed(data[start : start + portion]):
                assert 1 <= frame.kind <= 8
    except LinkViolation:
        pass
    assert reader.held <= frames.MAX_FRAME


def test_small_payloads_are_joined_and_large_ones_referred_to() -> None:
    large = memoryview(bytearray(10_000))
    out = Gathered()
    out.add(b"A" * 16, [b"one", b"two"], 6)
    out.add(b"B" * 16, [b"12345678", large], 10_008)
    out.add(b"C" * 16, [], 0)
    buffers = out.buffers()
    assert buffers == [b"A" * 16 + b"onetwo" + b"B" * 16 + b"12345678", large, b"C" * 16]
    assert buffers[1] is large
    assert out.size == 3 * 16 + 6 + 10_008


# -- HELLO and BYE


def hello_content(**changes: Any) -> bytes:
    content: dict[str, Any] = {
        "version": [1],
        "session": SESSION,
        "life": "",
        "received": 0,
        "resumed": False,
        "max_message": 1 << 30,
        "about": {"host": "node7"},
    }
    content.update(changes)
    return json.dumps({key: value for key, value in content.items() if value is not ...}).encode()


def test_hello_is_one_frame_of_json() -> None:
    frame = frames.encode_hello(SESSION, "", 3, False, 1 << 20, {"host": "node7"})
    length, kind, flags, channel, number = struct.unpack(">IBBHQ", frame[:16])
    assert (length, kind, flags, channel, number) == (len(frame) - 16, 1, 0, 0, 0)
    content = {
        "version": [1],
        "session": SESSION,
        "life": "",
        "received": 3,
        "resumed": False,
        "max_message": 1048576,
        "about": {"host": "node7"},
    }
    assert json.loads(frame[16:]) == content
    assert frames.open_hello(frame) == content


@pytest.mark.parametrize(
    "changes",
    [
        {"version": []},
        {"version": [0]},
        {"version": [True]},
        {"version": ["1"]},
        {"version": 1},
        {"version": list(range(1, 18))},
        {"version": ...},
        {"session": "0" * 31},
        {"session": SESSION + "\n"},
        {"session": SESSION.upper()},
        {"session": 7},
        {"life": "xyz"},
        {"life": None},
        {"received": -1},
        {"received": True},
        {"received": 1.0},
        {"received": 1 << 63},
        {"resumed": 1},
        {"max_message": 0},
        {"max_message": "10"},
        {"about": []},
        {"about": ...},
        {"about": {"host": "\ud800"}},
        {"about": float("nan")},
        {"about": float("inf")},
    ],
)
def test_a_hostile_hello_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(LinkViolation):
        frames.read_hello(hello_content(**changes))


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 16000, b'{"received": ' + b"9" * 9000 + b"}", b"1e999"],
)
def test_what_is_no_json_object_is_refused(payload: bytes) -> None:
    with pytest.raises(LinkViolation):
        frames.read_hello(payload)
    with pytest.raises(LinkViolation):
        frames.read_bye(payload)


def test_unknown_keys_of_a_hello_are_left_out() -> None:
    assert "surprise" not in frames.read_hello(hello_content(surprise=1))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_a_hello_or_a_violation(content: Any) -> None:
    for payload in (
        json.dumps(content).encode(),
        hello_content(about=content),
        hello_content(version=content),
    ):
        try:
            assert isinstance(frames.read_hello(payload)["about"], dict)
        except LinkViolation:
            pass


def test_one_hello_is_opened_and_nothing_else() -> None:
    frame = frames.encode_hello(SESSION, "", 0, False, 1, {})
    for bad in (b"", frame[:-1], frame + frame, encode(PING, b"12345678")):
        with pytest.raises(LinkViolation):
            frames.open_hello(bad)


def test_what_we_say_about_ourselves_is_bounded() -> None:
    with pytest.raises(ValueError, match="too long"):
        frames.encode_hello(SESSION, "", 0, False, 1, {"host": "x" * MAX_HELLO})


def test_bye_carries_its_reason() -> None:
    frame = frames.encode_bye("another keeper has taken over")
    assert frame[:5] == struct.pack(">IB", len(frame) - 16, BYE)
    assert frames.read_bye(frame[16:]) == "another keeper has taken over"
    for character in "é\0\U0001f600\udcff":
        reason = frames.read_bye(frames.encode_bye(character * 10_000)[16:])
        assert reason == character.replace("\udcff", "?") * 500
    with pytest.raises(LinkViolation, match="without a reason"):
        frames.read_bye(b'{"reason": 3}')


def test_errors_say_what_and_what_to_do() -> None:
    error = NoCommonVersion("agent", (1, 2), (7,))
    assert str(error) == (
        "This side speaks version 1 or 2 of the link, the agent speaks version 7. If the keeper is the older one, run "
        "`farkernel keeper restart`; an older agent ends when its kernels do, and the next one is of the keeper's version"
    )
    assert error.as_dict()["kind"] == "link-version"
    assert "`farkernel doctor`" in str(LinkViolation("frame 9 after frame 3"))
