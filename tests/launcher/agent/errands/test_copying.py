"""The copy's two halves against each other and against a hostile other end; also under every Python that is here."""

from __future__ import annotations

import errno
import io
import json
import os
import socket
import struct
import subprocess
import threading
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farkernel.backends.archive import errand_text
from farkernel.launcher.agent.errands import copying
from farkernel.launcher.agent.errands.copying import Refused, Taker
from tests.sites.pythons import PYTHONS


def nothing(gone: int, total: int, path: str) -> None:
    """Nobody watches."""


def copy(source: Path, to: str, dry: bool = False) -> dict[str, Any]:
    """Both halves, each in its thread."""
    one, other = socket.socketpair()
    taker = Taker(to, dry, nothing)

    def take() -> None:
        with other, other.makefile("rwb") as stream:
            taker.take(cast(BinaryIO, stream), cast(BinaryIO, stream))

    thread = threading.Thread(target=take)
    thread.start()
    try:
        with one, one.makefile("rwb") as stream:
            both = cast(BinaryIO, stream)
            return copying.give(str(source), both, both, nothing, lambda: False)
    finally:
        thread.join()
        taker.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    place = tmp_path / "source"
    (place / "a/b").mkdir(parents=True)
    (place / "a/b/one").write_text("1")
    (place / "two").write_bytes(os.urandom(400_000))
    (place / "link").symlink_to("/etc/passwd")
    return place


def test_a_directory(source: Path, tmp_path: Path) -> None:
    result = copy(source, str(tmp_path / "new/place"))
    assert (result["files"], result["bytes"], result["failures"], result["fatal"]) == (3, 400_001, 0, None)
    assert (tmp_path / "new/place/two").read_bytes() == (source / "two").read_bytes()
    assert os.readlink(tmp_path / "new/place/link") == "/etc/passwd"
    again = copy(source, str(tmp_path / "new/place"))
    assert (again["files"], again["same"], again["changes"]) == (0, 3, [])


def test_a_half_second_does_not_matter_where_only_seconds_are_kept(source: Path, tmp_path: Path) -> None:
    copy(source, str(tmp_path / "to"))
    whole = (source / "two").stat().st_mtime_ns // 10**9
    os.utime(tmp_path / "to/two", (whole, whole))
    assert copy(source, str(tmp_path / "to"))["changes"] == []
    os.utime(tmp_path / "to/two", (whole - 1, whole - 1))
    assert copy(source, str(tmp_path / "to"))["changes"] == [["changed", "two"]]


