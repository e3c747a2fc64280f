"""What every board must do, on an unmodified old firmware and on one with raw-paste, at 115200 baud."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import time
import tty
from collections.abc import Callable

import pytest

from farkernel.launcher.board.contract import BoardState
from farkernel.launcher.board.errors import (
    BoardBusy,
    BoardError,
    BoardException,
    BoardGone,
    BoardLost,
    NotABoard,
    TooMuchCode,
    Unsupported,
)
from farkernel.launcher.board.serial_line import SerialLine
from farkernel.launcher.board.session import Board

from ...sites.boards import VirtualBoard
from .conftest import Said, connected

pytestmark = pytest.mark.servers

DEADLINE = 20.0


def nobody(data: bytes) -> None:
    pytest.fail(f"nothing should be printed, but {data!r} was")


async def until(condition: Callable[[], bool]) -> None:
    """What makes it true is the board's doing, and nothing that could be awaited."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


def states(said: Said) -> list[BoardState]:
    return [state for state, _ in said]


# -- running code ----------------------------------------------------------------------------------


def test_it_says_what_it_is(site: VirtualBoard) -> None:
    async def run() -> None:
        async with connected(site) as (board, said):
            info = board.info
            assert info is not None
            assert info.implementation == "micropython"
            if info.platform == "microbit":
                assert (info.version, info.raw_paste, info.mpy_version) == ((1, 9, 2), False, None)
                assert info.machine == "micro:bit with nRF51822"
                assert info.firmware.endswith("; micro:bit with nRF51822")
            else:
                assert (info.version, info.raw_paste, info.mpy_version, info.mpy_arch) == (
                    (1, 25, 0),
                    True,
                    6,
                    6,
                )
                assert info.firmware == "MicroPython v1.25.0 on 2025-04-15; mps2-an385 in QEMU with Cortex-M3"
                assert info.unique_id == "fa122501"
            assert said == [(BoardState.OPENING, ""), (BoardState.READY, info.firmware)]
            names = await board.evaluate("[name for name in dir() if name[:1] == '_' and name != '__name__']")
            assert names == []  # asking left nothing behind

    asyncio.run(run())


def test_code_output_and_traceback(site: VirtualBoard) -> None:
    async def run() -> None:
        async with connected(site) as (board, _):
            output = bytearray()
            assert await board.execute("print('before')\nprint(1 / 0)", output.extend) == (
                b"Traceback (most recent call last):\r\n"
                b'  File "<stdin>", line 2, in <module>\r\n'
                b"ZeroDivisionError: "
                + (b"division by zero" if not board_is_new(board) else b"divide by zero")
                + b"\r\n"
            )
            assert output == b"before\r\n"
            assert await board.execute(b"x = 5", nobody) == b""
            assert await board.execute("", nobody) == b""
            assert b"SyntaxError" in await board.execute("x = = 5", nobody)
            assert b"SyntaxError" in await board.execute(
                "x = 1\n" * 100 + "x = = 5\n" + "x = 2\n" * 100, nobody
            )
            assert await board.evaluate("x") == 5
            assert board.state is BoardState.READY

    asyncio.run(run())


def board_is_new(board: Board) -> bool:
    return board.info is not None and board.info.raw_paste


def test_values(site: VirtualBoard) -> None:
    async def run() -> None:
        async with connected(site) as (board, _):
            assert await board.evaluate("[1, -2.5, 'é\\n', b'\\x00\\xff', None, True, (), {'a': {1}}]") == [
                1, -2.5, "é\n", b"\x00\xff", None, True, (), {"a": {1}},
            ]  # fmt: skip
            assert await board.evaluate("float('inf')") == float("inf")
            with pytest.raises(BoardException, match="ZeroDivisionError"):
                await board.evaluate("1 // 0")
            with pytest.raises(BoardError, match="no literal"):
                await board.evaluate("print")

    asyncio.run(run())


