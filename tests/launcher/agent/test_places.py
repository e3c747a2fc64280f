"""Private directories: whose they are, and what happens when somebody else was faster."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from farkernel.launcher.agent import places
from farkernel.launcher.agent.places import LONGEST_DIRECTORY, PlaceError, claim, private_directory


@pytest.fixture
def short() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fkp-", dir="/tmp") as path:
        yield Path(path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_it_is_made_for_us_alone_whatever_the_umask(short: Path) -> None:
    old = os.umask(0)
    try:
        claim(str(short / "a"))
        assert mode(short / "a") == 0o700
        os.umask(0o777)
        claim(str(short / "b"))
        assert mode(short / "b") == 0o700
        assert places.subdirectory(str(short / "a"), "x", "y") == str(short / "a" / "x" / "y")
    finally:
        os.umask(old)


def test_ours_but_too_open_is_closed(short: Path) -> None:
    (short / "a").mkdir(0o777)
    (short / "a").chmod(0o755)
    claim(str(short / "a"))
    assert mode(short / "a") == 0o700


def test_what_is_not_a_directory_of_ours_is_refused(short: Path) -> None:
    (short / "real").mkdir(0o700)
    (short / "link").symlink_to("real")
    (short / "file").write_text("")
    with pytest.raises(ValueError, match="symbolic link"):
        claim(str(short / "link"))
    with pytest.raises(ValueError, match="not a directory"):
        claim(str(short / "file"))
    with pytest.raises(ValueError, match="too long"):
        claim(str(short / ("x" * LONGEST_DIRECTORY)))
    (short / "open").mkdir()
    (short / "open").chmod(0o777)
    with pytest.raises(ValueError, match="others could rename it"):
        claim(str(short / "open" / "a"))
    (short / "open").chmod(0o1777)
    claim(str(short / "open" / "a"))


def test_another_users_directory_is_refused(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (short / "theirs").mkdir(0o700)
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(ValueError, match=f"belongs to user {mine}"):
        claim(str(short / "theirs"))


def test_the_chosen_one_and_no_other(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARKERNEL_RUN_DIR", str(short / "chosen"))
    assert private_directory() == str(short / "chosen")
    (short / "taken").write_text("")
    monkeypatch.setenv("FARKERNEL_RUN_DIR", str(short / "taken"))
    with pytest.raises(PlaceError) as caught:
        private_directory()
    assert f"{short}/taken: it is not a directory" in caught.value.what
    assert "FARKERNEL_RUN_DIR" in caught.value.advice


def test_the_order_does_not_depend_on_the_login(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.delenv("FARKERNEL_RUN_DIR")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    ours = f"farkernel-{os.getuid()}"
    host = os.uname().nodename
    assert places.candidates() == [
        f"/tmp/{ours}", "/run/user/7/farkernel", f"/var/tmp/{ours}", f"/dev/shm/{ours}",
        f"{home}/.cache/farkernel/run-{host}",
    ]  # fmt: skip
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert places.candidates()[:2] == [f"/tmp/{ours}", f"/var/tmp/{ours}"]


def test_the_next_is_taken_where_one_cannot_be_had(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (short / "file").write_text("")
    monkeypatch.setattr(
        places, "candidates", lambda: [str(short / "file"), str(short / "none/x"), str(short / "good")]
    )
    assert private_directory() == str(short / "good")


def test_short_names() -> None:
    assert places.short_name("gpu-1", 16) == "gpu-1"
    for name in ("../../etc", "", ".hidden", "a" * 17, "ä", "a/b", "a\n"):
        short = places.short_name(name, 16)
        assert len(short) == 16
        assert short.isalnum()
        assert short == places.short_name(name, 16)


def test_a_directory_is_locked_once_and_given_back_with_the_process(short: Path) -> None:
    lock = places.lock_directory(str(short))
    assert lock is not None
    assert places.lock_directory(str(short)) is None
    program = (
        "import sys; from farkernel.launcher.agent.places import lock_directory as l; print(l(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(short)], stdout=subprocess.PIPE, check=True, text=True
    )
    assert done.stdout == "None\n"
    os.close(lock)
    done = subprocess.run(
        [sys.executable, "-c", program, str(short)], stdout=subprocess.PIPE, check=True, text=True
    )
    assert done.stdout != "None\n"
