"""Errors that came from elsewhere are words, and nothing else."""

from __future__ import annotations

from farkernel.launcher.errors import RemoteError


def test_words_of_another_side_paint_nothing() -> None:
    said = {"kind": "x\x1b[31m", "what": "\x1b]0;owned\x07no\nroom\x9b2J", "advice": "\x1b[2Jmake some\x08"}
    error = RemoteError.from_dict(said)
    assert error.as_dict() == {"kind": "x", "what": "no\nroom", "advice": "make some "}


def test_what_is_no_error_is_one_too() -> None:
    assert RemoteError.from_dict(["\x1b"]).what == """unreadable error: "['\\\\x1b']\""""
    assert RemoteError.from_dict({}).what == "unknown error"
