"""What a board may do in a folder of this side, and what it may not."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.board.shared_folder import SharedFolder

Ask = Callable[..., Any]
FILE, FOLDER = 0x8000, 0x4000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("nobody's business")
    folder = tmp_path / "shared"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("hello")
    return folder


@pytest.fixture
def ask(folder: Path) -> Ask:
    shared = SharedFolder(folder)
    return lambda wanted, *arguments: shared.ask(wanted, arguments)


def refused(ask: Ask, wanted: str, *arguments: Any) -> int | None:
    with pytest.raises(OSError, match=r".") as caught:
        ask(wanted, *arguments)
    return caught.value.errno


def test_looking(ask: Ask, folder: Path) -> None:
    (folder / "sub/b").touch()
    assert ask("stat", "/a.txt")[:2] == (FILE, 5)
    assert ask("stat", "/sub/../a.txt")[2] == int((folder / "a.txt").stat().st_mtime)
    assert ask("stat", "/")[:2] == (FOLDER, 0)
    assert ask("list", "/", 0) == (None, [("a.txt", FILE, 0, 5), ("sub", FOLDER, 0, 0)])
    assert ask("enter", "/./sub/") == "/sub/"
    assert ask("enter", "/sub/..") == "/"
    assert refused(ask, "enter", "/a.txt") == errno.ENOTDIR
    assert refused(ask, "enter", "/nothing") == errno.ENOENT
    assert refused(ask, "stat", "/nothing") == errno.ENOENT
    assert len(ask("statvfs")) == 10


def test_a_large_folder_comes_in_pages(ask: Ask, folder: Path) -> None:
    for number in range(40):
        (folder / "sub" / f"{number:02}").touch()
    names, start = [], 0
    while start is not None:
        start, page = ask("list", "/sub", start)
        names += [name for name, *_ in page]
        assert len(page) <= 12
    assert names == [f"{number:02}" for number in range(40)]


def test_reading_and_writing(ask: Ask, folder: Path) -> None:
    handle, start = ask("open", "/new.bin", "wb")
    assert start == 0
    assert ask("write", handle, 0, "AAEC") is None
    assert ask("write", handle, 5, "/w==") is None
    assert ask("sync", handle) == 0
    assert ask("size", handle) == 6
    assert ask("close", handle) == 0
    assert (folder / "new.bin").read_bytes() == b"\x00\x01\x02\x00\x00\xff"
    handle, start = ask("open", "/a.txt", "a")
    assert start == 5
    ask("write", handle, 0, "IQ==")
    ask("close", handle)
    handle, _ = ask("open", "/a.txt", "r")
    assert ask("read", handle, 1, 100) == b"ello!"
    assert ask("read", handle, 100, 100) == b""
    ask("close", handle)
    assert refused(ask, "read", handle, 0, 1) == errno.EBADF
    assert refused(ask, "open", "/a.txt", "x") == errno.EEXIST
    assert refused(ask, "open", "/a.txt", "q") == errno.EINVAL
    assert refused(ask, "open", "/sub", "r") == errno.EISDIR


def test_what_went_wrong_while_writing_is_told_later(ask: Ask) -> None:
    handle, _ = ask("open", "/a.txt", "r")
    assert ask("write", handle, 0, "IQ==") is None  # it is open for reading
    assert refused(ask, "sync", handle) == errno.EBADF
    assert ask("close", handle) == 0
    handle, _ = ask("open", "/a.txt", "r+")
    assert ask("write", handle, 0, "not base64") is None
    assert refused(ask, "close", handle) == errno.EIO
    assert ask("write", 99, 0, "IQ==") is None
    assert refused(ask, "sync", 99) == errno.EBADF
    assert ask("close", 99) == 0


def test_changing(ask: Ask, folder: Path) -> None:
    ask("mkdir", "/new")
    ask("rename", "/a.txt", "/new/b.txt")
    assert (folder / "new/b.txt").read_text() == "hello"
    assert refused(ask, "rmdir", "/new") == errno.ENOTEMPTY
    ask("remove", "/new/b.txt")
    ask("rmdir", "/new")
    assert sorted(os.listdir(folder)) == ["sub"]
    for wanted in ("mkdir", "rmdir", "remove"):
        assert refused(ask, wanted, "/") == errno.EPERM
        assert refused(ask, wanted, "/..") == errno.EPERM


def test_nothing_outside_is_reached(ask: Ask, folder: Path) -> None:
    (folder / "out").symlink_to(folder.parent)
    (folder / "file").symlink_to(folder.parent / "secret")
    (folder / "inside").symlink_to("a.txt")
    os.mkfifo(folder / "pipe")
    for path in ("/../secret", "/sub/../../secret"):
        assert refused(ask, "stat", path) == errno.ENOENT  # the folder is the top
    for path in ("/out/secret", "/file", "/out"):
        assert refused(ask, "stat", path) == errno.EACCES
        assert refused(ask, "open", path, "r") == errno.EACCES
        assert refused(ask, "open", path, "w") == errno.EACCES
    assert refused(ask, "list", "/out", 0) == errno.EACCES
    assert refused(ask, "enter", "/out") == errno.EACCES
    for wanted in ("mkdir", "rmdir", "remove"):
        assert refused(ask, wanted, "/out/secret") == errno.EACCES
    assert refused(ask, "rename", "/a.txt", "/out/new") == errno.EACCES
    assert refused(ask, "open", "/pipe", "r") == errno.EACCES
    assert [name for name, *_ in ask("list", "/", 0)[1]] == ["a.txt", "inside", "sub"]
    handle, _ = ask("open", "/inside", "r")
    assert ask("read", handle, 0, 10) == b"hello"
    ask("remove", "/file")  # the link, not what it leads to
    assert (folder.parent / "secret").exists()
    (folder / "strange\n\x1b").touch()
    (folder / os.fsdecode(b"\xff")).touch()  # no text: a board could not name it
    assert "strange\n\x1b" in [name for name, *_ in ask("list", "/", 0)[1]]


def test_only_for_reading(folder: Path) -> None:
    shared = SharedFolder(folder, read_only=True)

    def ask(wanted: str, *arguments: Any) -> Any:
        return shared.ask(wanted, arguments)

    handle, _ = ask("open", "/a.txt", "r")
    assert ask("read", handle, 0, 10) == b"hello"
    for request in (
        ("open", "/a.txt", "w"),
        ("open", "/a.txt", "r+"),
        ("mkdir", "/x"),
        ("rename", "/a.txt", "/b"),
    ):
        assert refused(ask, *request) == errno.EROFS
    assert ask("statvfs")[3] == 0


def test_files_that_nobody_closes(folder: Path) -> None:
    """What MicroPython programs are like: the first one still works, and we have few open."""
    shared = SharedFolder(folder)
    before = len(os.listdir("/proc/self/fd"))
    handles = [shared.ask("open", ("/a.txt", "r+"))[0] for _ in range(200)]
    assert len(os.listdir("/proc/self/fd")) == before + 32
    assert repr(shared).endswith("32 files open>")
    assert shared.ask("read", (handles[0], 0, 10)) == b"hello"
    shared.ask("write", (handles[1], 0, "SA=="))
    assert shared.ask("read", (handles[2], 0, 10)) == b"Hello"
    assert len(os.listdir("/proc/self/fd")) == before + 32
    for _ in range(1000):
        shared.ask("open", ("/a.txt", "r"))
    with pytest.raises(OSError, match="not open"):
        shared.ask("read", (handles[0], 0, 10))
    shared.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_is_gone_when_it_is_opened_again(folder: Path) -> None:
    shared = SharedFolder(folder)
    first, _ = shared.ask("open", ("/a.txt", "w"))
    for _ in range(32):
        shared.ask("open", ("/a.txt", "r"))
    (folder / "a.txt").rename(folder / "b.txt")
    shared.ask("write", (first, 0, "IQ=="))
    with pytest.raises(FileNotFoundError):
        shared.ask("close", (first,))
    assert not (folder / "a.txt").exists()


@pytest.mark.parametrize(
    "request_",
    [
        ("stat",),
        ("stat", 5),
        ("stat", "/a\0b"),
        ("read", 1, 10**30, 2),
        ("read", "1", 2, 3),
        ("__class__",),
        ("_open", "/a"),
        ("ask", "stat", "/"),
    ],
)
def test_nonsense_is_an_error_number(ask: Ask, request_: tuple[Any, ...]) -> None:
    ask("open", "/a.txt", "r")
    assert refused(ask, *request_) == errno.EINVAL


@given(path=st.text(alphabet="./ab\\~é\0", max_size=20))
def test_no_path_leads_out(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    top = tmp_path_factory.getbasetemp()
    (top / "a").touch()
    (top / "in/b").mkdir(parents=True, exist_ok=True)
    shared = SharedFolder(top / "in")
    try:
        kind, *_ = shared.ask("stat", (path,))
    except OSError:
        return
    assert kind == FOLDER  # there is no file inside
