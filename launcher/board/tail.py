"""Where a program's output on a board ends: Ctrl-D, the traceback, Ctrl-D, ``>``.

The raw REPL escapes nothing, so a program that prints binary data prints that Ctrl-D too.  A Ctrl-D is the end only
when what follows reads like one: nothing, or text whose first line begins a traceback or names an exception, up to a
Ctrl-D and ``>``.  (A program that prints just that is taken for ended: there is no way to tell.)
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import NamedTuple


class Verdict(Enum):
    NO = auto()  # the Ctrl-D belongs to the output
    MORE = auto()  # it cannot be said yet
    END = auto()
    EXITED = auto()  # SystemExit: the board resets itself now


class Tail(NamedTuple):
    verdict: Verdict
    traceback: bytes = b""
    size: int = 0  # bytes up to and with the ``>``


_NO, _MORE = Tail(Verdict.NO), Tail(Verdict.MORE)

_LONGEST = 64 * 1024
_LONGEST_LINE = 500
# "Traceback (most recent call last):" in whatever language CircuitPython was built for, or the exception alone
# (mp_obj_print_exception leaves the traceback out where there is none).
_FIRST_LINE = re.compile(rb"[^(\r\n]{1,80}\([^)\r\n]{1,120}\): ?|[A-Za-z_][A-Za-z0-9_.]{0,80}(?::[^\r\n]*)?")
_NOT_TEXT = re.compile(rb"[\x00-\x03\x05-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]")
# pyexec.c, and what the ports print when they begin again.
_SOFT_REBOOT = re.compile(rb"(?:\r\n){0,2}(?:MPY: |PYB: )?soft reboot\r\n")
_LONGEST_REBOOT = b"\r\n\r\nMPY: soft reboot\r\n"


def judge_tail(buffer: bytes | bytearray) -> Tail:
    """Of a buffer that begins with a Ctrl-D."""
    content = bytes(buffer[1 : _LONGEST + 1])
    if not content:
        return _MORE
    if content[0] == 4:
        return _after(b"", content[1:])
    first, line_end, _ = content[:_LONGEST_LINE].partition(b"\r\n")
    if _NOT_TEXT.search(first.partition(b"\x04")[0]):
        return _NO
    if not line_end:
        return _NO if len(content) > _LONGEST_LINE or b"\x04" in first else _MORE
    if not _FIRST_LINE.fullmatch(first):
        return _NO
    return _traceback(content)


def _traceback(content: bytes) -> Tail:
    """The message of an exception may itself hold a Ctrl-D: the one that ends it stands after a line's end."""
    place = content.find(b"\r\n\x04")
    while place >= 0:
        tail = _after(content[: place + 2], content[place + 3 :])
        if tail.verdict is not Verdict.NO:
            return tail
        place = content.find(b"\r\n\x04", place + 1)
    if _NOT_TEXT.search(content) or len(content) >= _LONGEST or _ends_later(content):
        return _NO
    return _MORE


def _ends_later(content: bytes) -> bool:
    """A later Ctrl-D begins a whole end: then what came before it only looked like the beginning of one."""
    if not content.endswith(b"\x04>"):
        return False
    places = (found.start() for found in re.finditer(rb"\x04", content[:-2]))
    return any(_is_traceback(content[place + 1 : -2]) for place in places)


def _is_traceback(text: bytes) -> bool:
    return not text or (text.endswith(b"\r\n") and bool(_FIRST_LINE.fullmatch(text.partition(b"\r\n")[0])))


def _after(traceback: bytes, rest: bytes) -> Tail:
    """What follows the second Ctrl-D: the prompt, or the reset that SystemExit brings."""
    if not rest:
        return _MORE
    if rest.startswith(b">"):
        return Tail(Verdict.END, traceback, len(traceback) + 3)
    if traceback:
        return _NO
    if _SOFT_REBOOT.match(rest):
        return Tail(Verdict.EXITED, b"", 2)
    return _MORE if _may_become_reboot(rest) else _NO


def _may_become_reboot(rest: bytes) -> bool:
    text = _LONGEST_REBOOT
    beginnings = (text, text[2:], text[4:], text.replace(b"MPY: ", b""), text[2:].replace(b"MPY: ", b""))
    pyb = text.replace(b"MPY", b"PYB")
    return any(whole.startswith(rest) for whole in (*beginnings, b"soft reboot\r\n", pyb, pyb[2:], pyb[4:]))


def starts_late(buffer: bytes | bytearray, marker: bytes) -> int:
    """How many bytes at the buffer's end may be the marker's beginning."""
    for size in range(min(len(marker) - 1, len(buffer)), 0, -1):
        if buffer.endswith(marker[:size]):
            return size
    return 0
