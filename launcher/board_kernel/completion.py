"""Completion from the live board: names, attributes, modules, files on it; and magics."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from ..errors import FarkernelError
from ..text import clean
from .held import HeldBoard


class Kind(Enum):
    NAME = auto()  # a global, a builtin, a keyword
    ATTRIBUTE = auto()  # of `owner`
    MODULE = auto()  # after import
    MEMBER = auto()  # from `owner` import …
    FILE = auto()  # inside a string: a path on the board
    MAGIC = auto()


@dataclass(frozen=True)
class Wanted:
    """What stands before the cursor."""

    kind: Kind
    prefix: str
    owner: str = ""


_DOTTED = re.compile(r"((?:[^\W\d]\w*\.)*)([^\W\d]\w*)?\Z")
_IMPORT = re.compile(r"\s*(?:import\s+(?:[\w. ]+,\s*)*|from\s+)([\w.]*)\Z")
_MEMBER = re.compile(r"\s*from\s+([\w.]+)\s+import\s+(?:[\w ]+,\s*)*\(?\s*(\w*)\Z")
_MAGIC = re.compile(r"\s*(%{1,2}[\w-]*)\Z")
_MAGIC_FILE = re.compile(r"%{1,2}[\w-]+(?:\s+\S+)*\s+:?([\w./-]*)\Z")
_STRING = re.compile(
    r"""(?:\b(?:open|listdir|stat|remove|rename|chdir|mkdir|rmdir|show_file)\(\s*)(['"])([^'"]*)\Z"""
)


def wanted(code: str, position: int) -> Wanted | None:
    """From the line up to the cursor; None where nothing of ours can be completed."""
    line = code[:position].rpartition("\n")[2]
    if match := _MAGIC.fullmatch(line):
        return Wanted(Kind.MAGIC, match[1])
    if match := _MAGIC_FILE.fullmatch(line):
        return Wanted(Kind.FILE, match[1])
    if match := _STRING.search(line):
        return Wanted(Kind.FILE, match[2])
    if match := _MEMBER.fullmatch(line):
        return Wanted(Kind.MEMBER, match[2], match[1])
    if match := _IMPORT.fullmatch(line):
        return Wanted(Kind.MODULE, match[1])
    if _in_string(line):
        return None
    match = _DOTTED.search(line)
    if match is None or line[: match.start()].endswith(
        (".", ")", "]")
    ):  # the value of a call: we do not call it
        return None
    if match[1]:
        return Wanted(Kind.ATTRIBUTE, match[2] or "", match[1].rstrip("."))
    return Wanted(Kind.NAME, match[2]) if match[2] else None


def _in_string(line: str) -> bool:
    """Whether the line ends inside a string or a comment (strings of several lines are not looked for)."""
    quote = ""
    escaped = False
    for letter in line:
        if escaped:
            escaped = False
        elif quote:
            escaped = letter == "\\"
            if letter == quote:
                quote = ""
        elif letter in "'\"":
            quote = letter
        elif letter == "#":
            return True
    return bool(quote)


async def complete(code: str, position: int, held: HeldBoard | None, magics: Iterable[str]) -> dict[str, Any]:
    """The content of `complete_reply`."""
    want = wanted(code, position)
    matches: list[str] = []
    if want is not None:
        matches = sorted({name for name in await _names(want, held, magics) if name.startswith(want.prefix)})
        if not want.prefix.startswith("_"):
            matches = [name for name in matches if not name.startswith("_")]
    return {
        "status": "ok",
        "matches": matches,
        "cursor_start": position - (len(want.prefix) if want else 0),
        "cursor_end": position,
        "metadata": {},
    }


async def _names(want: Wanted, held: HeldBoard | None, magics: Iterable[str]) -> Iterable[str]:
    if want.kind is Kind.MAGIC:
        return [name for name in magics if name.count("%") >= want.prefix.count("%")]
    names: list[str] = [*keyword.kwlist] if want.kind is Kind.NAME else []
    if held is None:
        return names
    try:
        await held.ready(lambda sentence: None, patience=0)
        names += await _ask_board(want, held)
    except FarkernelError:
        pass  # the board is away, or there is no such name: what is known without it
    return [clean(name) for name in names if "_fk_" not in name]


async def _ask_board(want: Wanted, held: HeldBoard) -> list[str]:
    if want.kind is Kind.NAME:
        return await held.names("globals(),dir(__import__('builtins'))", want.prefix)
    if want.kind is Kind.ATTRIBUTE:
        return await held.names(f"dir({want.owner})", want.prefix)
    if want.kind is Kind.MODULE:
        return await modules(held)
    if want.kind is Kind.MEMBER:
        # Modules of the firmware only: importing a person's own file could do anything.
        if want.owner not in await held.firmware_modules():
            return []
        return await held.names(f"dir(__import__({want.owner!r}))", want.prefix)
    folder, slash, _ = want.prefix.rpartition("/")
    found = await held.files.listdir(folder + slash if slash else "")
    return [f"{folder}{slash}{entry.name}{'/' if entry.directory else ''}" for entry in found]


async def modules(held: HeldBoard) -> list[str]:
    """Of the firmware, and files on the board."""
    names = list(await held.firmware_modules())
    for folder in ("", "lib"):
        try:
            entries = await held.files.listdir(folder)
        except FarkernelError:
            continue
        for entry in entries:
            stem, dot, ending = entry.name.rpartition(".")
            if dot and ending in ("py", "mpy"):
                names.append(stem)
            elif entry.directory and entry.name != "lib":
                names.append(entry.name)
    return names
