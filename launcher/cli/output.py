"""What commands write: results on stdout, one sentence per error on stderr."""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO

from ..text import clean

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}


def complain(what: object) -> None:
    """An error: what happened and what to do.  Several lines stay several (a configuration's errors)."""
    print(f"farkernel: {clean(what, keep=chr(10))}", file=sys.stderr, flush=True)


def say(text: str) -> None:
    print(clean(text, keep="\n"))


def emit(value: Any) -> None:
    """A result for programs; as ASCII, so that no escape code of a far end reaches a terminal."""
    import json

    print(json.dumps(value, indent=2))


def colours_wanted(stream: TextIO) -> bool:
    """Only on a terminal, and not where NO_COLOR (https://no-color.org) is set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str | None, wanted: bool) -> str:
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if wanted and colour else text
