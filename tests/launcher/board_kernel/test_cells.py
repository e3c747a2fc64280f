"""Cells taken apart; arguments of magics; what is complete."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.board_kernel import cells, completeness, magics
from farkernel.launcher.board_kernel.cells import Code, Magic, Question, split
from farkernel.launcher.board_kernel.errors import MagicUsage, UnknownMagic
from farkernel.launcher.board_kernel.history import History
from farkernel.launcher.board_kernel.usage import Arguments, Usage, read


def test_code_magics_and_questions() -> None:
    assert split("x = 1\n%ls -l /\ny = 2\nprint?\n") == [
        Code("x = 1"),
        Magic("ls", "-l /"),
        Code("\n\ny = 2"),
        Question("print"),
    ]


def test_a_cell_magic_takes_the_rest() -> None:
    assert split("\n%%time \nx\n%ls") == [Magic("time", "", "x\n%ls", 3)]
    assert split("%%put main.py", 5) == [Magic("put", "main.py", "", 6)]


def test_a_percent_sign_inside_a_string_or_bracket_is_no_magic() -> None:
    for text in ('x = """\n%ls\n"""', "x = (5\n%3)", "x = 5 \\\n%3"):
        assert split(text) == [Code(text)]


def test_questions() -> None:
    assert split("a.b??") == [Question("a.b", True)]
    assert split("?%soft-reset") == [Question("%soft-reset")]
    assert split("%%plot?") == [Question("%%plot")]
    assert split("x = y ?") == [Code("x = y ?")]


@given(st.text(alphabet="a\n%?(' x"))
def test_nothing_is_lost(text: str) -> None:
    parts = split(text)
    letters = sum(text.count(each) for each in "ax('")
    kept = 0
    for part in parts:
        whole = (
            part.source
            if isinstance(part, Code)
            else part.name
            if isinstance(part, Question)
            else f"{part.name}{part.arguments}{part.body or ''}"
        )
        kept += sum(whole.count(each) for each in "ax('")
    assert kept == letters


def given_to(usage: str, text: str) -> Arguments:
    return read("it", Usage.of(usage), text)


def test_arguments() -> None:
    usage = "[-l|--long] [--baud N] FROM… TO"
    found = given_to(usage, "-l 'a b' c --baud=9600 d")
    assert found.flag("--long")
    assert found.option("--baud") == "9600"
    assert found.many("FROM") == ["a b", "c"]
    assert found.one("TO") == "d"
    assert given_to("[PATH…]", "").many("PATH") == []
    assert given_to("[STATEMENT…]", "print -1").many("STATEMENT") == ["print", "-1"]
    assert given_to("TEXT", "a = 'b").one("TEXT") == "a = 'b"
    assert given_to("NAME", "-- -x").one("NAME") == "-x"


@pytest.mark.parametrize(
    ("usage", "text", "problem"),
    [
        ("NAME", "", "%it needs NAME"),
        ("NAME", "a b", "%it does not know what to do with 'b'"),
        ("[--long]", "--lnog", "%it knows no --lnog; did you mean --long?"),
        ("[--baud N]", "--baud", "--baud needs N"),
        ("[--long]", "--long=1", "--long takes no value"),
        ("NAME", "'a", "a quotation mark is not closed"),
        ("TEXT", "", "%it needs TEXT"),
    ],
)
def test_arguments_that_are_wrong(usage: str, text: str, problem: str) -> None:
    with pytest.raises(MagicUsage) as caught:
        given_to(usage, text)
    assert caught.value.what == problem
    assert caught.value.advice.startswith(f"Usage: %it {usage}")


def test_every_magic_has_help() -> None:
    for name, magic in magics.TABLE.items():
        page = magic.page()
        assert page.startswith((f"%{name}", f"%%{name}"))
        assert magic.summary.endswith(".")
        assert magics.explain(f"%{name}") == page
        assert all(magics.find(alias) is magic for alias in magic.aliases)


def test_an_unknown_magic_has_a_nearest_name() -> None:
    with pytest.raises(UnknownMagic, match="Did you mean %connect"):
        magics.find("conect")
    with pytest.raises(UnknownMagic, match="%mip install"):
        magics.find("pip")
    with pytest.raises(UnknownMagic, match="%lsmagic lists them all"):
        magics.find("xyzzy")


@pytest.mark.parametrize(
    ("code", "status", "indent"),
    [
        ("1", "complete", ""),
        ("", "complete", ""),
        ("def f(x):", "incomplete", "    "),
        ("def f(x):\n  return x", "incomplete", ""),
        ("def f(x):\n    x", "incomplete", "    "),
        ("def f(x):\n  return x\n\n", "complete", ""),
        ("print('''a", "incomplete", ""),
        ("import = 7q", "invalid", ""),
        ("%ls", "complete", ""),
        ("%%time", "incomplete", ""),
        ("%%time\nx\n", "complete", ""),
    ],
)
def test_completeness(code: str, status: str, indent: str) -> None:
    assert completeness.judge(code) == (status, indent)


def test_history() -> None:
    history = History()
    for number, code in enumerate(("a", "b", "a"), 1):
        history.add(number, code)
    history.set_output(3, "out")
    assert history.answer({"hist_access_type": "tail", "n": 2}) == [(1, 2, "b"), (1, 3, "a")]
    assert history.answer({"hist_access_type": "range", "session": 0, "start": 1, "stop": 2}) == [(1, 1, "a")]
    assert history.answer({"hist_access_type": "range", "session": 7}) == []
    unique = {"hist_access_type": "search", "pattern": "a*", "unique": True, "output": True}
    assert history.answer(unique) == [(1, 3, ("a", "out"))]
    assert history.codes() == ["a", "b", "a"]
    assert cells.split("") == []
