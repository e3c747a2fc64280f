"""Marked lines by their bytes, and split anywhere."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.board_kernel.records import (
    Ask,
    Clear,
    Display,
    Event,
    RecordReader,
    Result,
    Text,
    parse_record,
)


def read(*pieces: bytes) -> list[Event]:
    reader = RecordReader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    return merged([*events, *reader.finish()])


def merged(events: list[Event]) -> list[Event]:
    found: list[Event] = []
    for event in events:
        if isinstance(event, Text) and found and isinstance(found[-1], Text):
            found[-1] = Text(found[-1].text + event.text)
        else:
            found.append(event)
    return found


def test_text_and_records_in_their_order() -> None:
    assert read(b"a\x1efk:= '42'\r\nb\r\n\x1efk:clear wait\n") == [
        Text("a"),
        Result("42"),
        Text("b\r\n"),
        Clear(True),
    ]


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ("display text/html - '<b>\\n</b>'", Display("text/html", "<b>\n</b>")),
        ("display image/png p1 64:iVBORw==", Display("image/png", b"\x89PNG", "p1")),
        ("update image/png p1 b'\\x89PNG'", Display("image/png", b"\x89PNG", "p1", True)),
        ("input 'Who? '", Ask("Who? ")),
        ("password ''", Ask("", True)),
        ("clear", Clear()),
        ("= '\\xe9'", Result("é")),
        ("= 42", None),
        ("= '", None),
        ("= __import__('os')", None),
        ("display text/html '<b>'", None),
        ("display html - 'x'", None),
        ("display image/png - 64:?", None),
        ("clear now", None),
        ("", None),
    ],
)
def test_records(line: str, event: Event | None) -> None:
    assert parse_record(line) == event


def test_what_is_no_record_is_text() -> None:
    assert read(b"\x1e\x1efk:nonsense\n") == [Text("\x1e\x1efk:nonsense\n")]
    assert read(b"\x1efk:= 'unfinished") == [Text("\x1efk:= 'unfinished")]


def test_text_does_not_wait_for_what_may_follow() -> None:
    assert RecordReader().feed(b"abc\x1ef") == [Text("abc")]


def test_an_echo_is_not_shown() -> None:
    reader = RecordReader()
    reader.expect_echo(b"=Zoe\r\n")
    assert reader.feed(b"=Z") == []
    assert reader.feed(b"oe\r\nhello") == [Text("hello")]
    reader.expect_echo(b"=x\r\n")
    assert reader.feed(b"other") == [Text("other")]


records = st.one_of(
    st.text(st.characters(exclude_characters="\x1e\n", exclude_categories=["Cs"])).map(str.encode),
    st.text().map(lambda text: f"\x1efk:= {text!a}\r\n".encode()),
    st.just(b"\x1efk:clear\n"),
    st.binary(max_size=8),
)


@given(st.lists(records), st.lists(st.integers(0, 200)))
def test_splitting_changes_nothing(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    pieces = [data[start:end] for start, end in pairwise(places)]
    assert read(*pieces) == read(data)


@given(st.text())
def test_whatever_is_a_result_comes_back(text: str) -> None:
    assert read(f"\x1efk:= {text!a}\r\n".encode()) == [Result(text)]
