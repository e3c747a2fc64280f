"""A cell taken apart: magics, questions (``name?``) and code for the board, in their order.  Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from . import source

_MAGIC = re.compile(r"%([A-Za-z][\w-]*)(?:[ \t]+(.*))?\s*", re.DOTALL)
_CELL_MAGIC = re.compile(r"%%([A-Za-z][\w-]*)(?:[ \t]+(.*))?")
_NAME = r"(%{1,2}[A-Za-z][\w-]*|[A-Za-z_][\w.]*)"
_HELP = re.compile(rf"\s*(?:\?{{1,2}}{_NAME}|{_NAME}\?{{1,2}})\s*")


@dataclass(frozen=True)
class Code:
    """For the board.  It stands after as many empty lines as the cell has lines before it: numbers stay right."""

    source: str


@dataclass(frozen=True)
class Magic:
    """``%name arguments``, or with a body ``%%name arguments``."""

    name: str
    arguments: str
    body: str | None = None
    line: int = 1  # of the body's first line in the cell


@dataclass(frozen=True)
class Question:
    """``name?`` or, with ``detail``, ``name??``."""

    name: str
    detail: bool = False


Part = Code | Magic | Question


def split(text: str, first_line: int = 1) -> list[Part]:
    """``first_line``: where this text stands in a larger one (the body of a cell magic)."""
    lines = text.split("\n")
    start = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    if start < len(lines) and (match := _CELL_MAGIC.fullmatch(lines[start].rstrip())):
        body = "\n".join(lines[start + 1 :])
        return [Magic(match[1], (match[2] or "").strip(), body, first_line + start + 1)]
    parts: list[Part] = []
    code: list[str] = []
    began = first_line
    for number, line in enumerate(lines, first_line):
        part = _special(line)
        if part is None or (code and source.is_open("\n".join(code))):
            if not code:
                began = number
            code.append(line)
            continue
        _close(code, began, parts)
        code = []
        parts.append(part)
    _close(code, began, parts)
    return parts


def _special(line: str) -> Part | None:
    if match := _MAGIC.fullmatch(line):
        return Magic(match[1], (match[2] or "").strip())
    if match := _HELP.fullmatch(line):
        return Question(match[1] or match[2], line.count("?") == 2)
    return None


def _close(code: list[str], began: int, parts: list[Part]) -> None:
    if any(line.strip() for line in code):
        parts.append(Code("\n" * (began - 1) + "\n".join(code)))