def test_unicode_binary_and_ctrl_d(site: VirtualBoard) -> None:
    """Characters come split over reads, as the line has them; a program may print any bytes."""

    async def run() -> None:
        async with connected(site) as (board, _):
            pieces: list[bytes] = []
            text = "naïve Ω 🙂 " * 20
            await board.execute(f"print({text!r} * 5)", pieces.append)
            assert b"".join(pieces).decode() == text * 5 + "\r\n"
            assert len(pieces) > 5
            output = bytearray()
            everything = "for i in range(256): print(chr(i) if i < 128 else '\\x04', end='')"
            assert await board.execute(everything, output.extend) == b""
            expected = b"".join(bytes([i]) if i < 128 else b"\x04" for i in range(256))
            assert output.replace(b"\r\n", b"\n") == expected.replace(b"\r\n", b"\n")
            assert await board.evaluate("1") == 1

    asyncio.run(run())


def test_200_kb_of_output(site: VirtualBoard) -> None:
    async def run() -> None:
        async with connected(site) as (board, _):
            output = bytearray()
            began = time.monotonic()
            await board.execute("for i in range(2000): print('%04d' % i, 'x' * 93)", output.extend)
            assert bytes(output) == b"".join(b"%04d %s\r\n" % (i, b"x" * 93) for i in range(2000))
            assert time.monotonic() - began > 200_000 * 10 / 115200 * 0.9  # the line is paced

    asyncio.run(run())


def test_64_kb_of_code(new: VirtualBoard) -> None:
    """Through a window of 128 bytes, into a ring that drops what does not fit: nothing is dropped."""

    async def run() -> None:
        async with connected(new) as (board, _):
            comment = "# " + "x" * 125 + "\n"
            code = "n = 0\n" + f"n += 1\n{comment * 5}" * 99 + "print(n)\n"
            assert len(code) > 64_000
            output = bytearray()
            assert await board.execute(code, output.extend) == b""
            assert output == b"99\r\n"
            assert await board.evaluate("flash.serial_dropped()") == 0

    asyncio.run(run())


def test_code_without_raw_paste_goes_in_pieces(old: VirtualBoard) -> None:
    async def run() -> None:
        async with connected(old) as (board, _):
            code = "n = 0\n" + "n += 1  # some words to make it longer\n" * 60 + "print(n)\n"
            output = bytearray()
            assert await board.execute(code, output.extend) == b""
            assert output == b"60\r\n"

    asyncio.run(run())


class Losing(SerialLine):
    """A line that loses one bracket of the code, once."""

    lost = 0

    def write(self, data: bytes) -> None:
        if b"print(n)" in data and not self.lost:
            self.lost += 1
            data = data.replace(b"print(n)", b"print(n", 1)
        super().write(data)


def test_code_that_lost_something_on_its_way_is_sent_again(old: VirtualBoard) -> None:
    """Nothing of code that cannot be compiled has run; without raw-paste a busy board drops bytes."""

    async def run() -> None:
        line = Losing(str(old.device))
        board = Board(line)
        await board.connect()
        output = bytearray()
        assert await board.execute("n = 5  # some words\n" * 20 + "print(n)\n", output.extend) == b""
        assert output == b"5\r\n"
        assert line.lost == 1
        # An error of the code itself stays one, and what has run is not run again.
        assert b"SyntaxError" in await board.execute("n = 1\n" * 60 + "n = = 2", nobody)
        failed = await board.execute("n += 1\n" * 50 + "exec('n = = 2')\n", nobody)
        assert b"SyntaxError" in failed
        assert await board.evaluate("n") == 55
        await board.close()

    asyncio.run(run())


def test_64_kb_of_code_for_the_old_firmware(old: VirtualBoard) -> None:
    """It would stop dead when it cannot hold it as a whole; what just fits runs."""

    async def run() -> None:
        async with connected(old) as (board, _):
            for size in (64_000, 7_000):
                with pytest.raises(
                    TooMuchCode,
                    match=rf"has {size:,} bytes, too much for the [78],\d\d\d .* or reset it first",
                ):
                    await board.execute(f"x = 1{' ' * (size - 5)}", nobody)
            output = bytearray()
            assert await board.execute(f"# {'x' * 5000}\nprint(5)", output.extend) == b""
            assert output == b"5\r\n"

    asyncio.run(run())


