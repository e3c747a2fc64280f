"""``name?`` and shift-tab: what the live board says of a name, what the manual says, and where a cell defined it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import FarkernelError
from ..text import clean
from . import cells, documentation, magics, source
from .context import Context
from .held import HeldBoard
from .history import History

_NAME = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_CLASS = re.compile(r"<class '([\w.]+)'>")
_LONGEST_VALUE = 400


@dataclass(frozen=True)
class Definition:
    """Where a cell defined a function or class."""

    signature: str
    docstring: str
    source: str


def name_at(code: str, position: int) -> str:
    """The dotted name under the cursor, or the function whose arguments are being typed."""
    start = code.rfind("\n", 0, position) + 1
    end = code.find("\n", position)
    line = code[start : end if end >= 0 else len(code)]
    column = position - start
    for match in _NAME.finditer(line):
        if match.start() <= column <= match.end():
            # The cursor inside a.b.c asks for what stands up to it.
            tail = line[column : match.end()].partition(".")[0]
            return line[match.start() : column] + tail
    depth = 0
    for place in range(min(column, len(line)) - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(line[place], 0)
        if depth < 0:
            found = re.search(rf"({_NAME.pattern})\s*\Z", line[:place])
            return found[1] if found else ""
    return ""


async def inspect(code: str, position: int, held: HeldBoard | None, history: History, detail: bool) -> str:
    """A page of plain text; empty if there is nothing to say."""
    line = code[:position].rpartition("\n")[2].lstrip()
    if line.startswith("%"):
        return magics.explain(line.split()[0]) or ""
    name = name_at(code, position)
    return await about(name, held, history.codes(), detail) if name else ""


async def about(name: str, held: HeldBoard | None, codes: Iterable[str], detail: bool) -> str:
    live = await _ask_board(name, held)
    definition = _definition(name, codes)
    documented = documentation.find(name, live.kind if live else "", held.info if held else None)
    if live is None and definition is None and documented is None:
        return ""
    lines = [documented.signature if documented else definition.signature if definition else name]
    if live is not None:
        lines.append(f"Type:   {live.type}")
        if live.value and live.value != live.type:
            lines.append(f"Value:  {live.value}")
    text = (definition.docstring if definition else "") or (documented.text if documented else "")
    if text:
        lines += ["", text]
    if detail and definition is not None:
        lines += ["", "Source (of the cell that was run last):", definition.source]
    elif live is not None and live.members:
        lines += ["", "Has:    " + ", ".join(live.members)]
    return "\n".join(lines)


@dataclass(frozen=True)
class Live:
    """What the board said."""

    type: str
    value: str
    members: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The name of its class."""
        match = _CLASS.fullmatch(self.type)
        return match[1] if match else ""


async def _ask_board(name: str, held: HeldBoard | None) -> Live | None:
    if held is None or not _NAME.fullmatch(name):
        return None
    try:
        await held.ready(lambda sentence: None, patience=0)
        found = await held.board.evaluate(f"(str(type({name})),repr({name})[:{_LONGEST_VALUE}],dir({name}))")
    except FarkernelError:
        return None
    if not isinstance(found, tuple) or len(found) != 3 or not isinstance(found[2], list):
        return None
    members = tuple(clean(each) for each in found[2] if not str(each).startswith("_"))
    return Live(clean(found[0]), clean(found[1]), members)


def _definition(name: str, codes: Iterable[str]) -> Definition | None:
    """In the newest cell that has one."""
    for code in codes:
        for part in cells.split(code):
            text = part.source if isinstance(part, cells.Code) else getattr(part, "body", None) or ""
            if name.split(".", maxsplit=1)[0] not in text or (tree := source.parse(text)) is None:
                continue
            node = _find(tree, name.split("."))
            if node is not None:
                return _describe(node, text)
    return None


Defining = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _find(tree: ast.AST, path: list[str]) -> Defining | None:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Defining) and node.name == path[0]:
            return node if len(path) == 1 else _find(node, path[1:])
    return None


def _describe(node: Defining, text: str) -> Definition:
    if isinstance(node, ast.ClassDef):
        made = next(
            (each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"),
            None,
        )
        arguments = ast.unparse(made.args).partition("self")[2].lstrip(", ") if made else ""
        signature = f"class {node.name}({arguments})"
    else:
        signature = f"{node.name}({ast.unparse(node.args)})"
    return Definition(signature, ast.get_docstring(node) or "", ast.get_source_segment(text, node) or "")


async def run_question(context: Context, question: cells.Question) -> None:
    """``name?`` in a cell: a page for the notebook's pager."""
    if question.name.startswith("%"):
        text = magics.explain(question.name)
    else:
        codes = context.history.codes()[1:] if context.history.codes() else []
        text = await about(question.name, context.boards.present, codes, question.detail)
    page = text or f"{question.name} is not known on the board, in the cells that were run, or in the manual."
    context.payload.append({"source": "page", "data": {"text/plain": page}, "start": 0})
