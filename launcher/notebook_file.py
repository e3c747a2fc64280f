"""A notebook file into which outputs are put, every other byte of it staying what it was.

Whoever parses a notebook and writes it again changes it: key order, indentation, escapes.  So the text is read
with positions (RFC 8259), and only the values of `outputs` and `execution_count` are replaced, in the file's own
style.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .errors import FarkernelError

_BLANKS = re.compile(r"[ \t\r\n]*")


class NotANotebook(FarkernelError):
    kind = "not-a-notebook"

    def __init__(self, path: str, why: str) -> None:
        super().__init__(
            f"{path} is not a notebook that outputs can be put into: {why}", "Nothing was changed."
        )


class NotebookChanged(FarkernelError):
    kind = "notebook-changed"

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path} was changed by somebody else in the meantime",
            "Nothing was written; run the command again.",
        )


class NotebookNotWritable(FarkernelError):
    kind = "notebook"

    def __init__(self, path: str, error: OSError) -> None:
        super().__init__(f"{path} cannot be used: {error.strerror or error}", "Nothing was changed.")


class Span(NamedTuple):
    """Where a value stands in the text."""

    start: int
    end: int


@dataclass
class Cell:
    """A code cell: what it is known by, and the places of what may be replaced."""

    id: str | None
    source: str
    outputs: Span
    count: Span


@dataclass(frozen=True)
class Filling:
    """What a cell gets."""

    outputs: list[dict[str, Any]]
    count: int | None


@dataclass
class Notebook:
    """The text with its code cells."""

    path: str
    text: str
    cells: list[Cell] = field(default_factory=list)

    def filled(self, fillings: Mapping[int, Filling]) -> str:
        """The text with other outputs in some cells, named by their place among `cells`."""
        style = Style.of(self.text)
        pieces: list[tuple[Span, str]] = []
        for index, filling in fillings.items():
            cell = self.cells[index]
            pieces.append((cell.outputs, style.dump(filling.outputs, self.text, cell.outputs.start)))
            pieces.append((cell.count, json.dumps(filling.count)))
        text, done = [], 0
        for span, value in sorted(pieces):
            text += [self.text[done : span.start], value]
            done = span.end
        return "".join([*text, self.text[done:]])


# -- reading ---------------------------------------------------------------------------------------------------


def parse(path: str, text: str) -> Notebook:
    """Raises `NotANotebook`."""
    try:
        value = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        raise NotANotebook(path, "it is not JSON") from None
    if not isinstance(value, dict) or not isinstance(value.get("cells"), list) or value.get("nbformat") != 4:
        raise NotANotebook(path, "it is not of notebook format 4")
    notebook = Notebook(path, text)
    try:
        reader = _Reader(text)
        members = reader.members(reader.blanks(1 if text.startswith("\ufeff") else 0))
        for element in reader.elements(members["cells"].start):
            cell = _cell(reader, text, element)
            if cell is not None:
                notebook.cells.append(cell)
    except (RecursionError, KeyError):
        raise NotANotebook(path, "its cells cannot be made out") from None
    return notebook


def _cell(reader: _Reader, text: str, span: Span) -> Cell | None:
    """None: it is no code cell, or one that has no room for outputs."""
    if text[span.start] != "{":
        return None
    members = reader.members(span.start)
    if not {"cell_type", "outputs", "execution_count"} <= members.keys():
        return None
    known = {
        name: json.loads(text[slice(*members[name])])
        for name in ("cell_type", "id", "source")
        if name in members
    }
    if known["cell_type"] != "code":
        return None
    source = known.get("source", "")
    lines = source if isinstance(source, list) else [source]
    name = known.get("id")
    return Cell(
        name if isinstance(name, str) else None,
        "".join(map(str, lines)),
        members["outputs"],
        members["execution_count"],
    )


class _Reader:
    """Finds where values begin and end, in text that `json` has accepted already."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._decoder = json.JSONDecoder()

    def blanks(self, place: int) -> int:
        match = _BLANKS.match(self._text, place)
        return match.end() if match else place

    def value(self, place: int) -> Span:
        """The value that begins here."""
        _, end = self._decoder.raw_decode(self._text, place)
        return Span(place, end)

    def members(self, place: int) -> dict[str, Span]:
        """The values of the object that begins here; of two with one name the last, as `json` has it."""
        found: dict[str, Span] = {}
        place = self.blanks(place + 1)
        while self._text[place] != "}":
            name, place = self._decoder.raw_decode(self._text, place)
            place = self.blanks(self.blanks(place) + 1)  # past the colon
            found[name] = self.value(place)
            place = self._past_comma(found[name].end)
        return found

    def elements(self, place: int) -> list[Span]:
        """The elements of the array that begins here."""
        found = []
        place = self.blanks(place + 1)
        while self._text[place] != "]":
            found.append(self.value(place))
            place = self._past_comma(found[-1].end)
        return found

    def _past_comma(self, place: int) -> int:
        place = self.blanks(place)
        return self.blanks(place + 1) if self._text[place] == "," else place


