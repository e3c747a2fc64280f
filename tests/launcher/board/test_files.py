"""Files on a littlefs and on the micro:bit's own file system."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.board.contract import Entry
from farkernel.launcher.board.errors import (
    BoardError,
    BoardException,
    BoardFileError,
    BoardFull,
    Unsupported,
    file_error,
)
from farkernel.launcher.board.file_code import literal
from farkernel.launcher.board.files import BoardFiles, Damaged, decoded, join, written
from farkernel.launcher.board.serial_line import SerialLine
from farkernel.launcher.board.session import Board
from farkernel.launcher.board.sync import is_excluded, local_files

from ...sites.boards import VirtualBoard
from .conftest import connected

ALL_BYTES = bytes(range(256))


def with_files(site: VirtualBoard, act: Callable[[BoardFiles], Awaitable[None]]) -> None:
    async def run() -> None:
        async with connected(site) as (board, _):
            await act(BoardFiles(board))

    asyncio.run(run())


@pytest.mark.servers
def test_write_and_read(site: VirtualBoard) -> None:
    async def act(files: BoardFiles) -> None:
        steps: list[tuple[int, int]] = []
        data = ALL_BYTES * 8
        await files.write("data.bin", data, lambda *step: steps.append(step))
        assert steps[0] == (0, len(data))
        assert steps[-1] == (len(data), len(data))
        assert [entry for entry in await files.listdir() if entry.name != "boot.py"] == [
            Entry("data.bin", False, len(data))
        ]
        assert (await files.stat("data.bin")).size == len(data)
        steps.clear()
        assert await files.read("data.bin", lambda *step: steps.append(step)) == data
        assert steps[-1] == (len(data), len(data))
        await files.write("data.bin", b"")
        assert await files.read("data.bin") == b""
        await files.remove("data.bin")
        with pytest.raises(BoardFileError, match=r"there is no 'data\.bin' on the board"):
            await files.read("data.bin")
        with pytest.raises(BoardFileError, match=r"there is no 'data\.bin' on the board"):
            await files.remove("data.bin")
        assert await files.board.evaluate("[n for n in dir() if n[:1] == '_' and n != '__name__']") == []

    with_files(site, act)


@pytest.mark.servers
def test_directories(new: VirtualBoard) -> None:
    async def act(files: BoardFiles) -> None:
        await files.mkdir("a/b", parents=True)
        await files.mkdir("a/b", parents=True)  # is there
        await files.write("/a/b/ü '\".txt", b"x")
        assert await files.listdir("/a") == [Entry("b", True)]
        assert await files.listdir("a/b/") == [Entry("ü '\".txt", False, 1)]
        assert (await files.stat("/a")).directory
        assert (await files.stat("/")) == Entry("/", True)
        with pytest.raises(BoardFileError, match="the directory 'a' is not empty"):
            await files.rmdir("a")
        with pytest.raises(BoardFileError, match="is a directory"):
            await files.write("a", b"")
        with pytest.raises(BoardFileError, match="there is no folder 'no' on the board"):
            await files.write("no/x", b"x")
        await files.rename("a/b", "c")
        assert await files.listdir("a") == []
        await files.rmdir("c", recursive=True)
        await files.rmdir("a")
        assert [entry.name for entry in await files.listdir()] == ["boot.py"]
        usage = await files.disk_usage()
        assert usage.total == usage.used + usage.free == 763 * 4096

    with_files(new, act)


@pytest.mark.servers
def test_a_write_is_whole_or_not_at_all(new: VirtualBoard) -> None:
    async def act(files: BoardFiles) -> None:
        await files.write("x", b"old")
        began = asyncio.Event()
        task = asyncio.create_task(
            files.write("x", b"new" * 10_000, lambda done, _: began.set() if done else None)
        )
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await files.read("x") == b"old"
        task = asyncio.create_task(files.write("x", b"newer"))
        await asyncio.sleep(0.02)  # it is being opened
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await files.read("x") == b"old"
        assert [entry.name for entry in await files.listdir()] == ["boot.py", "x"]

    with_files(new, act)


@pytest.mark.servers
def test_no_room(old: VirtualBoard) -> None:
    """The micro:bit's flash has room for some 30 KB."""

    async def act(files: BoardFiles) -> None:
        code = "n = 0\nwhile True:\n f = open('f%d' % n, 'wb')\n f.write(b'x' * 500)\n f.close()\n n += 1"
        assert b"OSError" in await files.board.execute(code, lambda data: None)
        with pytest.raises(BoardFull, match=r"no room on the board for 'y' of 2,000 bytes"):
            await files.write("y", b"y" * 2000)

    with_files(old, act)


@pytest.mark.servers
def test_what_the_old_firmware_cannot(old: VirtualBoard) -> None:
    async def act(files: BoardFiles) -> None:
        for wish in (files.disk_usage(), files.rename("a", "b"), files.mkdir("d")):
            with pytest.raises(Unsupported, match="firmware has no function for that"):
                await wish
        assert await files.digest("nothing") is None

    with_files(old, act)


