"""Draws the logos of menu entries with nothing but zlib: `python -m farkernel.kernelspecs.draw_logos`.

Each logo is one list of shapes in a square of side 64; its PNGs and its SVG are made from that and lie in
`logo_files/`, because drawing takes longer than installing an entry should.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import NamedTuple

from .logos import DIRECTORY

SIDE = 64
_SAMPLES = 4  # per pixel and direction, against jagged edges

Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)


class Box(NamedTuple):
    """A rectangle with round corners; a disc when the radius is half its side."""

    x: float
    y: float
    width: float
    height: float
    radius: float
    colour: Colour

    def covers(self, x: float, y: float) -> bool:
        across = max(self.x + self.radius - x, x - (self.x + self.width - self.radius), 0.0)
        down = max(self.y + self.radius - y, y - (self.y + self.height - self.radius), 0.0)
        return across * across + down * down <= self.radius * self.radius

    def svg(self) -> str:
        red, green, blue = self.colour
        return (
            f'<rect x="{self.x:g}" y="{self.y:g}" width="{self.width:g}" height="{self.height:g}" '
            f'rx="{self.radius:g}" fill="#{red:02x}{green:02x}{blue:02x}"/>'
        )


def _ground(colour: Colour) -> Box:
    return Box(2, 2, 60, 60, 12, colour)


_BLUE, _GREEN, _TEAL = (33, 102, 172), (64, 120, 60), (0, 121, 125)
_PURPLE, _GREY = (106, 61, 154), (84, 92, 102)

# This machine: a screen; a host: a rack; a cluster: its nodes; a pool: many alike; a board: a chip.
SHAPES: dict[str, list[Box]] = {
    "local": [
        _ground(_GREY),
        Box(13, 15, 38, 26, 3, WHITE),
        Box(17, 19, 30, 18, 1, _GREY),
        Box(28, 41, 8, 6, 0, WHITE),
        Box(21, 46, 22, 4, 2, WHITE),
    ],
    "host": [
        _ground(_BLUE),
        *[Box(13, y, 38, 10, 3, WHITE) for y in (13, 27, 41)],
        *[Box(17, y + 3, 4, 4, 2, _BLUE) for y in (13, 27, 41)],
        *[Box(34, y + 4, 13, 2, 1, _BLUE) for y in (13, 27, 41)],
    ],
    "cluster": [
        _ground(_PURPLE),
        *[Box(x, y, 10, 10, 2, WHITE) for x in (13, 27, 41) for y in (13, 27, 41)],
        Box(29, 29, 6, 6, 3, _PURPLE),
    ],
    "pool": [
        _ground(_TEAL),
        *[Box(x, y, 13, 13, 6.5, WHITE) for x, y in ((25.5, 12), (12, 27), (39, 27), (25.5, 40))],
    ],
    "board": [
        _ground(_GREEN),
        Box(20, 20, 24, 24, 3, WHITE),
        *[Box(x, y, 3, 7, 1, WHITE) for x in (23, 30.5, 38) for y in (11, 46)],
        *[Box(x, y, 7, 3, 1, WHITE) for y in (23, 30.5, 38) for x in (11, 46)],
        Box(24, 24, 4, 4, 2, _GREEN),
    ],
}


def files(kind: str) -> dict[str, bytes]:
    """The logo files of a kind, by the names that Jupyter looks for."""
    shapes = SHAPES[kind]
    return {
        "logo-32x32.png": png(shapes, 32),
        "logo-64x64.png": png(shapes, 64),
        "logo-svg.svg": svg(shapes).encode(),
    }


def svg(shapes: list[Box]) -> str:
    body = "".join(shape.svg() for shape in shapes)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE} {SIDE}">{body}</svg>\n'


def png(shapes: list[Box], size: int) -> bytes:
    """An RGBA image of that many pixels wide and high."""
    # Each line begins with its filter: 0, none.
    lines = b"".join(
        b"\0" + b"".join(_pixel(shapes, column, row, size) for column in range(size)) for row in range(size)
    )
    header = struct.pack(">IIBBBBB", size, size, 8, 6, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _pixel(shapes: list[Box], column: int, row: int, size: int) -> bytes:
    red = green = blue = covered = 0
    scale = SIDE / size
    for across in range(_SAMPLES):
        for down in range(_SAMPLES):
            x = (column + (across + 0.5) / _SAMPLES) * scale
            y = (row + (down + 0.5) / _SAMPLES) * scale
            colour = next((shape.colour for shape in reversed(shapes) if shape.covers(x, y)), None)
            if colour is not None:
                covered += 1
                red, green, blue = red + colour[0], green + colour[1], blue + colour[2]
    if not covered:
        return b"\0\0\0\0"
    return bytes((red // covered, green // covered, blue // covered, covered * 255 // _SAMPLES**2))


def main() -> None:
    os.makedirs(DIRECTORY, exist_ok=True)
    for kind in SHAPES:
        for name, content in files(kind).items():
            with open(os.path.join(DIRECTORY, f"{kind}-{name}"), "wb") as file:
                file.write(content)


if __name__ == "__main__":
    main()
