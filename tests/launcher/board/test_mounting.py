"""A folder of this side on a board: here, at another machine with 100 ms of round trip, and over WebREPL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from farkernel.launcher.board.contract import Transport
from farkernel.launcher.board.errors import BoardFileError
from farkernel.launcher.board.far_serial import FarSerial
from farkernel.launcher.board.files import BoardFiles
from farkernel.launcher.board.mounting import NoFolders, mount, unmount
from farkernel.launcher.board.serial_line import SerialLine
from farkernel.launcher.board.session import Board
from farkernel.launcher.board.shared_folder import SharedFolder
from farkernel.launcher.board.webrepl import WebRepl

from ...sites import webrepl
from ...sites.boards import VirtualBoard
from .conftest import connected
from .test_far_serial import DELAY, agent

pytestmark = pytest.mark.servers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "shared"
    (folder / "lib").mkdir(parents=True)
    (folder / "module.py").write_text("x = 41\ndef f():\n    return x + 1\n# é\n" + "# more\n" * 300)
    (folder / "é.txt").write_text("aé🙂\nzwei\n")
    (folder / "data.bin").write_bytes(bytes(range(256)) * 8)
    return folder


class Seen:
    """Sets an event when something is printed."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    def __call__(self, data: bytes) -> None:
        self._event.set()


async def said(board: Board, code: str) -> str:
    output = bytearray()
    traceback = await board.execute(code, output.extend)
    assert not traceback, traceback.decode()
    return output.decode().replace("\r\n", "\n")


def test_programs_use_it_as_if_it_was_theirs(new: VirtualBoard, folder: Path) -> None:
    async def run() -> None:
        async with connected(new) as (board, _):
            names = await said(board, "print(sorted(dir()))")
            shared = SharedFolder(folder)
            await mount(board, shared)
            assert await said(board, "print(sorted(dir()))") == names  # it leaves nothing in sight
            assert await said(board, "import module\nprint(module.f())") == "42\n"
            assert await said(board, "import os\nprint(os.getcwd(), os.listdir())") == (
                "/remote ['data.bin', 'lib', 'module.py', '\\xe9.txt']\n"
            )
            assert (
                await said(board, "print(os.listdir('/'), os.stat('data.bin')[6])")
                == "['remote', 'boot.py'] 2048\n"
            )
            code = "f = open('é.txt')\nprint(f.read(3), f.tell(), f.readline(), list(f), repr(f.read()))"
            assert await said(board, code) == "aé🙂 7 \n ['zwei\\n'] ''\n"
            code = "b = open('data.bin', 'rb')\nb.seek(-3, 2)\nprint(b.read())\nb.seek(0)\nprint(b.read() == bytes(range(256)) * 8)"
            assert await said(board, code) == "b'\\xfd\\xfe\\xff'\nTrue\n"
            # Written as it comes, also what never was closed, and by the firmware's own functions.
            await said(
                board, "o = open('out.txt', 'w')\no.write('hällo\\n' * 100)\nprint('by print', 5, file=o)"
            )
            assert (folder / "out.txt").read_text() == "hällo\n" * 100 + "by print 5\n"
            await said(board, "import json\nwith open('j', 'w') as j: json.dump({'a': 1}, j)")
            assert await said(board, "with open('j') as j: print(json.load(j))") == "{'a': 1}\n"
            assert (
                await said(board, "with open('j', 'a') as j: j.write('\\n')\nprint(open('j').read())")
                == '{"a": 1}\n\n'
            )
            await said(board, "os.mkdir('q')\nos.rename('j', 'q/j')\nos.chdir('q')\nopen('k', 'w').close()")
            assert await said(board, "print(os.getcwd(), os.listdir())\nos.remove('k')\nos.chdir('..')") == (
                "/remote/q ['j', 'k']\n"
            )
            assert (folder / "q/j").exists()
            # Errors are those of any file system.
            assert b"OSError: [Errno 2] ENOENT" in await board.execute("open('no')", print)
            assert b"OSError: [Errno 2] ENOENT" in await board.execute(
                "open('/remote/../../etc/passwd')", print
            )
            assert b"OSError: [Errno 17] EEXIST" in await board.execute("os.mkdir('q')", print)
            # In the middle of a line, and beside files of the board's own.
            assert await said(board, "print('a', end='')\nopen('out.txt').read(1)\nprint('b')") == "ab\n"
            assert [entry.name for entry in await BoardFiles(board).listdir("/remote/q")] == ["j"]
            await BoardFiles(board).write("/remote/copied", b"\x00\x01" * 1500)
            assert (folder / "copied").read_bytes() == b"\x00\x01" * 1500
            await unmount(board)
            assert await said(board, "print(os.getcwd(), os.listdir('/'))") == "/ ['boot.py']\n"

    asyncio.run(run())


