"""Numbers in printed lines: ``1 2 3``, ``(1, 2.5)``, ``temperature: 21.5, humidity=40 %``.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)"
_NAMED = re.compile(rf"([A-Za-z_]\w*(?:[ ./-][A-Za-z_]\w*)*)\s*[:=]\s*({_NUMBER})(?![\w.])\s*([%°\w/]*)")
_BARE = re.compile(rf"[\s(\[]*({_NUMBER}(?:[\s,;]+{_NUMBER})*)[\s,;)\]]*", re.ASCII)
MOST_SERIES = 16


def read(line: str) -> dict[str, float] | None:
    """Series → value; numbers without names are called 1, 2, 3.  None: the line is no line of numbers."""
    line = line.strip()
    if len(line) > 1000:
        return None
    bare = _BARE.fullmatch(line)
    if bare:
        values = [float(number) for number in re.split(r"[\s,;]+", bare[1])]
        return {str(place): value for place, value in enumerate(values[:MOST_SERIES], 1)}
    named = {match[1].strip(): float(match[2]) for match in _NAMED.finditer(line)}
    rest = _NAMED.sub("", line).strip(" ,;|\t{}()[]'\"")
    return named if named and not rest and len(named) <= MOST_SERIES else None


@dataclass
class Series:
    """Points (number of the line, value); when there are too many, every second one goes."""

    name: str
    most: int = 2000
    points: list[tuple[float, float]] = field(default_factory=list)
    total: int = 0
    last: float = 0.0
    _keep_every: int = 1

    def add(self, x: float, y: float) -> None:
        if self.total % self._keep_every == 0:
            self.points.append((x, y))
        self.total += 1
        self.last = y
        if len(self.points) > self.most:
            self.points = self.points[::2]
            self._keep_every *= 2


class Table:
    """All series of one plot."""

    def __init__(self, names: Iterable[str] = (), window: int = 0, x: str = "") -> None:
        self.series: dict[str, Series] = {}
        self.lines = 0
        self.x_name = x
        self._names = list(names)
        self._window = window

    def add(self, values: Mapping[str, float]) -> None:
        values = dict(values)
        renamed = {
            self._names[int(name) - 1] if name.isdecimal() and int(name) <= len(self._names) else name: value
            for name, value in values.items()
        }
        x = renamed.pop(self.x_name, float(self.lines)) if self.x_name else float(self.lines)
        self.lines += 1
        for name, value in renamed.items():
            if name in self.series or len(self.series) < MOST_SERIES:
                series = self.series.setdefault(name, Series(name))
                series.add(x, value)
                if self._window:
                    series.points = series.points[-self._window :]
