"""Tables that fit the terminal."""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..text import one_line
from ..text import size as bytes_for_people
from .output import colours_wanted, fold, paint, terminal_columns

GAP = 2
NARROWEST = 8  # a column is not made narrower than this, nor wider than its content


class Column(NamedTuple):
    """One column: where its cells come from and how it behaves when space is short."""

    key: str
    title: str
    shrinks: bool = False
    right: bool = False


# How the states of kernels, links and targets are shown on a terminal.
COLOURS = {
    "live": "green",
    "up": "green",
    "ok": "green",
    "waiting": "yellow",
    "starting": "yellow",
    "ended": "dim",
    "skipped": "dim",
    "down": "red",
    "failed": "red",
}


def show(columns: Sequence[Column], rows: Sequence[Mapping[str, object]], aside: str = "") -> None:
    """Print a table; columns in which no row has anything are left out.

    What the column ``aside`` says (why something failed) goes below the table, after the name in the first column,
    where a terminal is too narrow to show all of it.
    """
    width = terminal_columns(sys.stdout)
    colours = colours_wanted(sys.stdout)
    lines = lay_out(columns, rows, width, colours)
    texts = {one_line(row.get(columns[0].key)): _cell(row.get(aside)) for row in rows}
    if width is not None and any(text and text not in "\n".join(lines) for text in texts.values()):
        lines = lay_out([column for column in columns if column.key != aside], rows, width, colours)
        for name, text in texts.items():
            lines += fold(f"{name}: {text}", width) if text else []
    print("\n".join(lines))


def lay_out(
    columns: Sequence[Column], rows: Sequence[Mapping[str, object]], width: int | None, colours: bool = False
) -> list[str]:
    """The lines of a table; with a width, columns that may shrink do so until the table fits."""
    cells = [{column.key: _cell(row.get(column.key)) for column in columns} for row in rows]
    used = [column for column in columns if any(row[column.key] for row in cells)]
    titles = {column.key: column.title for column in used}
    widths = [max(cells_wide(row[column.key]) for row in [titles, *cells]) for column in used]
    if width is not None:
        _shrink(used, widths, width)
    lines = [_line(used, widths, titles, None, "bold" if colours else None)]
    lines += [_line(used, widths, row, COLOURS if colours else None, None) for row in cells]
    return lines


def _cell(value: object) -> str:
    return "" if value is None else one_line(value)


def _shrink(columns: Sequence[Column], widths: list[int], width: int) -> None:
    """Take what is too much from the widest columns that may shrink."""
    room = width - GAP * (len(columns) - 1)
    while sum(widths) > room:
        candidates = [
            (widths[index], index)
            for index, column in enumerate(columns)
            if column.shrinks and widths[index] > NARROWEST
        ]
        if not candidates:
            return
        _, widest = max(candidates)
        widths[widest] -= 1


def _line(
    columns: Sequence[Column],
    widths: Sequence[int],
    row: Mapping[str, str],
    colours: Mapping[str, str] | None,
    all_: str | None,
) -> str:
    parts = []
    for column, width in zip(columns, widths, strict=True):
        text = cut(row[column.key], width)
        blanks = " " * (width - cells_wide(text))
        colour = all_ or (colours or {}).get(text)
        painted = paint(text, colour, colour is not None)
        parts.append(blanks + painted if column.right else painted + blanks)
    return (" " * GAP).join(parts).rstrip()


def cells_wide(text: str) -> int:
    """How many columns of a terminal a text takes: East Asian wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(_wide(character) for character in text)


def _wide(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, width: int) -> str:
    """At most `width` columns; what is left out is shown by an ellipsis."""
    if cells_wide(text) <= width:
        return text
    kept, used = "", 0
    for character in text:
        used += _wide(character)
        if used > width - 1:
            break
        kept += character
    return kept + "…"


# -- cells -------------------------------------------------------------------------------------------------

size = bytes_for_people


def duration(seconds: Any) -> str:
    """Seconds for people, two units at most: 45 s, 3 h 20 min."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return ""
    left = max(round(seconds), 0)
    if left < 60:
        return f"{left} s"
    if left < 3600:
        return f"{left // 60} min"
    if left < 48 * 3600:
        return f"{left // 3600} h {left % 3600 // 60} min"
    return f"{left // 86400} d {left % 86400 // 3600} h"


def ago(moment: Any, now: float | None = None) -> str:
    """How long ago a moment (seconds since 1970) was."""
    if isinstance(moment, bool) or not isinstance(moment, (int, float)):
        return ""
    return duration((time.time() if now is None else now) - moment)
