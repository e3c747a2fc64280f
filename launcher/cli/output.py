"""What commands write: results on stdout, one sentence per error on stderr."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from typing import Any, TextIO

from ..text import clean

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}
_KEPT = "\x00"  # stands for a blank at which a line is not to be parted; clean text has none


def complain(what: object) -> None:
    """An error: what happened and what to do.  Several lines stay several (a configuration's errors)."""
    text = f"farkernel: {clean(what, keep=chr(10))}"
    print(_folded(text, sys.stderr), file=sys.stderr, flush=True)


def say(text: str) -> None:
    print(_folded(clean(text, keep="\n"), sys.stdout))


def terminal_columns(stream: TextIO) -> int | None:
    """None: it is no terminal, and whoever reads it wants whole lines."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def fold(text: str, width: int) -> list[str]:
    """Lines of at most that width, parted between words only: a path must stay in one piece."""
    # What stands in backquotes is there to be copied: its blanks are no places to part it.
    whole = re.sub("`[^`]*`", lambda match: match[0].replace(" ", _KEPT), text)
    # A line that was indented goes on with the same indent.
    indent = " " * (len(text) - len(text.lstrip(" ")))
    lines = textwrap.wrap(
        whole, max(width, 20), break_long_words=False, break_on_hyphens=False, subsequent_indent=indent
    )
    return [line.replace(_KEPT, " ") for line in lines]


def _folded(text: str, stream: TextIO) -> str:
    width = terminal_columns(stream)
    if width is None:
        return text
    return "\n".join("\n".join(fold(line, width)) if len(line) > width else line for line in text.split("\n"))


def emit(value: Any) -> None:
    """A result for programs; as ASCII, so that no escape code of a far end reaches a terminal."""
    import json

    print(json.dumps(value, indent=2))


def colours_wanted(stream: TextIO) -> bool:
    """Only on a terminal, and not where NO_COLOR (https://no-color.org) is set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str | None, wanted: bool) -> str:
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if wanted and colour else text
