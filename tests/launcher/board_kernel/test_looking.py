"""Completion, help and tracebacks, without a board."""

from __future__ import annotations

import pytest

from farkernel.launcher.board_kernel import documentation, inspection, tracebacks
from farkernel.launcher.board_kernel.completion import Kind, Wanted, wanted
from farkernel.launcher.board_kernel.held import listed_modules


@pytest.mark.parametrize(
    ("code", "want"),
    [
        ("pri", Wanted(Kind.NAME, "pri")),
        ("x = machine.Pin.O", Wanted(Kind.ATTRIBUTE, "O", "machine.Pin")),
        ("machine.", Wanted(Kind.ATTRIBUTE, "", "machine")),
        ("import ti", Wanted(Kind.MODULE, "ti")),
        ("import os, ti", Wanted(Kind.MODULE, "ti")),
        ("from mach", Wanted(Kind.MODULE, "mach")),
        ("from machine import Pin, AD", Wanted(Kind.MEMBER, "AD", "machine")),
        ("open('da", Wanted(Kind.FILE, "da")),
        ("%ca", Wanted(Kind.MAGIC, "%ca")),
        ("%cat lib/m", Wanted(Kind.FILE, "lib/m")),
        ("%cat :m", Wanted(Kind.FILE, "m")),
        ("f().x", None),
        ("x = 'abc", None),
        ("# comment pri", None),
        ("'it' + pri", Wanted(Kind.NAME, "pri")),
        ("", None),
    ],
)
def test_what_is_to_be_completed(code: str, want: Wanted | None) -> None:
    assert wanted(code, len(code)) == want


@pytest.mark.parametrize(
    ("code", "position", "name"),
    [
        ("machine.Pin", 11, "machine.Pin"),
        ("machine.Pin", 3, "machine"),
        ("f(machine.Pin(2), ", 17, "f"),
        ("f(g(1), 2", 9, "f"),
        ("x = 1\nprint(", 12, "print"),
        ("()", 1, ""),
        ("", 0, ""),
    ],
)
def test_the_name_under_the_cursor(code: str, position: int, name: str) -> None:
    assert inspection.name_at(code, position) == name


def test_the_manual() -> None:
    for name, found in documentation.PAGES.items():
        assert found.signature.startswith(name)
        assert found.text.endswith((".", ")", "?", "%%plot"))
    pin = documentation.find("Pin")
    assert pin is not None
    assert pin.signature.startswith("machine.Pin(")
    timed = documentation.find("utime.sleep_ms")
    assert timed is not None
    assert timed.signature == "time.sleep_ms(ms)"
    method = documentation.find("led.irq", "bound_method")
    assert method is not None
    assert method.signature.startswith("Pin.irq(")
    assert documentation.find("nothing.like_it") is None


def test_modules() -> None:
    said = "__main__          asyncio/__init__  gc\r\nasyncio/core      json\r\nPlus any modules on the filesystem\r\n"
    assert listed_modules(said) == ("asyncio", "gc", "asyncio.core", "json")
    assert "microbit" in listed_modules("object 'modules' is of type str\r\n")


def test_a_traceback_is_taken_apart() -> None:
    said = (
        b'Traceback (most recent call last):\r\n  File "<stdin>", line 3, in <module>\r\n'
        b'  File "<stdin>", line 2, in f\r\n  File "lib/a.py", line 9, in g\r\nValueError: one\r\ntwo\r\n'
    )
    found = tracebacks.parse(said)
    assert (found.ename, found.evalue) == ("ValueError", "one\ntwo")
    assert [(frame.file, frame.line, frame.name) for frame in found.frames] == [
        ("<stdin>", 3, "<module>"),
        ("<stdin>", 2, "f"),
        ("lib/a.py", 9, "g"),
    ]
    shown = "\n".join(tracebacks.show(found, "def f():\n  g()\nf()"))
    assert "    g()" in shown
    assert "    f()" in shown
    # A function of an earlier cell has its lines elsewhere.
    assert "    x = 1" not in "\n".join(tracebacks.show(found, "y = 0\nx = 1\nf()"))


@pytest.mark.parametrize(
    ("said", "ename", "evalue"),
    [
        (b"KeyboardInterrupt: \r\n", "KeyboardInterrupt", ""),
        (b"MemoryError: memory allocation failed, allocating 9 bytes", "MemoryError", "memory allocation failed, allocating 9 bytes"),
        (b"Traceback (most recent call last):\r\n  File \"<stdin>\", line 1\r\nSyntaxError: invalid syntax\r\n", "SyntaxError", "invalid syntax"),
        (b"a.b.Error: x: y", "a.b.Error", "x: y"),
        (b"\xff\x00 nonsense", "BoardError", "\ufffd\x00 nonsense"),
        (b"", "BoardError", ""),
    ],
)  # fmt: skip
def test_errors(said: bytes, ename: str, evalue: str) -> None:
    found = tracebacks.parse(said)
    assert (found.ename, found.evalue) == (ename, evalue)


def test_our_own_frames_are_not_shown() -> None:
    said = b'Traceback (most recent call last):\n  File "<stdin>", line 1, in <module>\n  File "<stdin>", line 5, in _fk_ask\nEOFError: no\n'
    assert [frame.name for frame in tracebacks.parse(said).frames] == ["<module>"]
