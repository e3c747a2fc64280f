"""Marked lines in what a board prints: displays, results, questions (docs/boards.md has the format).

A record is one line: RS (0x1e, as in RFC 7464), ``fk:``, a verb and its fields, LF.  Everything else is text.
Some boards have no json and no base64, so a payload is a Python literal (what ``repr`` gives), or ``64:`` and base64.
Sans-I/O: bytes in, events out; split anywhere, inside a character too.
"""

from __future__ import annotations

import ast
import base64
import binascii
import codecs
import re
from dataclasses import dataclass

MARK = b"\x1efk:"
# A record longer than this is no record: a board has not that much memory, and we need not hold it.
LARGEST = 8 << 20
_MIME = re.compile(r"[a-z]+/[a-z0-9.+-]{1,100}", re.ASCII)


@dataclass(frozen=True)
class Text:
    """Ordinary output, decoded."""

    text: str


@dataclass(frozen=True)
class Display:
    """``display MIME ID PAYLOAD`` or ``update …``; ID ``-``: none."""

    mime: str
    data: str | bytes
    display_id: str | None = None
    update: bool = False


@dataclass(frozen=True)
class Result:
    """``= PAYLOAD``: the value of a cell's last expression, as its repr."""

    text: str


@dataclass(frozen=True)
class Clear:
    """``clear`` or ``clear wait``."""

    wait: bool = False


@dataclass(frozen=True)
class Ask:
    """``input PAYLOAD`` or ``password PAYLOAD``: a program waits for a line."""

    prompt: str
    password: bool = False


Event = Text | Display | Result | Clear | Ask


class RecordReader:
    """Takes what comes, gives events in their order; text as soon as it cannot be part of a record."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._pending = b""  # begins with what is, or may become, a mark
        self._echo = b""

    def expect_echo(self, line: bytes) -> None:
        """The board's line editor will send back what was typed; it is not shown."""
        self._echo += line

    def feed(self, data: bytes) -> list[Event]:
        data = self._without_echo(data)
        events: list[Event] = []
        pending = self._pending + data
        while pending:
            start = pending.find(MARK[:1])
            if start < 0:
                self._text(pending, events)
                pending = b""
                break
            self._text(pending[:start], events)
            pending = pending[start:]
            if not pending.startswith(MARK[: len(pending)]):
                self._text(pending[:1], events)  # a lone RS
                pending = pending[1:]
                continue
            end = pending.find(b"\n")
            if end < 0:
                if len(pending) > LARGEST:
                    self._text(pending, events)
                    pending = b""
                break
            self._record(pending[: end + 1], events)
            pending = pending[end + 1 :]
        self._pending = pending
        return events

    def finish(self) -> list[Event]:
        """The run has ended: what is left is text."""
        events: list[Event] = []
        rest, self._pending, self._echo = self._pending, b"", b""
        text = self._decode(rest, True)
        if text:
            events.append(Text(text))
        return events

    def _without_echo(self, data: bytes) -> bytes:
        if not self._echo:
            return data
        size = min(len(data), len(self._echo))
        if data[:size] == self._echo[:size]:
            self._echo = self._echo[size:]
            return data[size:]
        self._echo = b""  # it edits lines in another way: better shown than swallowed
        return data

    def _text(self, data: bytes, events: list[Event]) -> None:
        text = self._decode(data)
        if not text:
            return
        if events and isinstance(events[-1], Text):
            events[-1] = Text(events[-1].text + text)
        else:
            events.append(Text(text))

    def _record(self, line: bytes, events: list[Event]) -> None:
        event = parse_record(line[len(MARK) :].rstrip(b"\r\n").decode("utf-8", "replace"))
        if event is None:
            self._text(line, events)
        else:
            events.append(event)


def parse_record(line: str) -> Event | None:
    """What follows the mark; None if it is not well-formed."""
    verb, _, rest = line.partition(" ")
    if verb == "clear" and rest in ("", "wait"):
        return Clear(rest == "wait")
    if verb in ("=", "input", "password"):
        value = _payload(rest)
        if not isinstance(value, str):
            return None
        return Result(value) if verb == "=" else Ask(value, verb == "password")
    if verb in ("display", "update"):
        mime, _, rest = rest.partition(" ")
        name, _, rest = rest.partition(" ")
        data = _payload(rest)
        if data is None or not name or len(name) > 100 or not _MIME.fullmatch(mime):
            return None
        return Display(mime, data, None if name == "-" else name, verb == "update")
    return None


def _payload(text: str) -> str | bytes | None:
    if text.startswith("64:"):
        try:
            return base64.b64decode(text[3:], validate=True)
        except (binascii.Error, ValueError):
            return None
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, (str, bytes)) else None
