"""A board's traceback, taken apart and shown with the lines of the cell that it speaks of."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

_FRAME = re.compile(r'\s+File "(?P<file>[^"]*)", line (?P<line>\d+)(?:, in (?P<name>.+))?')
_FINAL = re.compile(r"(?P<name>[A-Za-z_][\w.]*)(?::\s?(?P<value>.*))?", re.DOTALL)
CELL_FILE = "<stdin>"
_RED, _GREEN, _PLAIN = "\x1b[31m", "\x1b[32m", "\x1b[0m"


@dataclass(frozen=True)
class Frame:
    file: str
    line: int
    name: str


@dataclass(frozen=True)
class Traceback:
    """``text`` is the board's own, with plain newlines."""

    ename: str
    evalue: str
    frames: tuple[Frame, ...]
    text: str


def parse(data: bytes) -> Traceback:
    """Whatever the board sent; what has no known form becomes the value of a ``BoardError``."""
    text = data.decode("utf-8", "replace").replace("\r\n", "\n").strip("\n")
    lines = text.split("\n")
    frames: list[Frame] = []
    last = -1
    for number, line in enumerate(lines):
        match = _FRAME.fullmatch(line)
        if match:
            if (match["name"] or "").startswith("_fk_"):  # our own code there (`source`)
                last = number
                continue
            frames.append(Frame(match["file"], int(match["line"]), match["name"] or "<module>"))
            last = number
        elif line.startswith("Traceback "):
            frames, last = [], number  # CircuitPython chains them: the last one counts
    match = _FINAL.fullmatch("\n".join(lines[last + 1 :]).strip("\n"))
    if match is None:
        return Traceback("BoardError", "\n".join(lines[last + 1 :]), tuple(frames), text)
    return Traceback(match["name"], (match["value"] or "").strip(" "), tuple(frames), text)


def show(traceback: Traceback, cell: str) -> list[str]:
    """Lines for a notebook.  ``cell`` is the source as the person wrote it: shown where a frame is surely of it."""
    source = cell.splitlines()
    functions = _functions(cell)
    shown = ["Traceback (most recent call last):"]
    for frame in traceback.frames:
        shown.append(f'  File {_GREEN}"{frame.file}"{_PLAIN}, line {frame.line}, in {frame.name}')
        first, last = functions.get(frame.name, (1, len(source)) if frame.name == "<module>" else (1, 0))
        # An earlier cell is <stdin> too: a function that this one does not define has its lines elsewhere.
        if frame.file == CELL_FILE and first <= frame.line <= last and frame.line <= len(source):
            shown.append(f"    {source[frame.line - 1].strip()}")
    final = f"{_RED}{traceback.ename}{_PLAIN}"
    shown.append(f"{final}: {traceback.evalue}" if traceback.evalue else final)
    return shown if traceback.frames or traceback.text.startswith("Traceback") else [shown[-1]]


def _functions(cell: str) -> dict[str, tuple[int, int]]:
    """Name → first and last line of each function that the cell defines."""
    try:
        tree = ast.parse(cell)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    return {
        node.name: (node.lineno, node.end_lineno or node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