@pytest.mark.servers
def test_a_folder_and_again(new: VirtualBoard, tmp_path: Path) -> None:
    folder = tmp_path / "lesson"
    (folder / "lib" / "deep").mkdir(parents=True)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_bytes(b"")
    (folder / "main.txt").write_text("one")
    (folder / "lib" / "a.py").write_text("x = 1\n")
    (folder / "lib" / "deep" / "b.py").write_text("y = 2\n")

    async def act(files: BoardFiles) -> None:
        done = await files.sync_folder(folder, exclude=["boot.py"])
        assert done.sent == ("main.txt", "lib/a.py", "lib/deep/b.py")
        assert done.bytes_sent == 15
        again = await files.sync_folder(folder, exclude=["boot.py"])
        assert (again.sent, again.unchanged) == ((), done.sent)
        (folder / "main.txt").write_text("two")  # the same size
        (folder / "lib" / "deep" / "b.py").unlink()
        (folder / "lib" / "deep").rmdir()
        (folder / "lib" / "deep").write_text("a file now")
        await files.write("lib/other", b"not from here")
        done = await files.sync_folder(folder, delete=True, exclude=["boot.py"])
        assert done.sent == ("main.txt", "lib/deep")
        assert done.removed == ("lib/other",)
        assert await files.read("lib/deep") == b"a file now"
        assert [entry.name for entry in await files.listdir()] == ["boot.py", "lib", "main.txt"]
        done = await files.sync_folder(folder / "lib", "/copy/here")
        assert done.sent == ("/copy/here/a.py", "/copy/here/deep")

    with_files(new, act)


@pytest.mark.servers
def test_a_flat_folder_on_the_old_firmware(old: VirtualBoard, tmp_path: Path) -> None:
    folder = tmp_path / "lesson"
    folder.mkdir()
    (folder / "a.txt").write_text("one")
    (folder / "b.txt").write_text("two")

    async def act(files: BoardFiles) -> None:
        assert (await files.sync_folder(folder)).sent == ("a.txt", "b.txt")
        (folder / "a.txt").write_text("ONE")
        assert (await files.sync_folder(folder)).sent == ("a.txt",)

    with_files(old, act)


class Damaging(SerialLine):
    """A line that makes other bytes of the letters that follow each other in what is written, ``times`` times."""

    times = 1

    def write(self, data: bytes) -> None:
        if b"A" * 40 in data and self.times:
            self.times -= 1
            data = data.replace(b"A" * 40, b"A" * 39 + b"B", 1)
        super().write(data)


@pytest.mark.servers
def test_a_line_that_damages_what_is_written(new: VirtualBoard) -> None:
    """It is seen by the check sum and sent again; if nothing helps, nothing of it stays."""

    async def run() -> None:
        line = Damaging(str(new.device))
        board = Board(line)
        await board.connect()
        files = BoardFiles(board)
        await files.write("data", bytes(300))
        assert line.times == 0
        assert await files.read("data") == bytes(300)
        line.times = 100
        with pytest.raises(Damaged, match="'data' is not what was sent"):
            await files.write("data", bytes(400))
        assert await files.read("data") == bytes(300)
        assert [entry.name for entry in await files.listdir()] == ["boot.py", "data"]
        assert await board.evaluate("[name for name in dir() if name[:3] == '_fk']") == []
        await board.close()

    asyncio.run(run())


# -- the pure parts --------------------------------------------------------------------------------


def test_what_is_left_out(tmp_path: Path) -> None:
    for name in ("a.py", "__pycache__/a.pyc", ".git/config", "data/x.csv", "data/y.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert list(local_files(tmp_path, ["*.csv"])) == ["data", "a.py", "data/y.bin"]
    assert is_excluded("data/x.csv", ["data/*"])
    assert not is_excluded("data", ["data/*"])


@given(st.binary(max_size=300), st.booleans())
def test_pieces_hold_no_control_characters(data: bytes, base64: bool) -> None:
    code = written("_fk", data, base64)
    assert code.isprintable()
    got: list[bytes] = []
    scope = {"_fk": (got.append, __import__("binascii").a2b_base64)}
    exec(code, scope)  # noqa: S102 - our own code, as the board runs it
    assert got == [data]


@given(st.text())
def test_names_as_literals(name: str) -> None:
    assert all(character >= " " and character != "\x7f" for character in literal(name))
    assert eval(literal(name)) == name  # noqa: S307 - our own literal


def test_lines_of_a_file() -> None:
    assert decoded(b"AAEC") == b"\0\1\2"
    assert decoded(b"b'\\x00a'") == b"\0a"
    for line in (b"A", b"b'", b"tick 5"):
        with pytest.raises(BoardError, match="makes no sense"):
            decoded(line)


def test_paths() -> None:
    assert (join("", "a"), join("/", "a"), join("b/", "a")) == ("a", "/a", "b/a")


@pytest.mark.parametrize(
    ("last", "kind", "words"),
    [
        (b"OSError: 28", BoardFull, "no room on the board for 'p' of 5 bytes"),
        (b"OSError: [Errno 28] ENOSPC", BoardFull, "no room"),
        (b"OSError: [Errno 2] ENOENT: p", BoardFileError, "there is no 'p' on the board"),
        (b"OSError: [Errno 30] Read-only filesystem", BoardFileError, "can only be read"),
        (b"OSError: 39", BoardFileError, "is not empty"),
        (b"MemoryError: memory allocation failed, allocating 9 bytes", BoardFileError, "no memory left"),
        (b"AttributeError: 'module' object has no attribute 'statvfs'", Unsupported, "no function for that"),
        (b"OSError: -203", BoardException, "the board says OSError: -203"),
        (b"ValueError: \x1b[31mred", BoardException, "the board says ValueError: red"),
    ],
)
def test_reasons(last: bytes, kind: type[BoardError], words: str) -> None:
    traceback = b'Traceback (most recent call last):\r\n  File "<stdin>", line 1\r\n' + last + b"\r\n"
    error = file_error(BoardException(traceback), "p", 5)
    assert type(error) is kind
    assert words in error.what