def test_an_interrupt_leaves_nothing_behind(new: VirtualBoard, folder: Path) -> None:
    async def run() -> None:
        async with connected(new) as (board, _):
            await mount(board, SharedFolder(folder))
            for wait in (0.55, 0.61, 0.7):
                begun = asyncio.Event()
                code = "print('begun')\nwhile True: open('data.bin', 'rb').read()"
                task = asyncio.create_task(board.execute(code, Seen(begun)))
                await begun.wait()
                await asyncio.sleep(wait)
                await board.interrupt()
                assert b"KeyboardInterrupt" in await task
                assert await said(board, "print('still', 'there')") == "still there\n"
                assert (
                    await said(board, "# " + "x" * 300 + "\nprint(len(open('data.bin', 'rb').read()))")
                    == "2048\n"
                )

    asyncio.run(run())


def test_it_is_there_for_what_runs_by_itself(new: VirtualBoard, folder: Path) -> None:
    """A soft reset ends it; a program that comes later asks nobody."""

    async def run() -> None:
        async with connected(new) as (board, _):
            shared = SharedFolder(folder)
            await mount(board, shared)
            await board.soft_reset(lambda data: None)
            assert await said(board, "import os\nprint(os.listdir('/'))") == "['boot.py']\n"
            await mount(board, shared)
            with pytest.raises(BoardFileError, match="there is no"):
                await BoardFiles(board).read("/remote/nothing")

    asyncio.run(run())


def test_firmware_without_file_systems_says_so(old: VirtualBoard, folder: Path) -> None:
    async def run() -> None:
        async with connected(old) as (board, _):
            with pytest.raises(
                NoFolders, match=r"cannot show a folder of this side \(it has no io\.IOBase\)"
            ) as caught:
                await mount(board, SharedFolder(folder))
            assert caught.value.advice == "Copy the files to it: %put, or %sync for a whole folder"
            assert await said(board, "print(2)") == "2\n"

    asyncio.run(run())


async def use(transport: Transport, folder: Path) -> None:
    board = Board(transport)
    await board.connect()
    await mount(board, SharedFolder(folder))
    assert await said(board, "import module\nprint(module.f())") == "42\n"
    await said(board, "with open('out', 'w') as o: o.write('x' * 1000)")
    assert (folder / "out").read_text() == "x" * 1000
    await BoardFiles(board).write("/remote/copied", b"\x00\x01" * 1500)
    assert (folder / "copied").read_bytes() == b"\x00\x01" * 1500
    await unmount(board)
    await board.close()


async def over_ssh(site: VirtualBoard, use: Callable[[Transport], Awaitable[None]]) -> None:
    async with agent(DELAY) as far:
        await use(FarSerial(far, "pi7", str(site.device)))


async def over_webrepl(site: VirtualBoard, use: Callable[[Transport], Awaitable[None]]) -> None:
    async with webrepl.served(site, "secret") as server:
        await use(WebRepl("127.0.0.1", server.port, "secret"))


@pytest.mark.parametrize("way", [over_ssh, over_webrepl])
def test_over_other_ways(new: VirtualBoard, folder: Path, way: Callable[..., Awaitable[None]]) -> None:
    asyncio.run(way(new, lambda transport: use(transport, folder)))  # type: ignore[arg-type]


def test_mounted_is_where_the_line_is(new: VirtualBoard, folder: Path) -> None:
    """The same folder again, after the board was pulled out: nothing of the former one is in the way."""

    async def run() -> None:
        board = Board(SerialLine(str(new.device)))
        await board.connect()
        shared = SharedFolder(folder)
        await mount(board, shared)
        await said(board, "f = open('data.bin', 'rb')\nf.read(1)")
        assert repr(shared).endswith("1 files open>")
        await board.close()
        await asyncio.to_thread(new.pull_out)
        await asyncio.to_thread(new.plug_in)
        await board.connect()
        await mount(board, shared)
        assert repr(shared).endswith("0 files open>")
        await board.close()

    asyncio.run(run())
