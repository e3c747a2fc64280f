"""UF2 files: exact bytes, round trip, damage."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.device_images import uf2
from farkernel.device_images.uf2 import BadUf2
from tests.device_images.samples import rp2_firmware

RP2040 = 0xE48BFF56


def test_exact_bytes() -> None:
    data = uf2.serialize(RP2040, [(0x10000000, b"\x01" * 256)])
    assert data == bytes.fromhex(
        "5546320a 57515d9e 00200000 00000010 00010000 00000000 01000000 56ff8be4"
    ) + b"\x01" * 256 + bytes(220) + bytes.fromhex("306fb10a")


@given(st.lists(st.integers(0, 4000), max_size=20, unique=True), st.sampled_from(sorted(uf2.FAMILIES)))
def test_round_trip(places: list[int], family: int) -> None:
    blocks = [(0x10000000 + place * 256, bytes([place & 0xFF]) * 256) for place in places]
    data = uf2.serialize(family, blocks)
    if not places:
        with pytest.raises(BadUf2):
            uf2.parse(data)
        return
    found = uf2.parse(data)
    assert (found.family, list(found.blocks)) == (family, blocks)
    assert found.chip == uf2.FAMILIES[family]


def test_pieces_are_filled_up() -> None:
    assert uf2.pieces(0x1000, b"a" * 300) == [(0x1000, b"a" * 256), (0x1100, b"a" * 44 + b"\xff" * 212)]


def changed(offset: int, *words: int) -> bytes:
    data = bytearray(rp2_firmware())
    struct.pack_into(f"<{len(words)}I", data, 512 + offset, *words)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a multiple of 512"),
        (rp2_firmware()[:-1], "not a multiple of 512"),
        (rp2_firmware()[:-512], "block 0 says that it is 0 of 32"),
        (changed(0, 0), "block 1 has not its marks"),
        (changed(508, 0), "block 1 has not its marks"),
        (changed(8, 0), "says not for which chip"),
        (changed(8, 0x2001), "is not for flash"),
        (changed(12, 0x10000001), "holds 256 bytes for 0x10000001"),
        (changed(12, 0x10000000), "two of its blocks have one address"),
        (changed(16, 476), "holds 476 bytes"),
        (changed(28, 1), "for different chips"),
    ],
)
def test_damage(data: bytes, reason: str) -> None:
    with pytest.raises(BadUf2) as error:
        uf2.parse(data)
    assert reason in error.value.what


@given(st.binary(max_size=64), st.integers(0, 1000))
def test_any_bytes_are_a_file_or_an_error(junk: bytes, place: int) -> None:
    good = rp2_firmware()[:1024]
    try:
        assert uf2.parse(good[:place] + junk + good[place + len(junk) :]).blocks
    except BadUf2:
        return
