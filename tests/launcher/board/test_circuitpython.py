"""What is different with CircuitPython: against a stand-in that is written from its documentation (no real one)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from farkernel.launcher.board.errors import BoardFileError, Unsupported
from farkernel.launcher.board.files import BoardFiles
from farkernel.launcher.board.mounting import mount
from farkernel.launcher.board.serial_line import SerialLine
from farkernel.launcher.board.session import Board
from farkernel.launcher.board.shared_folder import SharedFolder

from ...sites.circuitpython import BANNER, CircuitPython, plugged_in

ENDLESS = "while True:\n    pass\n"


def on(site: CircuitPython, act: Callable[[Board], Awaitable[None]]) -> None:
    async def run() -> None:
        board = Board(SerialLine(device))
        await board.connect()
        await act(board)
        await board.close()

    with plugged_in(site) as device:
        asyncio.run(run())


async def said(board: Board, code: str) -> str:
    output = bytearray()
    traceback = await board.execute(code, output.extend)
    assert not traceback, traceback.decode()
    return output.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("code", ["print('Hello World!')", ENDLESS])
def test_its_program_is_ended_and_it_says_what_it_is(code: str) -> None:
    async def act(board: Board) -> None:
        info = board.info
        assert info is not None
        assert (info.implementation, info.version, info.platform) == ("circuitpython", (9, 2, 1), "RP2040")
        assert info.firmware == f"{BANNER.partition(';')[0]}; Raspberry Pi Pico with rp2040"
        assert (info.unique_id, info.raw_paste, info.base64) == ("deadbeef", False, True)
        assert await said(board, "print('on', 6 * 7)\n" + "# more than goes at once\n" * 30) == "on 42\n"
        assert (await board.execute("1 / 0", lambda data: None)).endswith(
            b"ZeroDivisionError: division by zero\r\n"
        )

    on(CircuitPython(code=code), act)


def test_an_interrupt() -> None:
    async def act(board: Board) -> None:
        begun = asyncio.Event()
        task = asyncio.create_task(board.execute("print('begun')\n" + ENDLESS, lambda data: begun.set()))
        await begun.wait()
        await board.interrupt()
        assert b"KeyboardInterrupt" in await task
        assert await said(board, "print('still there')") == "still there\n"

    on(CircuitPython(), act)


@pytest.mark.parametrize("code", ["print('Hello World!')", ENDLESS])
def test_a_soft_reset_runs_its_program_which_is_ended_again(code: str) -> None:
    site = CircuitPython(code=code)

    async def act(board: Board) -> None:
        await board.execute("x = 5", lambda data: None)
        output = bytearray()
        await board.soft_reset(output.extend)
        assert b"soft reboot" in output
        assert site.code_runs == 2
        assert await board.evaluate("'x' in globals()") is False
        assert await board.evaluate("2 + 2") == 4

    on(site, act)


def test_files() -> None:
    site = CircuitPython(drive_mounted=False)

    async def act(board: Board) -> None:
        files = BoardFiles(board)
        assert [entry.name for entry in await files.listdir()] == ["code.py"]
        data = bytes(range(256)) * 5
        await files.write("data.bin", data)
        await files.write("data.bin", data + b"again")  # FAT cannot rename onto a file
        assert site.files["data.bin"] == data + b"again"
        assert await files.read("data.bin") == data + b"again"

    on(site, act)


def test_a_drive_that_the_computer_has_is_said() -> None:
    async def act(board: Board) -> None:
        assert await BoardFiles(board).read("code.py") == b"print('Hello World!')"
        with pytest.raises(BoardFileError, match="the board's file system can only be read") as caught:
            await BoardFiles(board).write("data.bin", b"x")
        assert "CircuitPython lets the computer write while its drive is mounted" in caught.value.advice

    on(CircuitPython(), act)


def test_folders_of_this_side_cannot_be_mounted(tmp_path: pytest.TempPathFactory) -> None:
    async def act(board: Board) -> None:
        with pytest.raises(Unsupported, match="cannot show a folder of this side"):
            await mount(board, SharedFolder(tmp_path))  # type: ignore[arg-type]

    on(CircuitPython(), act)
