"""`farkernel sync`, by rsync and by our own program, in both directions, with a real keeper and a real agent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from farkernel.launcher.cli.schemas import SCHEMAS

from ..sites.engine import Engine

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]
METHODS = [pytest.param([], id="rsync"), pytest.param(["--no-rsync"], id="own")]


def sync(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "farkernel", "sync", "here", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def synced(*arguments: str) -> dict[str, Any]:
    ended = sync(*arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    jsonschema.validate(found, SCHEMAS["sync"])
    return found


@pytest.fixture
def data(engine: Engine, home: Path) -> Path:
    engine.target("here")
    place = home.parent / "data"
    (place / "a dir/deep").mkdir(parents=True)
    (place / "a dir/it's $(touch canary); \\ *").write_text("odd")
    (place / "a dir/deep/large").write_bytes(os.urandom(3_000_001))
    (place / "empty").touch()
    (place / "run").write_text("#!/bin/sh\n")
    (place / "run").chmod(0o755)
    (place / "link").symlink_to("a dir/deep")
    (place / "ünïcode\n").write_text("x")
    os.utime(place / "empty", (1_000_000_000, 1_000_000_000))
    return place


def tree(place: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(place)): (
            os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None,
            oct(path.lstat().st_mode) if not path.is_symlink() else "",
            path.lstat().st_mtime_ns if not path.is_symlink() else 0,
        )
        for path in sorted(place.rglob("*"))
    }


@pytest.mark.parametrize("how", METHODS)
def test_there_and_back(data: Path, home: Path, how: list[str]) -> None:
    method = "own" if how else "rsync"
    done = synced(str(data), "~/far/copy of it", *how)
    assert (done["method"], done["far"], done["from"]) == (method, "far/copy of it", False)
    assert tree(home / "far/copy of it") == tree(data)
    assert done["bytes"] >= 3_000_001
    assert synced(str(data), "~/far/copy of it", *how)["bytes"] == 0
    back = home.parent / "back"
    synced(str(back), "far/copy of it", "--from", *how)
    assert tree(back) == tree(data)
    assert not [*home.rglob("canary"), *home.parent.glob("canary")]


@pytest.mark.parametrize("how", METHODS)
def test_what_has_changed_goes_and_what_is_else_there_stays(data: Path, home: Path, how: list[str]) -> None:
    synced(str(data), *how)
    assert (home / "data/run").exists()  # without REMOTE: its own name in the home
    (data / "run").write_text("changed")
    (home / "data/theirs").write_text("kept")
    done = synced(str(data), *how)
    assert done["files"] == 1
    assert (home / "data/run").read_text() == "changed"
    assert (home / "data/theirs").read_text() == "kept"


@pytest.mark.parametrize("how", METHODS)
def test_one_file(data: Path, home: Path, how: list[str]) -> None:
    synced(str(data / "run"), "bin/tool", *how)
    assert (home / "bin/tool").read_text() == "#!/bin/sh\n"
    synced(str(data / "empty"), "bin", *how)  # into a directory
    assert (home / "bin/empty").stat().st_mtime == 1_000_000_000
    synced(str(home.parent / "got"), "bin/tool", "--from", *how)
    assert (home.parent / "got").read_text() == "#!/bin/sh\n"


def test_a_dry_run_changes_nothing(data: Path, home: Path) -> None:
    done = synced(str(data), "~/copy", "--dry-run")
    assert {"how": "new", "path": "a dir/deep/large"} in done["changes"]
    assert not (home / "copy").exists()
    synced(str(data), "~/copy")
    (data / "run").write_text("other")
    assert synced(str(data), "~/copy", "--dry-run")["changes"] == [{"how": "changed", "path": "run"}]
    (home / "copy/new").touch()
    text = sync(str(data), "~/copy", "--from", "--dry-run").stdout
    assert "new      new\n" in text
    assert not (data / "new").exists()


@pytest.fixture
def small(home: Path) -> Iterator[Path]:
    """A file system with little room."""
    place = home / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.parametrize("how", METHODS)
def test_a_full_disk(data: Path, small: Path, home: Path, how: list[str]) -> None:
    ended = sync(str(data), "~/small/copy", *how)
    assert ended.returncode == 1
    assert "No space left on device" in ended.stderr
    assert "Make room there" in ended.stderr
    assert not list(small.rglob("*large*"))  # nothing that looks like the file, and no torn piece
    back = home.parent / "data2"
    subprocess.run(["cp", "-a", data, home / "far"], check=True)
    ended = sync(str(small / "back"), "far", "--from", *how)
    assert (ended.returncode, back.exists()) == (1, False)
    assert "No space left on device" in ended.stderr


def test_what_cannot_be_read_is_told_and_the_rest_goes(data: Path, home: Path) -> None:
    os.mkfifo(data / "pipe")
    ended = sync(str(data), "~/copy", "--no-rsync")
    assert ended.returncode == 1
    assert "1 file could not be copied (pipe: neither file, directory nor link)" in ended.stderr
    assert (home / "copy/a dir/deep/large").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/no/such"], "there is no /no/such on this machine"),
        (["/etc/hostname", "~root/x"], "cannot be a path at the far end"),
        (["/etc/hostname", "a\nb"], "cannot be a path at the far end"),
        (["got", "no/such/thing", "--from", "--no-rsync"], "no/such/thing: No such file or directory"),
        (["got", "no/such/thing", "--from"], "No such file or directory"),
    ],
)
def test_errors(engine: Engine, arguments: list[str], said: str) -> None:
    engine.target("here")
    ended = sync(*arguments)
    assert ended.returncode == 1
    assert said in " ".join(ended.stderr.split())


def test_a_target_with_a_directory_of_its_own(data: Path, engine: Engine, home: Path) -> None:
    engine.target("here", cwd="~/scratch")
    synced(str(data))
    assert (home / "scratch/data/run").exists()


def test_no_rsync_at_the_far_end(
    data: Path, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent's PATH is that of the first command; here is one more agent, without rsync."""
    place = home / "bin"
    place.mkdir()
    for name in ("sh", "python3", "uname", "id"):
        found = subprocess.run(["which", name], capture_output=True, text=True, check=True).stdout.strip()
        (place / name).symlink_to(found)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{Path(sys.executable).parent}:{place}")
        engine.client.request("status")  # starts the keeper
        done = synced(str(data), "~/copy")
    assert done["method"] == "own"
