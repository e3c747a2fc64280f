"""A board's serial line at 115200 baud: ours, mpremote's transport, and what the line itself takes.

The board is MicroPython 1.25 in QEMU, in a process of its own, so that its processor time is not ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from mpremote.transport_serial import SerialTransport  # type: ignore[import-untyped]

from farkernel.launcher.board.files import BoardFiles
from farkernel.launcher.board.serial_line import SerialLine
from farkernel.launcher.board.session import Board
from report import Benchmark, Contestant, finish

ROOT = Path(__file__).parent.parent.parent
RUNS = 40
OUTPUT = "for i in range(2000): print('%04d' % i, 'x' * 93)"
OUTPUT_SIZE = 2000 * 100
FILE = os.urandom(16 * 1024)
DIALOG, ANSWER = b"pass\x04", b"OK\x04\x04>"


@contextlib.contextmanager
def board_site() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "tests.sites.boards", "mps2", directory]
        with subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            yield process.stdout.readline().strip()
            process.stdin.close()


class Timer:
    """Wall clock and processor time of what runs inside."""

    def __enter__(self) -> Timer:
        self._wall, self._processor = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall = time.perf_counter() - self._wall
        self.processor = time.process_time() - self._processor


# -- ours ------------------------------------------------------------------------------------------


def ours(device: str, act: Callable[[Board], Awaitable[float]]) -> float:
    async def run() -> float:
        board = Board(SerialLine(device))
        await board.connect()
        try:
            return await act(board)
        finally:
            await board.close()

    return asyncio.run(run())


async def our_pass(board: Board) -> float:
    taken = []
    for _ in range(RUNS):
        with Timer() as timer:
            await board.execute("pass", ignore)
        taken.append(timer.wall)
    return statistics.median(taken) * 1000


def ignore(data: bytes) -> None:
    """Nothing is printed."""


async def our_output(board: Board) -> float:
    output = bytearray()
    with Timer() as timer:
        await board.execute(OUTPUT, output.extend)
    assert len(output) == OUTPUT_SIZE, len(output)
    return timer.processor


async def our_upload(board: Board) -> float:
    files = BoardFiles(board)
    with Timer() as timer:
        await files.write("file.bin", FILE)
    return len(FILE) / timer.wall


# -- mpremote --------------------------------------------------------------------------------------


@contextlib.contextmanager
def mpremote(device: str) -> Iterator[SerialTransport]:
    transport = SerialTransport(device, baudrate=115200)
    transport.enter_raw_repl(soft_reset=False)
    try:
        yield transport
    finally:
        transport.exit_raw_repl()
        transport.close()


def their_pass(device: str) -> float:
    taken = []
    with mpremote(device) as transport:
        for _ in range(RUNS):
            with Timer() as timer:
                transport.exec("pass")
            taken.append(timer.wall)
    return statistics.median(taken) * 1000


def their_output(device: str) -> float:
    output = bytearray()
    with mpremote(device) as transport, Timer() as timer:
        transport.exec(OUTPUT, data_consumer=output.extend)
    assert len(output.replace(b"\x04", b"")) == OUTPUT_SIZE, len(output)
    return timer.processor


def their_upload(device: str) -> float:
    with mpremote(device) as transport, Timer() as timer:
        transport.fs_writefile("file.bin", FILE)
    return len(FILE) / timer.wall


# -- the line --------------------------------------------------------------------------------------


def bare_pass(device: str) -> float:
    """The same bytes by a program that does nothing else: write, then read until the last one is there."""
    with mpremote(device) as transport:
        line = transport.serial.fileno()
        os.set_blocking(line, True)
        taken = []
        for _ in range(RUNS):
            with Timer() as timer:
                os.write(line, DIALOG)
                seen = b""
                while not seen.endswith(ANSWER):
                    seen += os.read(line, 100)
            taken.append(timer.wall)
        os.set_blocking(line, False)
    return statistics.median(taken) * 1000


def main() -> None:
    latency = Benchmark('exec("pass") at 115200 baud', "ms", "the wire", rounds=7)
    processor = Benchmark("processor time for 200 KB of output", "s", "mpremote", rounds=1)
    upload = Benchmark("a file of 16 KiB onto littlefs", "bytes/s", "mpremote", rounds=3)
    with board_site() as device:
        latency.run(
            [
                Contestant("the wire", lambda: bare_pass(device)),
                Contestant("farkernel", lambda: ours(device, our_pass), at_most=1.1),
                Contestant("mpremote", lambda: their_pass(device)),
            ]
        )
        processor.run(
            [
                Contestant("mpremote", lambda: their_output(device)),
                Contestant("farkernel", lambda: ours(device, our_output), at_most=0.2),
            ],
            warm_up=0,
        )
        upload.run(
            [
                Contestant("mpremote", lambda: their_upload(device)),
                Contestant("farkernel", lambda: ours(device, our_upload), at_least=1.0),
            ],
            warm_up=0,
        )
    finish(latency, processor, upload)


if __name__ == "__main__":
    main()
