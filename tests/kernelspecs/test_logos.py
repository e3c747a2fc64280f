"""The logo of a menu entry: the kernel's own, or its language's, and a mark of the place."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from farkernel.kernelspecs import draw_logos, letters, logos, png
from farkernel.launcher.address import SCHEMES

YELLOW = png.Image(64, 64, b"\xff\xff\0\xff" * 64 * 64)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
KINDS = list(draw_logos.SHAPES)


def pictures(drawing: bytes) -> list[bytes]:
    """What a drawing holds; it must be well-formed."""
    root = ElementTree.fromstring(drawing)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    found = []
    for image in root:
        address = image.attrib["{http://www.w3.org/1999/xlink}href"]
        match = re.fullmatch(r"data:image/(?:png|svg\+xml);base64,([A-Za-z0-9+/=]+)", address)
        assert match is not None
        found.append(base64.b64decode(match[1]))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_shipped_marks_are_those_drawn(kind: str) -> None:
    drawn = draw_logos.files(kind)
    shipped = {name: Path(logos.DIRECTORY, f"{kind}-{name}").read_bytes() for name in drawn}
    assert shipped["logo-svg.svg"] == drawn["logo-svg.svg"]
    # Independent of how well it was compressed.
    assert png.decode(shipped["logo-64x64.png"]) == png.decode(drawn["logo-64x64.png"])
    assert len(list(Path(logos.DIRECTORY).iterdir())) == len(KINDS) * len(drawn)


def test_every_address_has_a_mark() -> None:
    assert {logos.kind_of(f"{scheme}:") for scheme in SCHEMES} == set(KINDS)
    assert logos.kind_of("k8s://cluster") == "host"


def test_the_kernels_own() -> None:
    made = logos.files("host", "python", {"logo-64x64.png": png.encode(YELLOW), "logo-svg.svg": SVG})
    assert made.keys() == set(logos.NAMES)
    for name, side in (("logo-64x64.png", 64), ("logo-32x32.png", 32)):
        picture = png.decode(made[name])
        assert (picture.width, picture.height) == (side, side)
        assert picture.pixels[:4] == b"\xff\xff\0\xff"
        middle = 4 * (side * (side - side // 5) + side - side // 5)
        assert picture.pixels[middle : middle + 4] != b"\xff\xff\0\xff"
    # It is a picture within ours: what it holds is shown, and never run.
    assert pictures(made["logo-svg.svg"]) == [SVG, Path(logos.DIRECTORY, "host-logo-svg.svg").read_bytes()]


def test_only_a_picture_or_only_a_drawing() -> None:
    own = {"logo-32x32.png": png.encode(png.scaled(YELLOW, 32))}
    made = logos.files("local", "python", own)
    assert png.decode(pictures(made["logo-svg.svg"])[0]).pixels[:4] == b"\xff\xff\0\xff"
    assert png.decode(made["logo-64x64.png"]).pixels[:4] == b"\xff\xff\0\xff"
    made = logos.files("local", "python", {"logo-svg.svg": SVG})
    assert pictures(made["logo-svg.svg"])[0] == SVG
    assert png.decode(made["logo-64x64.png"]).width == 64


@pytest.mark.parametrize(
    "own", [{}, {"logo-64x64.png": b"junk", "logo-svg.svg": b"junk"}, {"logo-svg.svg": b""}]
)
def test_drawn_for_the_language(own: dict[str, bytes]) -> None:
    made = logos.files("cluster", "R", own)
    assert pictures(made["logo-svg.svg"])[0] == draw_logos.language_svg("R")


@pytest.mark.parametrize("language", ["python", "R", "julia", "bash", "c++", "", "ß", "x" * 500])
def test_every_language_can_be_drawn(language: str) -> None:
    shapes = draw_logos.language_dots(language)
    assert len(shapes) > 5
    for box in shapes:
        assert box.x >= 0
        assert box.x + box.width <= draw_logos.SIDE
        assert box.y + box.height <= draw_logos.SIDE - 8


def test_a_drawn_picture_is_its_drawing() -> None:
    shapes = [draw_logos.language_ground("R"), *draw_logos.language_dots("R")]
    assert draw_logos.language_picture("R") == png.decode(draw_logos.png(shapes, draw_logos.SIDE))


def test_letters_are_complete() -> None:
    assert all(len(rows) == letters.HEIGHT and max(rows) < 32 for rows in letters.LETTERS.values())
    assert set("ABCDEFGHIJKLMNOPQRSTUVWXYZ$+#_?") == letters.LETTERS.keys()
    assert letters.dots("T")[:5] == [(column, 0) for column in range(5)]


@pytest.mark.parametrize(
    ("found", "own"),
    [
        (None, {}),
        ({"logo-svg.svg": base64.b64encode(SVG).decode(), "../evil": "eA=="}, {"logo-svg.svg": SVG}),
        ({"logo-svg.svg": "not base64!", "logo-64x64.png": 5}, {}),
    ],
)
def test_what_an_agent_sends(found: object, own: dict[str, bytes]) -> None:
    assert logos.decoded(found) == own
