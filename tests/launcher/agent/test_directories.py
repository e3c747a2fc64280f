"""How a directory is known again at the other end: by what a copy cannot have."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from farkernel.launcher.agent import directories
from farkernel.launcher.agent.directories import choose, evidence, is_same

LATER = 1000.0


@pytest.fixture
def work(home: Path) -> Path:
    place = home / "work"
    place.mkdir()
    for number in range(50):
        (place / f"file {number}").write_text("x")
    return place


def elsewhere(path: Path, later: float = LATER) -> dict[str, Any]:
    """As another machine sees it, long after it was made."""
    seen = evidence(str(path), time.time() + later)
    assert seen is not None
    return {**seen, "machine": "another", "device": 0}


def test_the_same_directory(work: Path) -> None:
    seen = elsewhere(work)
    assert len(seen["entries"]) == 32
    assert is_same(seen)
    assert choose(None, seen) == (str(work), True, "")


def test_on_one_machine_nothing_else_counts(work: Path) -> None:
    seen = evidence(str(work))
    assert seen is not None
    (work / "new").touch()  # between the two looks
    assert is_same({**seen, "entries": [], "changed": 1})


def test_a_copy_is_another_one(work: Path, home: Path) -> None:
    subprocess.run(["cp", "-a", work, home / "copy"], check=True)
    seen = elsewhere(work)
    assert not is_same({**seen, "path": str(home / "copy")})
    # The worst copy: as if the directory itself, but none of its files, had the same inode.
    own = os.stat(home / "copy")
    assert not is_same({**seen, "path": str(home / "copy"), "inode": own.st_ino, "changed": own.st_ctime_ns})


def test_what_is_new_may_be_unknown_to_the_other_end_yet(work: Path) -> None:
    seen = elsewhere(work)
    (work / "new").touch()
    assert is_same(seen)
    (work / "file 0").unlink()
    assert not is_same(seen)  # this one had settled


def test_an_empty_directory_is_known_by_its_own_time(home: Path) -> None:
    (home / "empty").mkdir()
    seen = elsewhere(home / "empty")
    assert is_same(seen)
    assert not is_same({**seen, "changed": seen["changed"] - 1_000_003})
    assert is_same({**seen, "changed": seen["changed"] // 10**9 * 10**9})  # whole seconds


@pytest.mark.parametrize(
    "damage",
    [
        {"inode": None},
        {"entries": [["../etc", 1, 1]]},
        {"entries": [["a"]]},
        {"entries": 7},
        {"path": "/no/such"},
        {"path": "a\0b"},
        {"changed": "x", "entries": []},
    ],
)
def test_nonsense_is_not_the_same(work: Path, damage: dict[str, Any]) -> None:
    assert not is_same({**elsewhere(work), **damage})


def test_where_a_kernel_works(work: Path, home: Path) -> None:
    seen, other = elsewhere(work), {**elsewhere(work), "inode": 1}
    assert choose(None, None) == (str(home), False, "")
    assert choose(None, {"path": str(work)}) == (str(home), False, "other")
    assert choose(None, other) == (str(home), False, "other")
    assert choose(None, {**seen, "path": "/no/such"}) == (str(home), False, "missing")
    assert choose("~/work", seen) == (str(work), True, "")
    assert choose("work", other) == (str(work), False, "configured")
    assert choose("~/gone", seen) == (str(home), False, "configured-missing")
    shutil.rmtree(work)
    assert evidence(str(work)) is None
    assert directories.choose("", None).path == str(home)