def test_too_much_for_its_memory(site: VirtualBoard) -> None:
    async def run() -> None:
        async with connected(site) as (board, _):
            assert b"MemoryError" in await board.execute("x = bytearray(1000000)", nobody)
            literal = "x = '" + "y" * (60_000 if board_is_new(board) else 3_000) + "'"
            assert b"MemoryError" in await board.execute(literal, nobody)
            assert await board.evaluate("1 + 1") == 2

    asyncio.run(run())


def test_one_after_the_other(site: VirtualBoard) -> None:
    async def run() -> None:
        async with connected(site) as (board, _):
            await board.execute("n = 0", nobody)
            await asyncio.gather(*(board.execute("n += 1", nobody) for _ in range(20)))
            assert await board.evaluate("n") == 20

    asyncio.run(run())


def test_input(site: VirtualBoard) -> None:
    async def run() -> None:
        async with connected(site) as (board, _):
            output = bytearray()
            task = asyncio.create_task(board.execute("print('it is', input('name? '))", output.extend))
            await until(lambda: output.endswith(b"name? "))
            board.send_input(b"Ada\r")
            assert await task == b""
            assert output.endswith(b"it is Ada\r\n")

    asyncio.run(run())


def test_code_with_control_characters_is_refused(site: VirtualBoard) -> None:
    async def run() -> None:
        async with connected(site) as (board, _):
            with pytest.raises(BoardError, match="control character") as caught:
                await board.execute("print('\x04')", nobody)
            assert caught.value.advice == 'Write it as an escape, such as "\\x04"'
            assert await board.evaluate("2") == 2

    asyncio.run(run())


# -- interrupts ------------------------------------------------------------------------------------

LOOPS = {
    "loop": "while True: pass",
    "sleep": "try:\n from time import sleep_ms\nexcept ImportError:\n from microbit import sleep as sleep_ms\nwhile True: sleep_ms(1000)",
    "output": "while True: print('a line of output')",
}


@pytest.mark.parametrize("code", LOOPS.values(), ids=LOOPS.keys())
@pytest.mark.parametrize("after", [0.0, 0.7], ids=["at once", "later"])
def test_interrupt(site: VirtualBoard, code: str, after: float) -> None:
    async def run() -> None:
        async with connected(site) as (board, _):
            task = asyncio.create_task(board.execute(code, lambda data: None))
            await until(lambda: board.state is BoardState.RUNNING)
            await asyncio.sleep(after)
            await board.interrupt()
            async with asyncio.timeout(DEADLINE):
                assert (await task).endswith(b"KeyboardInterrupt: \r\n")
            assert await board.evaluate("3") == 3

    asyncio.run(run())


def test_interrupting_code_on_its_way(site: VirtualBoard) -> None:
    async def run() -> None:
        async with connected(site) as (board, _):
            await board.execute("ran = False", nobody)
            code = "# " + "x" * 60 + "\n"
            task = asyncio.create_task(board.execute(code * 85 + "ran = True", nobody))
            await asyncio.sleep(0.15)
            await board.interrupt()
            async with asyncio.timeout(DEADLINE):
                assert (await task).endswith(b"KeyboardInterrupt: \r\n")
            assert await board.evaluate("ran") is False

    asyncio.run(run())


def test_interrupting_nothing(site: VirtualBoard) -> None:
    async def run() -> None:
        async with connected(site) as (board, _):
            await board.interrupt()
            assert await board.evaluate("4") == 4

    asyncio.run(run())


@pytest.mark.parametrize("after", [0.0, 0.02, 0.5])
def test_a_cancelled_run_is_interrupted(site: VirtualBoard, after: float) -> None:
    async def run() -> None:
        async with connected(site) as (board, _):
            task = asyncio.create_task(board.execute("while True: pass" + "#" * 300, nobody))
            await asyncio.sleep(after)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await board.evaluate("5") == 5

    asyncio.run(run())


# -- resets ----------------------------------------------------------------------------------------


