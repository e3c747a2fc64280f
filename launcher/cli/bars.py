"""Lines with bars, for a terminal of any width."""

from __future__ import annotations

from collections.abc import Sequence

from ..text import one_line
from .machine_lines import Line
from .output import fold, paint
from .table import cells_wide, cut

LABEL, _WIDEST_LABEL = 8, 20
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_COLOURS = {"": "green", "high": "yellow", "full": "red", "bad": "red", "dim": "dim"}
_WIDEST, _NARROWEST = 24, 8
_INDENT = "  "
_MOST_LINES = 4


def bar(part: float, width: int, plain: bool = False) -> str:
    """``plain``: where the terminal has no more than ASCII."""
    eighths = round(min(max(part, 0.0), 1.0) * width * 8)
    if part > 0 and eighths == 0:
        eighths = 1  # a little is not nothing
    if plain:
        full = -(-eighths // 8)
        return "#" * full + "." * (width - full)
    full, rest = divmod(eighths, 8)
    drawn = "█" * full + (_EIGHTHS[rest] if rest else "")
    return drawn + " " * (width - len(drawn))


def bar_width(columns: int) -> int:
    return min(max(columns // 6, _NARROWEST), _WIDEST)


def draw(lines: Sequence[Line], columns: int, colours: bool, plain: bool = False) -> list[str]:
    """Label, bar, amount, text; a long text goes on below itself."""
    width = bar_width(columns)
    amounts = max((cells_wide(one_line(line.amount)) for line in lines), default=0)
    labels = min(
        max((cells_wide(one_line(line.label)) for line in lines), default=0), _WIDEST_LABEL, columns // 5
    )
    labels = max(labels, LABEL)
    drawn: list[str] = []
    for line in lines:
        head = _head(line, labels, width, amounts, colours, plain)
        room = _room(line, columns, labels, width, amounts)
        pieces = (
            [cut(piece, room) for piece in fold(one_line(line.text), room)][:_MOST_LINES] if room > 1 else []
        )
        colour = _COLOURS[line.level] if line.level in ("bad", "dim") or not _has_bar(line) else None
        first, *rest = [paint(piece, colour if line.level else None, colours) for piece in pieces] or [""]
        drawn.append((head + first).rstrip())
        drawn += [" " * (columns - room) + piece for piece in rest]
    return drawn


def _has_bar(line: Line) -> bool:
    return line.part is not None or bool(line.amount)


def _room(line: Line, columns: int, labels: int, width: int, amounts: int) -> int:
    before = len(_INDENT) + labels + 1
    return columns - before - (width + 2 + 1 + amounts + 2 if _has_bar(line) else 0)


def _head(line: Line, labels: int, width: int, amounts: int, colours: bool, plain: bool) -> str:
    label = cut(one_line(line.label), labels)
    head = _INDENT + label + " " * (labels - cells_wide(label)) + " "
    if not _has_bar(line):
        return head
    drawn = " " * (width + 2)
    if line.part is not None:
        left, right = ("|", "|") if plain else ("▕", "▏")
        drawn = left + paint(bar(line.part, width, plain), _COLOURS[line.level], colours) + right
    amount = one_line(line.amount)
    return f"{head}{drawn} {' ' * (amounts - cells_wide(amount))}{amount}  "
