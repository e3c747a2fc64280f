"""The frames of a board's far line: exact bytes, any split, nonsense refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.board.line_frames import LONGEST, Frame, FrameError, FrameReader, pack

FRAMES = st.lists(st.tuples(st.sampled_from(Frame), st.binary(max_size=50)), max_size=8)


def test_bytes() -> None:
    assert pack(Frame.WRITE, b"\x03") == b"w\x00\x00\x00\x01\x03"
    assert pack(Frame.OPENED) == b"O\x00\x00\x00\x00"


@given(frames=FRAMES, cuts=st.lists(st.integers(0, 400), max_size=6))
def test_any_split_gives_the_same_frames(frames: list[tuple[Frame, bytes]], cuts: list[int]) -> None:
    data = b"".join(pack(kind, content) for kind, content in frames)
    reader = FrameReader()
    found = []
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for begin, end in itertools.pairwise(places):
        found += list(reader.feed(data[begin:end]))
    assert found == frames


@pytest.mark.parametrize("data", [b"x\x00\x00\x00\x00", b"w" + (LONGEST + 1).to_bytes(4, "big")])
def test_nonsense(data: bytes) -> None:
    reader = FrameReader()
    given_out = reader.feed(pack(Frame.DATA, b"ok") + data)
    assert next(given_out) == (Frame.DATA, b"ok")
    with pytest.raises(FrameError):
        next(given_out)