def test_soft_reset(site: VirtualBoard) -> None:
    async def run() -> None:
        async with connected(site) as (board, said):
            await board.execute("x = 1", nobody)
            output = bytearray()
            await board.soft_reset(output.extend)
            assert b"soft reboot" in output
            assert not output.startswith(b"OK")
            with pytest.raises(BoardException, match="NameError"):
                await board.evaluate("x")
            assert states(said)[2:6] == [
                BoardState.RUNNING, BoardState.READY, BoardState.RESETTING, BoardState.READY,
            ]  # fmt: skip

    asyncio.run(run())


def test_hard_reset(site: VirtualBoard) -> None:
    async def run() -> None:
        async with connected(site) as (board, said):
            await board.execute("x = 1", nobody)
            info = await board.hard_reset()
            assert info == board.info
            assert board.state is BoardState.READY
            with pytest.raises(BoardException, match="NameError"):
                await board.evaluate("x")
            assert BoardState.LOST not in states(said)

    asyncio.run(run())


def test_sys_exit_resets_it(new: VirtualBoard) -> None:
    async def run() -> None:
        async with connected(new) as (board, _):
            output = bytearray()
            assert await board.execute("import sys\nx = 1\nprint('bye')\nsys.exit()", output.extend) == b""
            assert output.startswith(b"bye\r\n")
            with pytest.raises(BoardException, match="NameError"):
                await board.evaluate("x")

    asyncio.run(run())


RESET = "try:\n import machine as m\n m.reset\nexcept Exception:\n import microbit as m\nm.reset()"


def test_a_program_that_resets_the_board(site: VirtualBoard) -> None:
    async def run() -> None:
        async with connected(site) as (board, said):
            with pytest.raises(BoardLost, match="has restarted by itself; what ran on it is lost"):
                await board.execute(RESET, lambda data: None)
            await until(lambda: board.state is BoardState.READY)
            assert states(said)[-3:] == [BoardState.LOST, BoardState.OPENING, BoardState.READY]
            assert said[-3][1] == "it has restarted by itself"
            assert said[-1][1].startswith("it is back: MicroPython")
            assert await board.evaluate("6") == 6

    asyncio.run(run())


def test_no_bootloader(site: VirtualBoard) -> None:
    async def run() -> None:
        async with connected(site) as (board, _):
            with pytest.raises(Unsupported, match="cannot start its bootloader"):
                await board.bootloader()
            assert await board.evaluate("7") == 7

    asyncio.run(run())


def test_an_endless_main_py(site: VirtualBoard) -> None:
    """It runs from power on; connecting ends it, and so does coming back from a hard reset."""

    async def run() -> None:
        async with connected(site) as (board, _):
            code = "print('main.py runs')\\nwhile True: pass\\n"
            await board.execute(f"f = open('main.py', 'w')\nn = f.write('{code}')\nf.close()", nobody)
            await board.soft_reset(lambda data: None)
            assert await board.evaluate("8") == 8
            await board.hard_reset()
            assert await board.evaluate("9") == 9
            if board_is_new(board):  # QEMU's micro:bit forgets its flash without power
                await board.close()
                site.pull_out()
                site.plug_in()
                await asyncio.sleep(0.5)
                await board.connect()
                assert await board.evaluate("10") == 10
            await board.execute("import os; os.remove('main.py')", nobody)

    asyncio.run(run())


# -- going away and coming back --------------------------------------------------------------------


def test_pulled_out_and_back(site: VirtualBoard) -> None:
    async def run() -> None:
        async with connected(site) as (board, said):
            task = asyncio.create_task(board.execute("while True: pass", nobody))
            await until(lambda: board.state is BoardState.RUNNING)
            await asyncio.to_thread(site.pull_out)
            with pytest.raises(BoardLost, match="went away"):
                await task
            assert board.state is BoardState.LOST
            with pytest.raises(BoardGone) as caught:
                await board.execute("1", nobody)
            assert "Plug it in" in caught.value.advice
            await asyncio.sleep(0.5)
            await asyncio.to_thread(site.plug_in)
            await until(lambda: board.state is BoardState.READY)
            assert await board.evaluate("11") == 11
            assert states(said)[-5:-2] == [BoardState.LOST, BoardState.OPENING, BoardState.READY]

    asyncio.run(run())


