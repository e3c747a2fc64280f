"""Setting a directory of the home aside, by the program as it travels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from farkernel.backends.archive import errand_text


def set_aside(home: Path, path: str) -> subprocess.CompletedProcess[str]:
    program = errand_text("setting_aside")
    return subprocess.run(
        [sys.executable, "-I", "-c", program, str(len(program)), path],
        env={"HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_what_was_there_is_kept_once(home: Path) -> None:
    for content in ("first", "second"):
        (home / "lesson").mkdir(exist_ok=True)
        (home / "lesson" / "work.py").write_text(content)
        assert set_aside(home, "lesson").returncode == 0
        assert list((home / "lesson").iterdir()) == []
        assert (home / "lesson.before" / "work.py").read_text() == content


def test_what_is_not_there_is_made(home: Path) -> None:
    assert set_aside(home, "a/b/lesson").returncode == 0
    assert (home / "a/b/lesson").is_dir()


def test_a_link_is_set_aside_and_not_what_it_leads_to(home: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    (home / "lesson").symlink_to(tmp_path)
    (home / "lesson.before").symlink_to(tmp_path)
    assert set_aside(home, "lesson").returncode == 0
    assert (tmp_path / "kept").exists()
    assert (home / "lesson.before").is_symlink()
    assert set_aside(home, "lesson").returncode == 0
    assert not (home / "lesson.before").is_symlink()
    assert (tmp_path / "kept").exists()


@pytest.mark.parametrize("path", ["", "/etc", "..", "a/../../b", ".", "./a", "a//b"])
def test_nothing_outside_of_the_home(home: Path, path: str) -> None:
    ended = set_aside(home, path)
    assert ended.returncode == 1
    assert "is no directory below the home" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_no_way_out_by_a_link(home: Path, tmp_path: Path) -> None:
    (home / "out").symlink_to(tmp_path)
    ended = set_aside(home, "out/lesson")
    assert ended.returncode == 1
    assert "leads out of the home" in ended.stderr
    assert list(tmp_path.iterdir()) == []
