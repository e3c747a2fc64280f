"""Messages put together from pieces, small ones and such as get a mapping of their own."""

from __future__ import annotations

import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.agent.assembly import LARGE, Assembly


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1))
def test_the_pieces_in_their_order(pieces: list[bytes]) -> None:
    message = Assembly(sum(map(len, pieces)), pieces[0])
    for piece in pieces[1:]:
        message.add(memoryview(piece))
    assert message.whole() == b"".join(pieces)
    assert message.filled == message.size


@pytest.mark.parametrize("size", [4 * LARGE - 1, 4 * LARGE, 9 * LARGE + 5])
def test_a_large_message_is_the_same_wherever_it_lies(size: int) -> None:
    content = bytes(range(251)) * (size // 251 + 1)
    message = Assembly(size, content[:1000])
    while message.filled < size:
        message.add(content[message.filled : min(message.filled + 200_000, size)])
    assert message.whole() == content[:size]


def test_what_is_announced_alone_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    real = mmap.mmap

    def counting(descriptor: int, size: int, flags: int) -> mmap.mmap:
        taken.append(size)
        return real(descriptor, size, flags=flags)

    monkeypatch.setattr(mmap, "mmap", counting)
    message = Assembly(1 << 30, b"x")
    message.add(bytes(LARGE - 2))
    assert taken == []
    message.add(b"y")
    assert taken == [1 << 30]


def test_without_address_space_it_is_put_together_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(descriptor: int, size: int, flags: int) -> mmap.mmap:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refused)
    content = bytes(5 * LARGE)
    message = Assembly(len(content), content[:LARGE])
    message.add(content[LARGE:])
    assert message.whole() == content
