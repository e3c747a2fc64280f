"""Draws logos: `python -m farkernel.kernelspecs.draw_logos` makes the marks of places in `logo_files/`.

Each logo is one list of shapes in a square of side 64; its PNGs and its SVG are made from that.  Those of languages
are drawn when an entry is installed, for kernels that have none of their own.
"""

from __future__ import annotations

import hashlib
import os
from typing import NamedTuple

from . import letters
from .logos import DIRECTORY
from .png import Image, encode

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

_GROUNDS = (_BLUE, _GREEN, _TEAL, _PURPLE, _GREY, (166, 54, 60), (153, 96, 18))

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


_DOT = 4
# What stands on the logo of a language, where its first two letters would not do.
_LETTERS = {"python": "PY", "bash": "$_", "c++": "C+", "julia": "JL", "javascript": "JS", "typescript": "TS"}


def language_ground(language: str) -> Box:
    """Always the same colour for a language."""
    return _ground(_GROUNDS[hashlib.sha256(language.lower().encode()).digest()[0] % len(_GROUNDS)])


def language_dots(language: str) -> list[Box]:
    """One or two letters, whose dots are whole pixels; a little up and to the left, for the sake of the mark."""
    name = language.lower()
    text = _LETTERS.get(name) or "".join(each for each in name if each.upper() in letters.LETTERS)[:2] or "?"
    columns = len(text) * (letters.WIDTH + 1) - 1
    left, top = (SIDE - 4 - columns * _DOT) // 2, (SIDE - 12 - letters.HEIGHT * _DOT) // 2
    return [
        Box(left + column * _DOT, top + row * _DOT, _DOT, _DOT, 0, WHITE)
        for column, row in letters.dots(text)
    ]


def language_svg(language: str) -> bytes:
    return svg([language_ground(language), *language_dots(language)]).encode()


def language_picture(language: str) -> Image:
    """As `png` would draw it, in a hundredth of the time: only the ground has edges that need samples."""
    shapes = [language_ground(language)]
    pixels = bytearray(b"".join(_pixel(shapes, x, y, SIDE) for y in range(SIDE) for x in range(SIDE)))
    for dot in language_dots(language):
        for row in range(int(dot.y), int(dot.y) + _DOT):
            start = 4 * (row * SIDE + int(dot.x))
            pixels[start : start + 4 * _DOT] = bytes((*WHITE, 255)) * _DOT
    return Image(SIDE, SIDE, bytes(pixels))


def files(kind: str) -> dict[str, bytes]:
    """The mark of a kind of place, as a picture and as a drawing."""
    shapes = SHAPES[kind]
    return {
        "logo-64x64.png": png(shapes, 64),
        "logo-svg.svg": svg(shapes).encode(),
    }


def svg(shapes: list[Box]) -> str:
    body = "".join(shape.svg() for shape in shapes)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE} {SIDE}">{body}</svg>\n'


def png(shapes: list[Box], size: int) -> bytes:
    """An RGBA image of that many pixels wide and high."""
    pixels = b"".join(_pixel(shapes, column, row, size) for row in range(size) for column in range(size))
    return encode(Image(size, size, pixels))


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
