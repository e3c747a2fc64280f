"""A board at another machine's agent: a real agent on this one, reached over a link with 100 ms of round trip."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from farkernel.backends.archive import build_archive
from farkernel.backends.contract import Buffer, NotAnswered, Question, Receiver, Route, Stream
from farkernel.backends.local import LocalRoute
from farkernel.launcher.agent import holds
from farkernel.launcher.board.contract import BoardState, SerialOptions
from farkernel.launcher.board.errors import BoardError, BoardGone
from farkernel.launcher.board.far_serial import FarSerial
from farkernel.launcher.board.files import BoardFiles
from farkernel.launcher.board.serial_line import SerialLine
from farkernel.launcher.board.session import Board
from farkernel.launcher.keeper.far_agent import FarAgent

from ...sites.boards import VirtualBoard
from .test_session import nobody, until

pytestmark = pytest.mark.servers

DELAY = 0.05  # each way


class SlowRoute:
    """A route whose bytes take their time, in both directions."""

    def __init__(self, route: LocalRoute, delay: float) -> None:
        self._route, self._delay = route, delay
        self.processes: list[subprocess.Popen[bytes]] = []

    async def open(self, command: Sequence[str], receiver: Receiver) -> Stream:
        late = LateReceiver(receiver, self._delay)
        stream = await self._route.open(command, late)
        self.processes.append(stream._process)
        return LateStream(stream, late, self._delay)


class LateReceiver:
    def __init__(self, receiver: Receiver, delay: float) -> None:
        self._receiver, self._delay = receiver, delay
        self._loop = asyncio.get_running_loop()
        self.is_closed = False

    def data_received(self, data: bytes) -> None:
        self._loop.call_later(self._delay, self._arrived, data)

    def _arrived(self, data: bytes) -> None:
        if not self.is_closed:
            self._receiver.data_received(data)

    def writable(self) -> None:
        self._receiver.writable()

    def closed(self, said: str) -> None:
        self._loop.call_later(self._delay, self._receiver.closed, said)


class LateStream:
    def __init__(self, stream: Stream, late: LateReceiver, delay: float) -> None:
        self._stream, self._late, self._delay = stream, late, delay
        self._loop = asyncio.get_running_loop()

    @property
    def buffered(self) -> int:
        return self._stream.buffered

    def write(self, buffers: Sequence[Buffer]) -> None:
        self._loop.call_later(self._delay, self._stream.write, [bytes(buffer) for buffer in buffers])

    def close(self, dead: bool = False) -> None:
        self._late.is_closed = True
        self._stream.close()


class NobodyThere:
    """A user without a front end: a `contract.User`."""

    def environment(self) -> Mapping[str, str]:
        return {}

    async def ask(self, question: Question) -> str:
        raise NotAnswered(question)


@asynccontextmanager
async def agent(delay: float) -> AsyncIterator[FarAgent]:
    """A real agent, of this test's own run directory."""
    route = SlowRoute(LocalRoute(NobodyThere()), delay)

    async def reach() -> Route:
        return route

    fresh = asyncio.Event()
    far = FarAgent({}, reach, build_archive(), "host", fresh.set, lambda event: None, lambda state, why: None)
    task = asyncio.create_task(far.run())
    try:
        await fresh.wait()
        try:
            yield far
        finally:
            await far.request("end", if_idle=False)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for process in route.processes:
            await asyncio.to_thread(process.wait, 20)


def test_a_board_there(site: VirtualBoard) -> None:
    async def run() -> None:
        async with agent(DELAY) as far:
            board = Board(FarSerial(far, "pi7", str(site.device)))
            info = await board.connect()
            assert info.raw_paste is (info.platform == "mps2")
            assert board.transport.describe() == f"{site.device} on pi7"
            output = bytearray()
            code = "n = 0\n" + "n += 1  # and so that it is longer\n" * 60 + "print(n, 'ünïcode')\n"
            assert await board.execute(code, output.extend) == b""
            assert output.decode() == "60 ünïcode\r\n"
            assert b"SyntaxError" in await board.execute("x = = 1\n" + "# more\n" * 100, nobody)
            task = asyncio.create_task(board.execute("while True: pass", nobody))
            await asyncio.sleep(0.7)
            await board.interrupt()
            assert (await task).endswith(b"KeyboardInterrupt: \r\n")
            await board.soft_reset(output.extend)
            assert await board.evaluate("2") == 2
            await board.close()

    asyncio.run(run())


def test_interrupting_a_paste(new: VirtualBoard) -> None:
    async def run() -> None:
        async with agent(DELAY) as far:
            board = Board(FarSerial(far, "pi7", str(new.device)))
            await board.connect()
            await board.execute("ran = False", nobody)
            task = asyncio.create_task(board.execute("# " + "x" * 8000 + "\nran = True", nobody))
            await asyncio.sleep(0.4)
            await board.interrupt()
            assert b"KeyboardInterrupt" in await task
            assert await board.evaluate("ran") is False
            await board.close()

    asyncio.run(run())


def rates(device: Path, work: Callable[[Board], Awaitable[int]]) -> Iterator[tuple[float, float]]:
    """Bytes a second of the same work, here and far away, by turns: what else the machine does then hits both."""

    async def rate(board: Board) -> float:
        await board.connect()
        began = time.monotonic()
        size = await work(board)
        taken = time.monotonic() - began
        await board.close()
        return size / taken

    async def pair() -> tuple[float, float]:
        near = await rate(Board(SerialLine(str(device))))
        async with agent(DELAY) as far:
            return near, await rate(Board(FarSerial(far, "pi7", str(device))))

    return (asyncio.run(pair()) for _ in range(4))