def test_what_is_in_the_way(source: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    (to / "two").mkdir(parents=True)
    (to / "a").write_text("a file")
    result = copy(source, str(to))
    assert dict(map(tuple, result["failed"]))["two"] == "a directory is in the way"
    assert (to / "a").read_text() == "a file"
    assert result["failures"] == 4  # a, and the two that should have gone into it


def test_a_link_at_the_destination_is_not_followed(source: Path, tmp_path: Path) -> None:
    outside, to = tmp_path / "outside", tmp_path / "to"
    outside.mkdir()
    to.mkdir()
    (to / "a").symlink_to(outside)
    (to / "two").symlink_to(outside / "two")
    result = copy(source, str(to))
    assert list(outside.iterdir()) == []
    assert result["failures"] == 3
    assert not (to / "two").is_symlink()  # replaced, not written through


# -- a hostile giver ---------------------------------------------------------------------------------------

FILE = {"kind": "file", "size": 1, "time": 0, "mode": 0o644}
DIRECTORY = {"kind": "directory", "size": 0, "time": 0, "mode": 0o755}


def taken(to: Path, *lines: Any, data: bytes = b"") -> dict[str, Any]:
    listed = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    hearing, saying = io.BytesIO(listed + data), io.BytesIO()
    taker = Taker(str(to), False, nothing)
    try:
        return taker.take(hearing, saying)
    finally:
        taker.close()


@pytest.mark.parametrize(
    "path",
    [
        "../evil",
        "/tmp/evil",
        "a/../../evil",
        "",
        ".",
        "..",
        "a//b",
        "./a",
        "a/",
        "x\0y",
        "nowhere/evil",
        7,
        None,
    ],
)
def test_paths_that_no_honest_giver_lists(tmp_path: Path, path: Any) -> None:
    to = tmp_path / "to"
    with pytest.raises(Refused):
        taken(to, {**DIRECTORY, "path": "a"}, {**FILE, "path": path}, {"end": 2})
    assert [each.name for each in tmp_path.iterdir()] in ([], ["to"])


@pytest.mark.parametrize(
    "entry",
    [
        {**FILE, "path": "x", "kind": "device"},
        {**FILE, "path": "x", "size": -1},
        {**FILE, "path": "x", "mode": "755"},
        {"path": "x", "kind": "link", "size": 0, "time": 0, "mode": 0},
        {"path": "x", "kind": "link", "size": 0, "time": 0, "mode": 0, "to": "a\0b"},
        [],
        7,
        "x",
    ],
)
def test_entries_that_make_no_sense(tmp_path: Path, entry: Any) -> None:
    with pytest.raises(Refused):
        taken(tmp_path / "to", entry, {"end": 1})


def test_a_link_that_is_then_used_as_a_directory(tmp_path: Path) -> None:
    link = {"path": "a", "kind": "link", "size": 0, "time": 0, "mode": 0, "to": str(tmp_path)}
    with pytest.raises(Refused, match="in what it does not call a directory"):
        taken(tmp_path / "to", link, {**FILE, "path": "a/evil"}, {"end": 2})
    with pytest.raises(Refused, match="twice"):
        taken(tmp_path / "to", {**DIRECTORY, "path": "a"}, link, {**FILE, "path": "a/evil"}, {"end": 3})
    assert not (tmp_path / "evil").exists()


def test_modes_that_would_give_rights(tmp_path: Path) -> None:
    piece = struct.pack(">I", 1) + b"x" + struct.pack(">I", 0)
    taken(tmp_path / "to", {**FILE, "path": "x", "mode": 0o6777}, {"end": 1}, data=piece)
    assert (tmp_path / "to/x").stat().st_mode & 0o7777 == 0o777


@pytest.mark.parametrize(
    "data",
    [
        b"",
        struct.pack(">I", 5) + b"abc",
        struct.pack(">I", 1 << 30),
        struct.pack(">I", 1) + b"x",
    ],
)
def test_a_file_that_breaks_off_never_appears(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Refused):
        taken(tmp_path / "to", {**FILE, "path": "x"}, {"end": 1}, data=data)
    assert list((tmp_path / "to").iterdir()) == []


def test_a_file_that_cannot_be_read_at_the_other_end(tmp_path: Path) -> None:
    result = taken(tmp_path / "to", {**FILE, "path": "x"}, {"end": 1}, data=struct.pack(">I", 0xFFFFFFFF))
    assert result["failed"] == [("x", "it could not be read")]
    assert list((tmp_path / "to").iterdir()) == []


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_list_or_refused(data: bytes) -> None:
    taker = Taker("/nonexistent-and-dry", True, nothing)
    try:
        taker.take(io.BytesIO(data), io.BytesIO())
    except Refused:
        pass
    finally:
        taker.close()


def test_a_taker_that_wants_what_was_not_offered(source: Path) -> None:
    for wants in (b"[99]\n", b"[-1]\n", b"{}\n", b"nonsense\n", b""):
        with pytest.raises(Refused):
            copying.give(str(source), io.BytesIO(wants), io.BytesIO(), nothing, lambda: False)


def test_a_full_disk_ends_it(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("farkernel.launcher.agent.errands.copying._NewFile.write", full)
    piece = struct.pack(">I", 1) + b"x" + struct.pack(">I", 0)
    result = taken(tmp_path / "to", {**FILE, "path": "x"}, {**FILE, "path": "y"}, {"end": 2}, data=piece)
    assert result["fatal"] == f"{tmp_path}/to/x: No space left on device"
    assert list((tmp_path / "to").iterdir()) == []


# -- as a program ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("python", PYTHONS, ids=str)
def test_the_far_half_under_each_python(python: Path, source: Path, tmp_path: Path) -> None:
    child = subprocess.Popen(
        [str(python), "-I", "-u", "-c", errand_text("copying")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child, child.stdin as saying, child.stdout as hearing:
        copying.say(cast(BinaryIO, saying), {"role": "take", "path": str(tmp_path / "to")})
        result = copying.give(
            str(source), cast(BinaryIO, hearing), cast(BinaryIO, saying), nothing, lambda: False
        )
    assert (result["files"], result["failures"]) == (3, 0)
    assert (tmp_path / "to/two").read_bytes() == (source / "two").read_bytes()
    assert child.returncode == 0
