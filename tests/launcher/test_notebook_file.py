"""Outputs into a notebook's file: everything else stays byte for byte, whoever wrote the file, in whatever style."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.notebook_file import (
    Filling,
    NotANotebook,
    NotebookChanged,
    NotebookFile,
    NotebookNotWritable,
    parse,
)

OUTPUTS: list[dict[str, Any]] = [
    {"output_type": "stream", "name": "stdout", "text": ["line 1\n", "ünicode \u2028 \ud800\n"]},
    {"output_type": "error", "ename": "E", "evalue": "v", "traceback": []},
]

# -- arbitrary notebooks -----------------------------------------------------------------------------------

names = st.text(max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
sources = names | st.lists(names, max_size=3)


@st.composite
def cells(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["code", "code", "markdown", "raw"]))
    members: list[tuple[str, Any]] = [
        ("cell_type", kind),
        ("source", draw(sources)),
        ("metadata", draw(json_values)),
    ]
    if draw(st.booleans()):
        members.append(("id", draw(names)))
    if kind == "code":
        members += [
            ("outputs", draw(st.lists(json_values, max_size=2))),
            ("execution_count", draw(st.none() | st.integers())),
        ]
    return dict(draw(st.permutations(members)))


@st.composite
def notebooks(draw: st.DrawFn) -> str:
    members = [
        ("cells", draw(st.lists(cells(), max_size=4))),
        ("nbformat", 4),
        ("nbformat_minor", 5),
        ("metadata", draw(json_values)),
    ]
    text = json.dumps(
        dict(draw(st.permutations(members))),
        indent=draw(st.none() | st.integers(0, 4) | st.just("\t")),
        separators=draw(st.sampled_from([None, (",", ":"), (" , ", " : ")])),
        ensure_ascii=draw(st.booleans()),
    )
    if not any(character in text for character in ("\ud800",)) and draw(st.booleans()):
        text = text.replace("\n", "\r\n")
    return (
        draw(st.sampled_from(["", "\ufeff", " \n"])) + text + draw(st.sampled_from(["", "\n", "\n\n", " "]))
    )


@given(notebooks(), st.integers(0, 15))
def test_with_the_old_values_back_the_text_is_the_old_one(text: str, chosen: int) -> None:
    notebook = parse("x", text)
    fillings = {i: Filling(OUTPUTS, 7) for i in range(len(notebook.cells)) if chosen >> i & 1}
    changed = notebook.filled(fillings)
    again = parse("x", changed)
    spans = [(i, name) for i in range(len(notebook.cells)) for name in ("outputs", "count")]
    spans.sort(key=lambda one: getattr(notebook.cells[one[0]], one[1]))
    old, new = [], []
    before = after = 0
    for i, name in spans:
        here, there = getattr(notebook.cells[i], name), getattr(again.cells[i], name)
        old.append(text[before : here.start])
        new.append(changed[after : there.start])
        before, after = here.end, there.end
    assert [*old, text[before:]] == [*new, changed[after:]]
    for i, cell in enumerate(again.cells):
        value = json.loads(changed[slice(*cell.outputs)])
        expected = OUTPUTS if i in fillings else json.loads(text[slice(*notebook.cells[i].outputs)])
        assert value == expected
        assert (cell.id, cell.source) == (notebook.cells[i].id, notebook.cells[i].source)


@given(st.lists(st.integers(0, 3), max_size=4))
def test_as_nbformat_writes_it(counts: list[int]) -> None:
    """A file of nbformat's own is afterwards what nbformat would have written."""
    made = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(f"cell {i}", id=f"c{i}") for i in range(len(counts))]
    )
    text = nbformat.writes(made) + "\n"
    outputs = [
        nbformat.v4.new_output("stream", text="a\nb\n"),
        nbformat.v4.new_output("display_data", {"text/plain": "x\ny", "image/png": "QUJD"}),
    ]
    for cell, count in zip(made.cells, counts, strict=True):
        cell.outputs, cell.execution_count = outputs[:count], count
    fillings = {i: Filling([as_stored(o) for o in outputs[:count]], count) for i, count in enumerate(counts)}
    assert parse("x", text).filled(fillings) == nbformat.writes(made) + "\n"


def as_stored(output: Any) -> dict[str, Any]:
    from farkernel.launcher.outputs import stored

    plain = json.loads(json.dumps(output))
    return stored({**plain, "text": [plain["text"]]} if "text" in plain else plain)


# -- the file ----------------------------------------------------------------------------------------------

TEXT = '{"cells": [{"cell_type": "code", "id": "a", "source": "1", "outputs": [], "execution_count": null}], "nbformat": 4}'


@pytest.fixture
def path(home: Path) -> Path:
    path = home / "a.ipynb"
    path.write_text(TEXT)
    return path


def test_mode_and_link_are_kept(path: Path, home: Path) -> None:
    path.chmod(0o604)
    link = home / "link.ipynb"
    link.symlink_to(path)
    assert NotebookFile(str(link)).write({0: Filling([], 3)}) is True
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o604
    assert path.read_text() == TEXT.replace("null", "3")
    assert sorted(os.listdir(home)) == [
        ".cache",
        ".config",
        ".ipython",
        ".jupyter",
        ".local",
        "a.ipynb",
        "link.ipynb",
    ]


def test_nothing_new_is_not_written(path: Path) -> None:
    before = path.stat().st_mtime_ns
    assert NotebookFile(str(path)).write({0: Filling([], None)}) is False
    assert path.stat().st_mtime_ns == before


def test_a_file_that_somebody_changed_is_left_alone(path: Path, home: Path) -> None:
    file = NotebookFile(str(path))
    path.write_text(TEXT + " ")
    with pytest.raises(NotebookChanged, match="was changed by somebody else in the meantime"):
        file.write({0: Filling([], 3)})
    assert path.read_text() == TEXT + " "
    assert not list(home.glob(".a.ipynb.*"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "it is not JSON"),
        (b"[1]", "it is not of notebook format 4"),
        (b'{"worksheets": [], "nbformat": 3}', "it is not of notebook format 4"),
        (b"\xff", "it is not UTF-8"),
        (b"[" * 100_000, "it is not JSON"),
    ],
)
def test_what_is_no_notebook(path: Path, content: bytes, why: str) -> None:
    path.write_bytes(content)
    with pytest.raises(NotANotebook, match=why):
        NotebookFile(str(path))


def test_no_such_file(home: Path) -> None:
    with pytest.raises(NotebookNotWritable, match="No such file"):
        NotebookFile(str(home / "none.ipynb"))
