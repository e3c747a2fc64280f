"""What was run, for `history_request`: in memory, as long as the kernel lives."""

from __future__ import annotations

import fnmatch
from collections import deque
from collections.abc import Mapping
from typing import Any

LONGEST = 5000

Line = tuple[int, int, Any]


class History:
    """One session, numbered 1; front ends that count backwards call it 0."""

    def __init__(self) -> None:
        self._lines: deque[tuple[int, str, str | None]] = deque(maxlen=LONGEST)

    def add(self, number: int, code: str) -> None:
        self._lines.append((number, code, None))

    def set_output(self, number: int, text: str) -> None:
        """The result of a cell that was just run."""
        if self._lines and self._lines[-1][0] == number:
            self._lines[-1] = (number, self._lines[-1][1], text)

    def codes(self) -> list[str]:
        """All that was run, the newest first."""
        return [code for _, code, _ in reversed(self._lines)]

    def answer(self, request: Mapping[str, Any]) -> list[Line]:
        """For the content of a `history_request`, well-formed or not."""
        lines = list(self._lines)
        kind = request.get("hist_access_type", "tail")
        if kind == "range":
            if _number(request.get("session"), 0) not in (0, 1):
                return []
            start = _number(request.get("start"), 0)
            stop = _number(request.get("stop"), 1 << 60)
            lines = [line for line in lines if start <= line[0] < stop]
        elif kind == "search":
            pattern = str(request.get("pattern") or "*")
            lines = [line for line in lines if fnmatch.fnmatchcase(line[1], pattern)]
            if request.get("unique"):
                last = {line[1]: line for line in lines}
                lines = sorted(last.values())
        if kind != "range":
            count = _number(request.get("n"), 0)
            lines = lines[-count:] if count > 0 else lines
        with_output = bool(request.get("output"))
        return [(1, number, (code, result) if with_output else code) for number, code, result in lines]


def _number(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default