def test_pulled_out_while_nothing_runs(site: VirtualBoard) -> None:
    async def run() -> None:
        async with connected(site) as (board, _):
            await asyncio.to_thread(site.pull_out)
            await until(lambda: board.state is BoardState.LOST)
            await board.close()  # also while it is looked for
            assert board.state is BoardState.CLOSED

    asyncio.run(run())


def test_nothing_there(site: VirtualBoard) -> None:
    async def run() -> None:
        site.pull_out()
        board = Board(SerialLine(str(site.device)))
        with pytest.raises(BoardGone, match="no board at"):
            await board.connect()
        assert board.state is BoardState.CLOSED
        site.plug_in()
        await board.connect()
        await board.close()

    asyncio.run(run())


def test_two_clients(site: VirtualBoard) -> None:
    """The second is told who has it, and gets it once the first has let go."""

    async def run() -> None:
        async with connected(site) as (board, _):
            second = Board(SerialLine(str(site.device)))
            with pytest.raises(BoardBusy) as caught:
                await second.connect()
            assert "process" in caught.value.holder
            assert await board.evaluate("12") == 12
        await second.connect()
        await second.close()

    asyncio.run(run())


def test_it_is_left_at_its_friendly_prompt(site: VirtualBoard) -> None:
    async def run() -> None:
        async with connected(site) as (board, _):
            await board.execute("x = 13", nobody)
        async with connected(site) as (board, _):
            assert await board.evaluate("x") == 13  # nothing was reset

    asyncio.run(run())
    line = os.open(site.device, os.O_RDWR | os.O_NOCTTY)
    os.write(line, b"x\r")
    seen = b""
    while not seen.endswith(b"13\r\n>>> "):
        assert select.select([line], [], [], DEADLINE)[0], seen
        seen += os.read(line, 4096)
    os.close(line)


STATES = {
    "a half-typed line": b"print(1",
    "a half-typed block": b"def f():\r  x\r",
    "paste mode": b"\x05print(1)\r",
    "raw, half-sent code": b"\x01print(1",
    "a running program": b"while True: pass\r\r\r\r",
    "waiting for input": b"input()\r",
}


@pytest.mark.parametrize("typed", STATES.values(), ids=STATES.keys())
def test_from_whatever_it_is_doing(site: VirtualBoard, typed: bytes) -> None:
    line = os.open(site.device, os.O_RDWR | os.O_NOCTTY)
    os.write(line, b"\x03\x02" + typed)
    time.sleep(0.3)
    os.close(line)

    async def run() -> None:
        async with connected(site) as (board, _):
            assert await board.evaluate("14") == 14

    asyncio.run(run())


def test_raw_paste_left_in_the_middle(new: VirtualBoard) -> None:
    line = os.open(new.device, os.O_RDWR | os.O_NOCTTY)
    for typed in (b"\x03\x03\x01", b"\x05A\x01", b"print(1"):
        os.write(line, typed)
        time.sleep(0.2)
    os.close(line)

    async def run() -> None:
        async with connected(new) as (board, _):
            assert await board.evaluate("15") == 15

    asyncio.run(run())


def test_something_that_is_no_board() -> None:
    """A PTY that echoes nothing, and says other things."""
    master, slave = pty.openpty()
    tty.setraw(slave)

    async def run() -> None:
        asyncio.get_running_loop().call_later(0.2, os.write, master, b"\x1b[31mlogin: ")
        board = Board(SerialLine(os.ttyname(slave)))
        with pytest.raises(NotABoard) as caught:
            await board.connect()
        assert caught.value.what.endswith("what came from there: 'login:'")
        assert "reset button" in caught.value.advice
        assert board.state is BoardState.CLOSED

    asyncio.run(run())
    os.close(master)
    os.close(slave)


def test_its_repr_says_where_it_stands(site: VirtualBoard) -> None:
    async def run() -> None:
        async with connected(site) as (board, _):
            assert repr(board) == f"<Board at {site.device}, ready>"

    asyncio.run(run())