def check_rates(pairs: Iterator[tuple[float, float]], share: float) -> None:
    """In one of them at least: a busy machine makes the far side slower, which needs more processes, and no faster."""
    seen = []
    for near, far in pairs:
        seen.append(far / near)
        if far > share * near:
            return
    raise AssertionError(f"{seen}, and not over {share}")


def test_code_goes_at_the_lines_own_rate(new: VirtualBoard) -> None:
    """64 KB of code: the window runs at the far side, so the round trip costs its time once."""
    code = ("# " + "x" * 61 + "\n") * 500

    async def execute(board: Board) -> int:
        assert await board.execute(code, nobody) == b""
        return len(code)

    check_rates(rates(new.device, execute), 0.8)


def test_files_go_at_the_lines_own_rate(new: VirtualBoard) -> None:
    """16 KB: opening, sending, closing and comparing are one conversation, each part sent while the one before runs."""
    data = os.urandom(16 * 1024)

    async def write(board: Board) -> int:
        await BoardFiles(board).write("data", data)
        return len(data)

    check_rates(rates(new.device, write), 0.8)


def test_files_there(new: VirtualBoard) -> None:
    async def run() -> None:
        async with agent(DELAY) as far:
            board = Board(FarSerial(far, "pi7", str(new.device)))
            await board.connect()
            files = BoardFiles(board)
            data = bytes(range(256)) * 10
            await files.write("data", data)
            assert await files.read("data") == data
            await board.close()

    asyncio.run(run())


def test_pulled_out_there_and_back(new: VirtualBoard) -> None:
    async def run() -> None:
        async with agent(0) as far:
            states: list[BoardState] = []
            board = Board(FarSerial(far, "pi7", str(new.device)), lambda state, _: states.append(state))
            await board.connect()
            await asyncio.to_thread(new.pull_out)
            await until(lambda: board.state is BoardState.LOST)
            await asyncio.to_thread(new.plug_in)
            await until(lambda: board.state is BoardState.READY)
            assert await board.evaluate("3") == 3
            await board.close()

    asyncio.run(run())


def test_what_can_be_wrong_there(new: VirtualBoard) -> None:
    async def run() -> None:
        async with agent(0) as far:
            with pytest.raises(BoardGone, match="no board at /dev/ttyNONE on pi7"):
                await Board(FarSerial(far, "pi7", "/dev/ttyNONE")).connect()
            with pytest.raises(BoardError, match=r"no board at /usb/ffff:ffff"):
                await Board(FarSerial(far, "pi7", "/usb/ffff:ffff")).connect()
            with pytest.raises(BoardError, match="/dev/null is no serial device"):
                await Board(FarSerial(far, "pi7", "/dev/null")).connect()
            with pytest.raises(BoardError, match="/etc/passwd is no serial device"):
                await Board(FarSerial(far, "pi7", "/etc/passwd")).connect()
            with pytest.raises(BoardError, match="12345 is no speed"):
                await Board(FarSerial(far, "pi7", "/dev/null", SerialOptions(12345))).connect()
            board = Board(FarSerial(far, "pi7", str(new.device)))
            await board.connect()
            with pytest.raises(BoardError, match="no control lines"):
                await board.transport.signals(dtr=True, rts=None)
            await board.close()
            await board.connect()  # it was let go of
            await board.close()

    asyncio.run(run())


def test_who_holds_it_there(new: VirtualBoard) -> None:
    """Ours say it in a lock file, and look at those of others; one without is found by what it has open."""
    lock = Path(holds.lock_file(str(new.device)))
    away = re.escape(f"{new.device} there is in use by ")

    async def refused(board: Board, holder: str) -> None:
        with pytest.raises(BoardError, match=away + holder) as caught:
            await board.connect()
        assert caught.value.as_dict()["kind"] == "board-busy"

    async def run(terminal: int) -> None:
        async with agent(0) as far:
            first, second = (
                Board(FarSerial(far, "pi7", str(new.device), purpose=f"the notebook of {who}"))
                for who in ("Ada", "Bob\x1b[2J")
            )
            await first.connect()
            assert written(lock) == "the notebook of Ada\n"
            await refused(second, r"the notebook of Ada \(process [0-9]+\)")
            await first.close()
            await until(lambda: not lock.exists())
            lock_as(lock, terminal)
            await refused(second, rf"sleep 60 \(process {terminal} of \w+\)")
            await second.close()
            lock_as(lock, 0)  # a stale one
            await second.connect()
            assert written(lock) == "the notebook of Bob [2J\n"
            await second.close()
            await until(lambda: not lock.exists())
            with opened(new):
                await refused(first, r".* \(process [0-9]+ of \w+\)")

    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            asyncio.run(run(process.pid))
        finally:
            process.kill()


def written(lock: Path) -> str:
    return lock.read_text().partition("\n")[2]


def lock_as(lock: Path, process: int) -> None:
    """As terminal programs do it."""
    lock.write_text(f"{process:10d}\n")


@contextmanager
def opened(board: VirtualBoard) -> Iterator[None]:
    """By a program that takes it for itself."""
    command = ["flock", "--no-fork", str(board.device), "sh", "-c", "echo here; read line"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()
