"""Where in a TOML text things stand.

``tomllib`` gives values without positions; errors need a line, and taking a table out of a file without
touching the rest needs its extent.  So this reads the grammar (TOML 1.0) again, for keys and extents only.
It is given texts that ``tomllib`` has accepted, and therefore checks nothing.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

Path = tuple[str | int, ...]

_BLANK = re.compile(r"[ \t]*")
_BETWEEN = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")  # white space, ends of lines, comments
_LINE_END = re.compile(r"[^\n]*\n?")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN = re.compile(r"[^,\]}\n#]*")  # numbers, booleans, dates
_STRINGS = (  # the long quotes first; up to two quotes more may stand before the end of a long string
    re.compile(r'"""(?:[^"\\]|\\.|"(?!""))*"""(?:"{0,2})', re.DOTALL),
    re.compile(r"'''.*?'''(?:'{0,2})", re.DOTALL),
    re.compile(r'"(?:[^"\\\n]|\\.)*"'),
    re.compile(r"'[^'\n]*'"),
)


class Statement(NamedTuple):
    """A table's header or one ``key = value``, without the comments before it."""

    path: Path
    start: int
    end: int  # of its last line, the line's end included
    header: bool


class Positions:
    """Lines of keys and extents of statements in a text.

    Keys are told by their path: names, and numbers for the items of lists.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.statements: list[Statement] = []
        self._offsets: dict[Path, int] = {}
        self._lines = [match.end() for match in re.finditer("\n", text)]
        try:
            self._scan()
        except (RecursionError, _NotToml):
            pass  # what was found so far; an error then names the file, or the nearest key above

    def line(self, path: Path) -> int | None:
        """The line (from 1) where the key is first named; else of the nearest key above it that is."""
        for size in range(len(path), 0, -1):
            offset = self._offsets.get(path[:size])
            if offset is not None:
                return bisect_right(self._lines, offset) + 1
        return None

    def paths(self) -> Iterator[Path]:
        return iter(self._offsets)

    def _scan(self) -> None:
        table: Path = ()
        position = self._skip(_BETWEEN, 0)
        while position < len(self.text):
            start = position
            if self.text[position] == "[":
                brackets = 2 if self.text.startswith("[[", position) else 1
                table, position = self._key((), position + brackets)
                path, header = table, True
            else:
                path, position = self._assignment(table, position)
                header = False
            position = self._skip(_LINE_END, position)
            self.statements.append(Statement(path, start, position, header))
            position = self._skip(_BETWEEN, position)

    def _skip(self, pattern: re.Pattern[str], position: int) -> int:
        match = pattern.match(self.text, position)
        return match.end() if match else position

    def _assignment(self, table: Path, position: int) -> tuple[Path, int]:
        path, position = self._key(table, position)
        if not self.text.startswith("=", position):
            raise _NotToml
        return path, self._value(path, self._skip(_BLANK, position + 1))

    def _key(self, table: Path, position: int) -> tuple[Path, int]:
        """A key, dotted or not: its path, and where the text goes on after the blanks behind it."""
        path = table
        while True:
            position = self._skip(_BLANK, position)
            part, end = self._part(position)
            path = (*path, part)
            self._offsets.setdefault(path, position)
            position = self._skip(_BLANK, end)
            if not self.text.startswith(".", position):
                return path, position
            position += 1

    def _part(self, position: int) -> tuple[str, int]:
        if self.text.startswith(('"', "'"), position):
            end = self._string(position)
            return _unquote(self.text[position:end]), end
        match = _BARE_KEY.match(self.text, position)
        if match is None:
            raise _NotToml
        return match.group(), match.end()

    def _string(self, position: int) -> int:
        for pattern in _STRINGS:
            match = pattern.match(self.text, position)
            if match:
                return match.end()
        raise _NotToml

    def _value(self, path: Path, position: int) -> int:
        first = self.text[position : position + 1]
        if first in ('"', "'"):
            return self._string(position)
        if first == "[":
            return self._list(path, position + 1)
        if first == "{":
            return self._inline_table(path, position + 1)
        end = self._skip(_PLAIN, position)
        if end == position:
            raise _NotToml
        return end

    def _list(self, path: Path, position: int) -> int:
        index = 0
        while True:
            position = self._skip(_BETWEEN, position)
            if self._at("]", position):
                return position + 1
            self._offsets.setdefault((*path, index), position)
            position = self._skip(_BETWEEN, self._value((*path, index), position))
            position += self.text.startswith(",", position)
            index += 1

    def _inline_table(self, path: Path, position: int) -> int:
        while True:
            position = self._skip(_BETWEEN, position)
            if self._at("}", position):
                return position + 1
            _, position = self._assignment(path, position)
            position = self._skip(_BETWEEN, position)
            position += self.text.startswith(",", position)

    def _at(self, end: str, position: int) -> bool:
        if position >= len(self.text):
            raise _NotToml
        return self.text[position] == end


class _NotToml(Exception):
    """The text is not what this reader expects; never seen outside."""


def _unquote(key: str) -> str:
    if key.startswith("'"):
        return key[1:-1]
    if "\\" not in key:
        return key[1:-1]
    import tomllib  # for the escapes; rare in keys

    try:
        return str(tomllib.loads(f"key = {key}")["key"])
    except ValueError:
        raise _NotToml from None
