"""Lines of a plot, drawn as SVG: no library, a few kilobytes, the same in every front end.  Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from ..text import clean
from .numbers import Series

WIDTH, HEIGHT = 720, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 16, 34, 34
# Okabe and Ito's colours, which people with any kind of colour vision can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f", "#333333")


def draw(
    series: Sequence[Series],
    title: str = "",
    x_name: str = "",
    low: float | None = None,
    high: float | None = None,
) -> str:
    """An SVG picture; series without finite points are left out."""
    shown = [(one.name, [point for point in one.points if drawable(point)]) for one in series]
    shown = [(name, points) for name, points in shown if points]
    xs = [x for _, points in shown for x, _ in points] or [0.0, 1.0]
    ys = [y for _, points in shown for _, y in points] or [0.0, 1.0]
    x_ticks = ticks(min(xs), max(xs), 8)
    y_ticks = ticks(min(ys) if low is None else low, max(ys) if high is None else high, 6)
    x_low, x_high = (min(xs), max(xs)) if min(xs) < max(xs) else (x_ticks[0], x_ticks[-1])
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low) * (WIDTH - _LEFT - _RIGHT) + _LEFT
        y = min(max(y, y_low), y_high)  # limits that were given cut off what is beyond them
        down = HEIGHT - _BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - _TOP - _BOTTOM)
        return across, down

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for y in y_ticks:
        _, down = place(x_low, y)
        parts.append(
            f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{down:.1f}" y2="{down:.1f}" stroke="#dddddd"/>'
        )
        parts.append(_text(_LEFT - 6, down + 4, "end", label(y, y_ticks)))
    for x in (x for x in x_ticks if x_low <= x <= x_high):
        across, _ = place(x, y_low)
        parts.append(_text(across, HEIGHT - _BOTTOM + 16, "middle", label(x, x_ticks)))
    parts += [_line([place(*point) for point in points], number) for number, (_, points) in enumerate(shown)]
    parts += _legend([name for name, _ in shown], title)
    if x_name:
        parts.append(_text(WIDTH - _RIGHT, HEIGHT - 4, "end", x_name[:60]))
    return "".join([*parts, "</svg>"])


def drawable(point: tuple[float, float]) -> bool:
    """Finite, and so far from the end of floats that they can be reckoned with."""
    return all(math.isfinite(value) and abs(value) < 1e200 for value in point)


def _text(across: float, down: float, anchor: str, text: str) -> str:
    return f'<text x="{across:.1f}" y="{down:.1f}" text-anchor="{anchor}" fill="#555555">{escape(clean(text))}</text>'


def _line(places: Sequence[tuple[float, float]], number: int) -> str:
    colour = COLOURS[number % len(COLOURS)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in thinned(places))
    line = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8" stroke-linejoin="round"/>'
    if len(places) > 60:
        return line
    return line + "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" fill="{colour}"/>' for x, y in places)


def thinned(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of the points in one column of the picture only the first, lowest, highest and last: nobody sees the others."""
    columns: dict[int, list[tuple[float, float]]] = {}
    for place in places:
        columns.setdefault(int(place[0]), []).append(place)
    found: list[tuple[float, float]] = []
    for column in columns.values():
        keep = {column.index(each) for each in (min(column, key=_down), max(column, key=_down))} | {
            0,
            len(column) - 1,
        }
        found += [column[number] for number in sorted(keep)]
    return found


def _down(place: tuple[float, float]) -> float:
    return place[1]


def _legend(names: Sequence[str], title: str) -> list[str]:
    parts = []
    across = float(_LEFT)
    if title:
        parts.append(
            f'<text x="{across}" y="20" font-weight="bold" fill="#222222">{escape(clean(title[:60]))}</text>'
        )
        across += 8 * len(title[:60]) + 24
    for number, name in enumerate(names):
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<rect x="{across:.0f}" y="11" width="14" height="4" fill="{colour}"/>')
        parts.append(f'<text x="{across + 18:.0f}" y="20" fill="#222222">{escape(clean(name[:30]))}</text>')
        across += 18 + 7 * len(name[:30]) + 18
    return parts


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`; always at least two."""
    if not low < high:
        reach = abs(low) * 0.1 or 1.0
        low, high = low - reach, low + reach
    raw = (high - low) / most
    if raw == 0 or not math.isfinite(raw):  # beyond what floats can divide
        return [low, high]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((power * size for size in (1, 2, 2.5, 5) if power * size >= raw), power * 10)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, last + 1)] if last > first else [low, high]


def label(value: float, all_ticks: Sequence[float]) -> str:
    step = all_ticks[1] - all_ticks[0]
    if abs(value) >= 1e6 or 0 < step < 1e-4:
        return f"{value:.3g}"
    decimals = max(
        0, min(6, -math.floor(math.log10(step)) + (1 if f"{step:g}".rstrip("0").endswith("25") else 0))
    )
    text = f"{value:,.{decimals}f}"
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text


def spark(series: Series, width: int = 60) -> str:
    """One line of text, for front ends without pictures."""
    points = [y for _, y in series.points if math.isfinite(y)][-width:]
    if not points:
        return ""
    low, high = min(points), max(points)
    reach = (high - low) or 1.0
    bars = "▁▂▃▄▅▆▇█"
    return "".join(bars[int((y - low) / reach * (len(bars) - 1))] for y in points)
