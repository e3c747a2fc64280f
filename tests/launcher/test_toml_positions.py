from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.targets_file import toml_key, toml_value
from farkernel.launcher.toml_positions import Positions

SAMPLE = '''\
# a comment with [brackets] and key = "value"
title = "x"

[targets.gpu]   # the header's own comment
address = "ssh://host"
env = { A = "1", "B.C" = "2" }
before = """
[not.a.table]
key = "not a key"\\
"""
options = [
    "--account=x",   # why
    '--qos = "long"',
]
resources.gpus = 1

  [ targets . "pi.1" ]
  'address' = 'ssh://pi'
  when = 2026-01-01T00:00:00Z

[[list]]
a = [[1, 2], [3]]
[[list]]
a = \'\'\'
[targets.no]\'\'\'\'\'
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("targets",), 4),
        (("targets", "gpu"), 4),
        (("targets", "gpu", "address"), 5),
        (("targets", "gpu", "env"), 6),
        (("targets", "gpu", "env", "B.C"), 6),
        (("targets", "gpu", "before"), 7),
        (("targets", "gpu", "options"), 11),
        (("targets", "gpu", "options", 1), 13),
        (("targets", "gpu", "resources", "gpus"), 15),
        (("targets", "pi.1"), 17),
        (("targets", "pi.1", "address"), 18),
        (("list",), 21),
        (("list", "a", 1, 0), 22),
        (("targets", "gpu", "env", "Z"), 6),  # not there: the nearest above
        (("nothing",), None),
    ],
)
def test_lines(path: tuple[str | int, ...], line: int | None) -> None:
    tomllib.loads(SAMPLE)
    assert Positions(SAMPLE).line(path) == line


def test_extents_of_statements() -> None:
    statements = Positions(SAMPLE).statements
    texts = {statement.path: SAMPLE[statement.start : statement.end] for statement in statements}
    assert texts["targets", "gpu"] == "[targets.gpu]   # the header's own comment\n"
    assert texts["targets", "gpu", "before"] == ('before = """\n[not.a.table]\nkey = "not a key"\\\n"""\n')
    assert texts["targets", "gpu", "options"].endswith("]\n")
    assert [statement.path for statement in statements if statement.header] == [
        ("targets", "gpu"),
        ("targets", "pi.1"),
        ("list",),
        ("list",),
    ]


def test_lines_end_with_carriage_returns_too() -> None:
    text = "a = 1\r\n\r\n[b]\r\nc = 2\r\n"
    tomllib.loads(text)
    assert Positions(text).line(("b", "c")) == 4


values: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8).filter(str.isprintable),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
keys = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)


def paths_of(value: Any, path: tuple[str | int, ...]) -> list[tuple[str | int, ...]]:
    found = [path]
    if isinstance(value, dict):
        for key, item in value.items():
            found += paths_of(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += paths_of(item, (*path, index))
    return found


@given(st.dictionaries(keys, values, max_size=5), st.dictionaries(keys, values, max_size=3))
def test_finds_what_tomllib_finds(first: dict[str, Any], table: dict[str, Any]) -> None:
    lines: list[str] = []
    expected: dict[tuple[str | int, ...], int] = {}

    def put(document: dict[str, Any], prefix: tuple[str, ...]) -> None:
        for key, value in document.items():
            lines.append(f"{toml_key(key)} = {toml_value(value)} # = [x]")
            expected.update(dict.fromkeys(paths_of(value, (*prefix, key)), len(lines)))

    put(first, ())
    name = next(name for name in ("t", "tt", "ttt", "tttt", "ttttt", "tttttt") if name not in first)
    lines.append(f"[{name}]")
    put(table, (name,))
    text = "\n".join(lines)
    assert tomllib.loads(text) == {**first, name: table}

    positions = Positions(text)
    assert {path: positions.line(path) for path in expected} == expected
    assert set(positions.paths()) == {*expected, (name,)}


@given(st.text(st.sampled_from("[]{}=.,#'\"\\\n\r ab1"), max_size=40))
def test_ends_with_any_text(text: str) -> None:
    """Also with texts that tomllib would not take: it must end, and raise nothing."""
    for statement in Positions(text).statements:
        assert 0 <= statement.start < statement.end <= len(text)
