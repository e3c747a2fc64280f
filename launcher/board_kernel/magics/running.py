"""Running things: files, cells here, cells under a clock, cells into a file."""

from __future__ import annotations

import time
from pathlib import Path

from ...board.errors import BoardException
from ...text import one_line
from .. import tracebacks
from ..context import Context
from ..errors import CellFailed, LocalFileError
from ..usage import Arguments
from .files import is_folder, local_path, on_board, read_local, write_local


async def run(context: Context, arguments: Arguments) -> None:
    name = arguments.one("FILE")
    if name.startswith(":") or arguments.flag("--board"):
        held = await context.ready()
        data = await held.files.read(on_board(name))
    else:
        data = read_local(local_path(name))
    await context.run_code(data.decode("utf-8", "replace"))


async def evaluate(context: Context, arguments: Arguments) -> None:
    held = await context.ready()
    text = arguments.one("TEXT")
    try:
        value = await held.board.evaluate(text)
    except BoardException as error:
        traceback = tracebacks.parse(error.traceback.encode())
        raise CellFailed(traceback, tracebacks.show(traceback, text)) from None
    context.output.result({"text/plain": repr(value)})


async def execute(context: Context, arguments: Arguments) -> None:
    await context.run_code(arguments.one("TEXT"))


async def local(context: Context, arguments: Arguments) -> None:
    code = arguments.body if arguments.body is not None else arguments.one("TEXT")
    with context.interrupts.running(context.local.interrupt):
        end = await context.local.run(code, context.output, context.ask)
    if end:
        lines = [str(line) for line in end.get("traceback", [])]
        ename, evalue = str(end.get("ename")), str(end.get("evalue"))
        raise CellFailed(tracebacks.Traceback(ename, evalue, (), "\n".join(lines)), lines)


async def timed(context: Context, arguments: Arguments) -> None:
    await context.ready()  # coming to the board is not the cell's time
    began = time.perf_counter()
    try:
        if arguments.body is not None:
            await context.run(arguments.body, arguments.line)
        else:
            await context.run_code(arguments.one("TEXT"))
    finally:
        context.say(f"Time: {duration(time.perf_counter() - began)} (with the way to the board)")


_TIMEIT = """\
def _fk_time(f,n):
 import time
 t=getattr(time,'ticks_us',None)
 if t:
  a=t()
  for _ in range(n):f()
  return time.ticks_diff(t(),a)
 a=time.monotonic_ns()
 for _ in range(n):f()
 return (time.monotonic_ns()-a)//1000
"""


async def timeit(context: Context, arguments: Arguments) -> None:
    """By the board's own clock; more rounds until it takes a fifth of a second."""
    statement = arguments.one("TEXT")
    held = await context.ready()
    rounds = 1
    while True:
        code = f"{_TIMEIT}def _fk_body():\n {statement}\nprint(_fk_time(_fk_body,{rounds}))\n"
        said: list[bytes] = []
        with context.interrupts.running(held.board.interrupt):
            failed = await held.board.execute(code, said.append)
        if failed:
            traceback = tracebacks.parse(failed)
            raise CellFailed(traceback, [f"{traceback.ename}: {traceback.evalue}"])
        taken = int(b"".join(said).split()[-1])
        if taken >= 200_000 or rounds >= 1_000_000:
            break
        rounds *= 10 if taken < 20_000 else 2
    context.say(f"{duration(taken / rounds / 1e6)} each, on {held.name}, measured {rounds:,} times")


def duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds < 1000 else f"{seconds:.0f} s"
    return f"{seconds * 1e9:.3g} ns"


class Captured:
    """A filter that keeps the text."""

    def __init__(self, shows: bool) -> None:
        self.text: list[str] = []
        self._shows = shows

    def feed(self, text: str) -> str:
        self.text.append(text)
        return text if self._shows else ""

    def finish(self) -> str:
        return ""


async def capture(context: Context, arguments: Arguments) -> None:
    path = local_path(arguments.one("FILE"))
    captured = Captured(arguments.flag("--show"))
    if is_folder(path):
        raise LocalFileError(path, "it is a folder")
    before = _content(path) if arguments.flag("--append") else b""
    try:
        with context.filtered(captured) as own:
            await own.run(arguments.body or "", arguments.line)
    finally:
        # What came before an error or an interrupt is worth keeping too.
        data = "".join(captured.text).encode()
        write_local(path, before + data)
        context.say(f"{one_line(path)}: {len(data):,} bytes, {data.count(10):,} lines")


def _content(path: Path) -> bytes:
    return read_local(path) if path.exists() else b""
