from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.cli import output, table
from farkernel.launcher.cli.table import Column, ago, cells_wide, cut, duration, lay_out, size
from farkernel.launcher.text import clean, one_line

COLUMNS = (
    Column("id", "ID"),
    Column("state", "STATE"),
    Column("memory", "MEMORY", right=True),
    Column("why", "REASON", shrinks=True),
)


def test_exact_lines() -> None:
    rows: list[dict[str, object]] = [
        {"id": "a1", "state": "live", "memory": "1.5 GiB", "why": None},
        {"id": "b2", "state": "ended", "memory": "3 B", "why": "out of memory"},
    ]
    assert lay_out(COLUMNS, rows, None) == [
        "ID  STATE   MEMORY  REASON",
        "a1  live   1.5 GiB",
        "b2  ended      3 B  out of memory",
    ]


def test_a_column_without_content_is_left_out() -> None:
    assert lay_out(COLUMNS, [{"id": "a", "state": "live"}], None) == ["ID  STATE", "a   live"]


def test_long_text_gives_way_to_the_terminal() -> None:
    rows = [{"id": "a", "state": "live", "why": "word " * 40}]
    lines = lay_out(COLUMNS, rows, 40)
    assert lines[1] == "a   live   word word word word word wor…"
    assert max(map(cells_wide, lines)) == 40


def test_colours_only_when_wanted() -> None:
    rows = [{"id": "a", "state": "live"}]
    assert "\x1b" not in "".join(lay_out(COLUMNS, rows, 80))
    assert lay_out(COLUMNS, rows, 80, colours=True)[1] == "a   \x1b[32mlive\x1b[0m"


def test_the_far_end_cannot_write_to_the_terminal() -> None:
    rows = [{"id": "a", "why": "\x1b]0;title\x07\x1b[2Jgone\r\nand\x9b31mback\x00"}]
    assert lay_out(COLUMNS, rows, 80)[1] == "a   gone andback"


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["id", "state", "memory", "why"]), st.text(max_size=60)), max_size=5
    ),
    st.integers(40, 200),
)
def test_any_text_makes_one_line_per_row(rows: list[dict[str, object]], width: int) -> None:
    lines = lay_out(COLUMNS, rows, width)
    assert len(lines) == len(rows) + 1
    assert all(character.isprintable() for line in lines for character in line)


@given(st.text(), st.integers(1, 30))
def test_cut_fits(text: str, width: int) -> None:
    assert cells_wide(cut(one_line(text), width)) <= width


@given(st.text(alphabet=st.sampled_from("\x1b\x9b\x9d[]0;1mAK\x07\\ab\n\t")))
def test_clean_leaves_nothing_that_acts(text: str) -> None:
    assert not set(clean(text)) & set("\x1b\x9b\x9d\x07\n\t")
    assert not set(clean(text, keep="\n")) & set("\x1b\x9b\x9d\x07\t")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\x1bcb", "ab"),
        ("naïve 漢字", "naïve 漢字"),
        ("tail\x1b", "tail"),
    ],
)
def test_clean(text: str, plain: str) -> None:
    assert clean(text) == plain


def test_wide_characters_take_two_columns() -> None:
    assert (cells_wide("漢字"), cells_wide("e\u0301"), cut("漢字漢字", 5)) == (4, 1, "漢字…")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (812, "812 B"),
        (1536, "1.5 KiB"),
        (3 << 30, "3.0 GiB"),
        (5 << 50, "5120 TiB"),
        (None, ""),
        (True, ""),
    ],
)
def test_sizes(number: object, text: str) -> None:
    assert size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (45, "45 s"), (3599, "59 min"), (12000, "3 h 20 min"), (200000, "2 d 7 h"), ("x", "")],
)
def test_durations(seconds: object, text: str) -> None:
    assert duration(seconds) == text


def test_ago() -> None:
    assert (ago(100.0, now=160.0), ago(None)) == ("1 min", "")


ASIDE = (
    table.Column("id", "KERNEL"),
    table.Column("state", "STATE"),
    table.Column("why", "REASON", shrinks=True),
)
ROWS = [
    {"id": "abc", "state": "live", "why": ""},
    {"id": "abd", "state": "ended", "why": "It was killed because memory ran out. Ask for more of it."},
]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (
            80,
            [
                "KERNEL  STATE  REASON",
                "abc     live",
                "abd     ended  It was killed because memory ran out. Ask for more of it.",
            ],
        ),
        (
            40,
            [
                "KERNEL  STATE",
                "abc     live",
                "abd     ended",
                "abd: It was killed because memory ran",
                "out. Ask for more of it.",
            ],
        ),
    ],
)
def test_a_reason_is_always_said_in_full(
    width: int, lines: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    table.show(ASIDE, ROWS, aside="why")
    assert capsys.readouterr().out.splitlines() == lines


def test_folding() -> None:
    text = "  one two three `farkernel add --help` four"
    assert output.fold(text, 24) == ["  one two three", "  `farkernel add --help`", "  four"]
