"""Pictures: read, written, made smaller, put onto each other."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.kernelspecs.png import MAGIC, BadImage, Image, blended, decode, encode, scaled

RED, BLUE, NOTHING = b"\xff\0\0\xff", b"\0\0\xff\xff", b"\0\0\0\0"


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def made(
    width: int, height: int, colour: int, raw: bytes, depth: int = 8, lace: int = 0, *more: bytes
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, lace)
    return (
        MAGIC
        + chunk(b"IHDR", header)
        + b"".join(more)
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )


@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_what_is_written_is_read(width: int, height: int, data: st.DataObject) -> None:
    size = 4 * width * height
    image = Image(width, height, data.draw(st.binary(min_size=size, max_size=size)))
    assert decode(encode(image)) == image


@given(st.integers(1, 5), st.integers(1, 5), st.data())
def test_every_filter(width: int, height: int, data: st.DataObject) -> None:
    """Filtered as the specification says (§9.2), independently of the code that undoes it."""
    pixels = data.draw(st.binary(min_size=4 * width * height, max_size=4 * width * height))
    raw, size = b"", 4 * width
    for row in range(height):
        kind = data.draw(st.integers(0, 4))
        line = pixels[row * size : (row + 1) * size]
        above = pixels[(row - 1) * size : row * size] if row else bytes(size)
        raw += bytes([kind])
        for index, value in enumerate(line):
            a = line[index - 4] if index >= 4 else 0
            b = above[index]
            c = above[index - 4] if index >= 4 else 0
            p = a + b - c
            nearest = min(((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c)))[2]
            raw += bytes([(value - (0, a, b, (a + b) // 2, nearest)[kind]) % 256])
    assert decode(made(width, height, 6, raw)).pixels == pixels


@pytest.mark.parametrize(
    ("colour", "raw", "more", "pixels"),
    [
        (0, b"\0\x07", (), b"\x07\x07\x07\xff"),
        (2, b"\0\x01\x02\x03", (), b"\x01\x02\x03\xff"),
        (4, b"\0\x07\x80", (), b"\x07\x07\x07\x80"),
        (3, b"\0\x01", (chunk(b"PLTE", b"\0\0\0\x01\x02\x03"),), b"\x01\x02\x03\xff"),
        (
            3,
            b"\0\x01",
            (chunk(b"PLTE", b"\0\0\0\x01\x02\x03"), chunk(b"tRNS", b"\0\x40")),
            b"\x01\x02\x03\x40",
        ),
    ],
)
def test_colour_types(colour: int, raw: bytes, more: tuple[bytes, ...], pixels: bytes) -> None:
    assert decode(made(1, 1, colour, raw, 8, 0, *more)) == Image(1, 1, pixels)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a",
        MAGIC,
        made(1, 1, 2, b"\0\x01\x02\x03", depth=16),
        made(1, 1, 2, b"\0\x01\x02\x03", lace=1),
        made(1, 1, 5, b"\0\x01\x02\x03"),
        made(2000, 2000, 2, b""),
        made(1, 1, 2, b"\x05\x01\x02\x03"),
        made(1, 1, 2, b"\0\x01"),
        made(1, 1, 3, b"\0\x01"),
        MAGIC + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"junk"),
    ],
)
def test_what_is_no_picture_for_us(data: bytes) -> None:
    with pytest.raises(BadImage, match="the logo cannot be read"):
        decode(data)


@given(st.binary(max_size=200))
def test_nothing_else_is_ever_raised(data: bytes) -> None:
    for text in (data, MAGIC + data, made(2, 2, 6, data)):
        try:
            decode(text)
        except BadImage:
            continue


def test_smaller_and_larger() -> None:
    halves = Image(2, 2, RED + BLUE + RED + BLUE)
    assert scaled(halves, 1).pixels == b"\x7f\0\x7f\xff"
    assert scaled(halves, 4).pixels == 4 * (2 * RED + 2 * BLUE)
    # What is transparent has no colour to mix in.
    assert scaled(Image(2, 1, RED + NOTHING), 1).pixels == b"\xff\0\0\x7f"


def test_one_on_the_other() -> None:
    below = Image(2, 2, 4 * RED)
    assert blended(below, Image(1, 1, BLUE), 1, 1).pixels == 3 * RED + BLUE
    assert blended(below, Image(1, 1, NOTHING), 0, 0) == below
    assert blended(Image(1, 1, NOTHING), Image(1, 1, BLUE), 0, 0).pixels == BLUE
    assert blended(Image(1, 1, RED), Image(1, 1, b"\0\0\xff\x80"), 0, 0).pixels == b"\x7f\0\x80\xff"
