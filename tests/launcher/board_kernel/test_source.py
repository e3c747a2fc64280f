"""Code on its way to the board."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.board_kernel import board_source, source
from farkernel.launcher.board_kernel.records import RecordReader, Result, Text


def run(code: str, rich: bool = False) -> list[Any]:
    """With this machine's Python; what it prints, read as the kernel does."""
    printed: list[str] = []

    def show(*values: object, sep: str = " ", end: str = "\n") -> None:
        printed.append(sep.join(map(str, values)) + end)

    exec(source.with_result(code, rich), {"print": show})  # noqa: S102
    return RecordReader().feed("".join(printed).encode())


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("6 * 7", [Result("42")]),
        ("x = 1; x", [Result("1")]),
        ("x = 5\nx  # a comment", [Result("5")]),
        ("(1,\n 2)", [Result("(1, 2)")]),
        ("'a'\n'b'", [Result("'b'")]),
        ("6 * 7;", []),
        ("6 * 7 ;  # quiet", []),
        ("x = 1", []),
        ("None", []),
        ("print('a')", [Text("a\n")]),
        ("'é', 1", [Result("('é', 1)")]),
        ("for i in (1,):\n  i", []),
        ("", []),
    ],
)
def test_the_last_expression_is_shown(code: str, shown: list[Any]) -> None:
    assert run(code) == shown


@pytest.mark.parametrize("code", ["x =", "@micropython.asm_thumb\ndef f(:", "await f()"])
def test_what_is_not_understood_here_stays_as_it_is(code: str) -> None:
    assert source.with_result(code, False) == code


def test_lines_keep_their_numbers() -> None:
    code = "a = 1\n\nf(\n  a\n)"
    assert source.with_result(code, False).split("\n")[:2] == ["a = 1", ""]
    assert source.with_result(code, False).split("\n")[2] == "_=(f("


def test_imports_of_our_module_where_there_can_be_none() -> None:
    code = "import farkernel\nfrom farkernel import html, display as show\nif x:\n  import farkernel as f; f.html('é')\nimport os\n"
    assert source.without_import(code) == (
        "farkernel=_fk_module\nhtml=_fk_module.html;show=_fk_module.display\n"
        "if x:\n  f=_fk_module; f.html('é')\nimport os\n"
    )


def test_an_open_bracket_or_string_goes_on() -> None:
    assert source.is_open("x = (1,\n")
    assert source.is_open('x = """\n')
    assert source.is_open("x = 1 + \\")
    assert not source.is_open("x = 1\n")
    assert not source.is_open("x = 'unterminated\n")


@given(st.text())
def test_answers_come_back(text: str) -> None:
    """As `INPUT` reads them on the board: no byte of them is a control character or more than ASCII."""
    text = text.encode("utf-8", "replace").decode()
    line = source.answer_line(text)
    assert all(0x20 <= byte < 0x7F for byte in line)
    assert line == source.answer_line(text)
    scope: dict[str, Any] = {"builtins": None}
    asked: list[str] = []
    scope["print"] = lambda *values: asked.append(" ".join(map(str, values)))
    scope["input"] = lambda prompt: line.decode()
    # Without an own module builtins it puts its function into the globals.
    scope["__builtins__"] = {**vars(__import__("builtins")), "__import__": _no_import}
    exec(source.INPUT, scope)  # noqa: S102
    assert scope["_fk_ask"]("Who?") == text
    assert asked == ["\x1efk:input 'Who?'"]


def _no_import(name: str, *_: object) -> None:
    raise ImportError(name)


def test_no_answer_is_an_end_of_file() -> None:
    assert source.refusal_line("né\x1b") == b"!n??"


def test_the_module_for_boards_is_small() -> None:
    assert len(board_source.compact()) < 2300
    assert len(board_source.install_small_code()) < 700
    assert "\n\n" not in board_source.compact()
    compile(board_source.install_code(), "board", "exec")
    compile(board_source.install_small_code(), "board", "exec")
