"""Lines with bars, for a terminal of any width."""

from __future__ import annotations

from collections.abc import Sequence

from ..text import one_line
from .machine_lines import Line
from .output import paint
from .table import cells_wide, cut

LABEL = 8
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_COLOURS = {"": "green", "high": "yellow", "full": "red", "bad": "red", "dim": "dim"}
_WIDEST, _NARROWEST = 24, 8
_INDENT = "  "


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
    """Label, bar, amount, text; the text is cut where the terminal ends."""
    width = bar_width(columns)
    amounts = max((cells_wide(line.amount) for line in lines), default=0)
    return [_draw(line, columns, width, amounts, colours, plain) for line in lines]


def _draw(line: Line, columns: int, width: int, amounts: int, colours: bool, plain: bool) -> str:
    label = cut(one_line(line.label), LABEL)
    head = _INDENT + label + " " * (LABEL - cells_wide(label)) + " "
    if line.part is None and not line.amount:
        room = columns - cells_wide(head)
        text = cut(one_line(line.text), max(room, 1))
        return (head + paint(text, _COLOURS[line.level] if line.level else None, colours)).rstrip()
    left, right = ("|", "|") if plain else ("▕", "▏")
    drawn = " " * (width + 2)
    if line.part is not None:
        drawn = left + paint(bar(line.part, width, plain), _COLOURS[line.level], colours) + right
    amount = one_line(line.amount)
    amount = " " * (amounts - cells_wide(amount)) + amount
    room = columns - cells_wide(head) - (width + 2) - 1 - cells_wide(amount) - 2
    text = cut(one_line(line.text), room) if room > 1 else ""
    colour = _COLOURS[line.level] if line.level in ("bad", "dim") else None
    return f"{head}{drawn} {amount}  {paint(text, colour, colours)}".rstrip()