class Style(NamedTuple):
    """How the file writes JSON."""

    indent: str | None  # of one level; None: everything stands on one line
    newline: str
    colon: str
    comma: str
    escapes: bool  # characters beyond ASCII as \\uXXXX

    @classmethod
    def of(cls, text: str) -> Style:
        body = text.removeprefix("\ufeff").lstrip()
        first = re.match(r"\{([ \t]*\r?\n)([ \t]*)", body)
        after = re.match(r'\{\s*"(?:[^"\\]|\\.)*"\s*:( ?)', body)
        space = after.group(1) if after else " "
        escapes = text.isascii() and re.search(r"\\u[0-9a-fA-F]{4}", text) is not None
        if first is None:
            return cls(None, "\n", ":" + space, "," + space, escapes)
        return cls(first.group(2), "\r\n" if "\r" in first.group(1) else "\n", ":" + space, ",", escapes)

    def dump(self, value: Any, text: str, place: int) -> str:
        """A value as it would be written at that place."""
        dumped = self._dump(value, self.escapes)
        if not self.escapes and any("\ud800" <= character <= "\udfff" for character in dumped):
            dumped = self._dump(value, True)  # half a pair cannot be written as UTF-8
        line = text[text.rfind("\n", 0, place) + 1 : place]
        base = line[: len(line) - len(line.lstrip(" \t"))] if self.indent is not None else ""
        return dumped.replace("\n", self.newline + base)

    def _dump(self, value: Any, escapes: bool) -> str:
        return json.dumps(
            value,
            indent=self.indent if value else None,
            separators=(self.comma, self.colon),
            ensure_ascii=escapes,
            sort_keys=True,
        )


# -- the file --------------------------------------------------------------------------------------------------


class NotebookFile:
    """Read once, written at most once, if nobody else has written it in between."""

    def __init__(self, path: str) -> None:
        """Raises `NotebookNotWritable`, `NotANotebook`."""
        self.path = os.path.realpath(path)
        self._named = path
        self._content = self._read()
        try:
            text = self._content.decode("utf-8")
        except UnicodeDecodeError:
            raise NotANotebook(path, "it is not UTF-8") from None
        self.notebook = parse(path, text)

    def _read(self) -> bytes:
        try:
            with open(self.path, "rb") as file:
                return file.read()
        except OSError as error:
            raise NotebookNotWritable(self._named, error) from None

    def write(self, fillings: Mapping[int, Filling]) -> bool:
        """Put them in, atomically, the mode kept; False: the file has all that already.

        Raises `NotebookChanged`, `NotebookNotWritable`.
        """
        content = self.notebook.filled(fillings).encode("utf-8")
        if content == self._content:
            return False
        directory, name = os.path.split(self.path)
        try:
            seen = os.stat(self.path)
            descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
            try:
                with open(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fchmod(descriptor, seen.st_mode & 0o7777)
                    with suppress(PermissionError):
                        os.fchown(descriptor, seen.st_uid, seen.st_gid)
                    os.fsync(descriptor)
                if self._read() != self._content:
                    raise NotebookChanged(self._named)
                os.rename(temporary, self.path)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError as error:
            raise NotebookNotWritable(self._named, error) from None
        return True
