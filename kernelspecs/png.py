"""Just enough of PNG (ISO/IEC 15948) to put one small picture onto another: 8-bit images that are not interlaced."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from ..launcher.errors import FarkernelError

MAGIC = b"\x89PNG\r\n\x1a\n"
LARGEST_SIDE = 1024
_CHANNELS = {
    0: 1,
    2: 3,
    3: 1,
    4: 2,
    6: 4,
}  # by colour type: grey, RGB, palette, grey and alpha, RGB and alpha


class BadImage(FarkernelError):
    """It may be a fine picture for others."""

    kind = "image"

    def __init__(self, why: str) -> None:
        super().__init__(f"the logo cannot be read: {why}", "It must be an 8-bit PNG without interlacing.")


class Image(NamedTuple):
    """Rows from above, four bytes (red, green, blue, alpha) for each pixel."""

    width: int
    height: int
    pixels: bytes


def decode(data: bytes) -> Image:
    """Raises `BadImage`; what a far end sends may be anything."""
    if not data.startswith(MAGIC):
        raise BadImage("it is no PNG")
    header, palette, transparent, packed = b"", b"", b"", b""
    position = len(MAGIC)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        name, content = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        position += 12 + length
        if name == b"IHDR":
            header = content
        elif name == b"PLTE":
            palette = content
        elif name == b"tRNS":
            transparent = content
        elif name == b"IDAT":
            packed += content
    if len(header) != 13:
        raise BadImage("it has no header")
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if depth != 8 or interlaced or colour not in _CHANNELS:
        raise BadImage(f"{depth} bits, colour type {colour}{', interlaced' if interlaced else ''}")
    if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE):
        raise BadImage(f"{width} by {height} pixels")
    rows = _rows(packed, width * _CHANNELS[colour], height, _CHANNELS[colour])
    return Image(width, height, b"".join(_rgba(row, colour, palette, transparent) for row in rows))


def _rows(packed: bytes, size: int, height: int, step: int) -> list[bytearray]:
    """The rows with their filters undone (§9.2)."""
    wanted = (size + 1) * height
    try:
        raw = zlib.decompressobj().decompress(packed, wanted)
    except zlib.error as error:
        raise BadImage(str(error)) from None
    if len(raw) < wanted:
        raise BadImage("it is cut off")
    rows: list[bytearray] = []
    above = bytearray(size)
    for start in range(0, wanted, size + 1):
        row = bytearray(raw[start + 1 : start + 1 + size])
        _unfilter(raw[start], row, above, step)
        rows.append(row)
        above = row
    return rows


def _unfilter(kind: int, row: bytearray, above: bytearray, step: int) -> None:
    if kind > 4:
        raise BadImage(f"filter {kind}")
    if kind == 0:
        return
    for index in range(len(row)):
        left = row[index - step] if index >= step else 0
        corner = above[index - step] if index >= step else 0
        up = above[index]
        guess = (left, up, (left + up) // 2, _paeth(left, up, corner))[kind - 1]
        row[index] = (row[index] + guess) & 0xFF


def _paeth(left: int, up: int, corner: int) -> int:
    estimate = left + up - corner
    return min((left, up, corner), key=lambda each: abs(estimate - each))


def _rgba(row: bytearray, colour: int, palette: bytes, transparent: bytes) -> bytes:
    if colour == 6:
        return bytes(row)
    if colour == 2:
        return b"".join(bytes(row[index : index + 3]) + b"\xff" for index in range(0, len(row), 3))
    if colour == 0:
        return b"".join(bytes((grey, grey, grey, 255)) for grey in row)
    if colour == 4:
        return b"".join(bytes((row[i], row[i], row[i], row[i + 1])) for i in range(0, len(row), 2))
    pieces = []
    for number in row:
        entry = palette[3 * number : 3 * number + 3]
        if len(entry) < 3:
            raise BadImage("a colour is not in its palette")
        pieces.append(entry + (transparent[number : number + 1] or b"\xff"))
    return b"".join(pieces)


def encode(image: Image) -> bytes:
    """RGB and alpha, each row without a filter."""
    size = 4 * image.width
    lines = b"".join(
        b"\0" + image.pixels[start : start + size] for start in range(0, len(image.pixels), size)
    )
    header = struct.pack(">IIBBBBB", image.width, image.height, 8, 6, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b"")
    return MAGIC + b"".join(_chunk(name, data) for name, data in parts)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def scaled(image: Image, side: int) -> Image:
    """To a square: each new pixel is the mean of the old ones below it, weighted by how much they cover."""
    pixels = bytearray()
    for row in range(side):
        top = row * image.height // side
        bottom = max((row + 1) * image.height // side, top + 1)
        for column in range(side):
            left = column * image.width // side
            right = max((column + 1) * image.width // side, left + 1)
            pixels += _mean(image, left, right, top, bottom)
    return Image(side, side, bytes(pixels))


def _mean(image: Image, left: int, right: int, top: int, bottom: int) -> bytes:
    red = green = blue = covered = 0
    for row in range(top, bottom):
        for index in range(4 * (row * image.width + left), 4 * (row * image.width + right), 4):
            alpha = image.pixels[index + 3]
            red += image.pixels[index] * alpha
            green += image.pixels[index + 1] * alpha
            blue += image.pixels[index + 2] * alpha
            covered += alpha
    if not covered:
        return b"\0\0\0\0"
    count = (right - left) * (bottom - top)
    return bytes((red // covered, green // covered, blue // covered, covered // count))


def blended(below: Image, above: Image, x: int, y: int) -> Image:
    """The second picture on the first, its upper left corner at (x, y); it must fit."""
    pixels = bytearray(below.pixels)
    for row in range(above.height):
        for column in range(above.width):
            source = 4 * (row * above.width + column)
            place = 4 * ((y + row) * below.width + x + column)
            pixels[place : place + 4] = _over(
                above.pixels[source : source + 4], bytes(pixels[place : place + 4])
            )
    return Image(below.width, below.height, bytes(pixels))


def _over(above: bytes, below: bytes) -> bytes:
    """Porter and Duff's "over", for colours that are not multiplied by their alpha."""
    alpha = above[3] * 255 + below[3] * (255 - above[3])
    if not alpha:
        return b"\0\0\0\0"
    colours = (
        (above[i] * above[3] * 255 + below[i] * below[3] * (255 - above[3])) // alpha for i in range(3)
    )
    return bytes((*colours, alpha // 255))
