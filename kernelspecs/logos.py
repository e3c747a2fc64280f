"""The logos of menu entries: the kernel's own, or one drawn for its language, with a small mark of where it runs."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Mapping

from . import png

DIRECTORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "logo_files")
NAMES = ("logo-32x32.png", "logo-64x64.png", "logo-svg.svg")
LARGEST = 256 * 1024  # of a kernel's own logo
SIDE = 64
MARK = 26  # of 64; in the lower right corner

_KINDS = {
    "local": "local",
    "ssh": "host",
    "slurm": "cluster",
    "pbs": "cluster",
    "torque": "cluster",
    "sge": "cluster",
    "lsf": "cluster",
    "htcondor": "cluster",
    "pool": "pool",
    "serial": "board",
    "webrepl": "board",
}


def kind_of(address: str) -> str:
    """Which mark stands for a target's address; a host's for schemes that outside backends bring."""
    return _KINDS.get(address.partition(":")[0], "host")


def files(kind: str, language: str, own: Mapping[str, bytes]) -> dict[str, bytes]:
    """The logo files for an entry's directory, by name.

    ``own``: those of the kernel, by the names that Jupyter has for them; what cannot be used is passed over.
    """
    picture = own_picture(own)
    if picture is None:
        from . import draw_logos

        picture = draw_logos.language_picture(language)
        drawn = draw_logos.language_svg(language)
    else:
        drawn = png.encode(picture)
    vector = own.get("logo-svg.svg", b"")
    if not is_svg(vector):
        vector = drawn
    return {
        "logo-32x32.png": png.encode(_marked(png.scaled(picture, 32), kind)),
        "logo-64x64.png": png.encode(_marked(png.scaled(picture, SIDE), kind)),
        "logo-svg.svg": _marked_svg(vector, kind),
    }


def decoded(found: object) -> dict[str, bytes]:
    """A kernel's logos as an agent sends them: base64, by name; what is none of them is passed over."""
    own = {}
    for name, text in found.items() if isinstance(found, dict) else ():
        if name in NAMES:
            with contextlib.suppress(ValueError, TypeError):
                own[str(name)] = base64.b64decode(text, validate=True)
    return own


def own_picture(own: Mapping[str, bytes]) -> png.Image | None:
    for name in ("logo-64x64.png", "logo-32x32.png"):
        data = own.get(name, b"")
        if 0 < len(data) <= LARGEST:
            try:
                return png.decode(data)
            except png.BadImage:
                continue
    return None


def is_svg(data: bytes) -> bool:
    return len(data) <= LARGEST and b"<svg" in data[:4096]


def _mark(kind: str, name: str) -> bytes:
    with open(os.path.join(DIRECTORY, f"{kind}-{name}"), "rb") as file:
        return file.read()


def _marked(picture: png.Image, kind: str) -> png.Image:
    side = MARK * picture.width // SIDE
    mark = png.scaled(png.decode(_mark(kind, "logo-64x64.png")), side)
    return png.blended(picture, mark, picture.width - side, picture.height - side)


def _marked_svg(picture: bytes, kind: str) -> bytes:
    """Both as pictures in a drawing of ours: whatever a far end wrote into its SVG, no script of it is ever run."""
    corner = SIDE - MARK
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {SIDE} {SIDE}">'
        f'<image width="{SIDE}" height="{SIDE}" xlink:href="{_as_address(picture)}"/>'
        f'<image x="{corner}" y="{corner}" width="{MARK}" height="{MARK}" '
        f'xlink:href="{_as_address(_mark(kind, "logo-svg.svg"))}"/></svg>\n'
    ).encode()


def _as_address(picture: bytes) -> str:
    media = "png" if picture.startswith(png.MAGIC) else "svg+xml"
    return f"data:image/{media};base64,{base64.b64encode(picture).decode()}"
