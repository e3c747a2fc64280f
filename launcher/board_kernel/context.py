"""What a cell, and a magic in it, works with."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from . import cells, tracebacks
from .errors import CellFailed
from .held import Boards, HeldBoard
from .history import History
from .local_python import LocalPython
from .outputs import Filter, FilteredOutput, Shown
from .running import Asker, BoardRun

_INTERRUPT_PATIENCE = 5.0
_DEAF = (
    "The board does not react to Ctrl-C. Interrupt once more to stop waiting for it; "
    "%reset --hard, or its reset button, starts it anew.\n"
)


_FULL = (
    "The board has no memory left for that. `del NAME` frees what you no longer need, %reset frees all of it "
    "(variables go, files stay); %mem shows how much there is."
)


class Interrupted(Exception):
    """The person interrupted what was going on."""


class Interrupts:
    """What runs now, and how it is interrupted: a board by Ctrl-C, everything else by ending the task."""

    def __init__(self) -> None:
        self._running: dict[object, Callable[[], Awaitable[None]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._asked = 0

    async def run(self, work: Any) -> None:
        """A whole cell.  Raises `Interrupted` when it was interrupted while nothing ran that could end by itself."""
        self._asked = 0
        self._task = asyncio.get_running_loop().create_task(work)
        try:
            await asyncio.wait({self._task})
        finally:
            task, self._task = self._task, None
            if not task.done():  # we are being cancelled ourselves: the kernel ends
                task.cancel()
        if task.cancelled():
            raise Interrupted
        task.result()

    @contextlib.contextmanager
    def running(self, interrupt: Callable[[], Awaitable[None]]) -> Iterator[None]:
        """While something runs that ends with an error of its own when it is interrupted."""
        key = object()
        self._running[key] = interrupt
        try:
            yield
        finally:
            del self._running[key]

    async def interrupt(self, tell: Callable[[str], None]) -> None:
        """`tell` takes what the person should know if it does not help."""
        task = self._task
        if task is None:
            return
        self._asked += 1
        if self._asked > 1 or not self._running:
            task.cancel()
            return
        for interrupt in list(self._running.values()):
            await interrupt()
        done, _ = await asyncio.wait({task}, timeout=_INTERRUPT_PATIENCE)
        if not done:
            tell(_DEAF)


@dataclass(frozen=True)
class Context:
    """One cell at work."""

    boards: Boards
    output: Shown
    ask: Asker
    payload: list[dict[str, Any]]
    history: History
    local: LocalPython
    interrupts: Interrupts
    run_magic: Callable[[Context, cells.Magic], Awaitable[None]]
    run_question: Callable[[Context, cells.Question], Awaitable[None]]
    chosen: HeldBoard | None = None

    @property
    def held(self) -> HeldBoard:
        """The board that is meant; raises `NoBoard`."""
        return self.chosen or self.boards.current

    def on(self, held: HeldBoard) -> Context:
        return replace(self, chosen=held)

    def over(self, output: Shown) -> Context:
        return replace(self, output=output)

    @contextlib.contextmanager
    def filtered(self, text: Filter) -> Iterator[Context]:
        """With a filter before the notebook; it is finished at the end, whatever the end was."""
        output = FilteredOutput(self.output, text)
        try:
            yield self.over(output)
        finally:
            output.finish()

    def say(self, text: str) -> None:
        """A line for people, as output of the cell."""
        self.output.write(text + "\n")

    def notice(self, text: str) -> None:
        """About what happens around the cell, not by it."""
        self.output.write(text + "\n", "stderr")

    async def ready(self) -> HeldBoard:
        """The board that is meant, connected; waited for if it is away.  Raises `NoBoard`, `BoardAway` …"""
        held = self.held
        for text in held.news():
            self.notice(text)
        await held.ready(self.notice)
        return held

    async def run(self, text: str, line: int = 1) -> None:
        """Everything in a cell or in a cell magic's body; ``line``: where it stands in the cell."""
        for part in cells.split(text, line):
            if isinstance(part, cells.Code):
                await self.run_code(part.source)
            elif isinstance(part, cells.Magic):
                await self.run_magic(self, part)
            else:
                await self.run_question(self, part)

    async def run_code(self, code: str) -> None:
        """Raises `CellFailed` with the board's traceback, and what `ready` and `Board.execute` raise."""
        held = await self.ready()
        prepared = await held.prepare(code)
        run = BoardRun(held.board, self.output, self.ask)
        with self.interrupts.running(run.interrupt):
            traceback = await run.execute(prepared)
        if traceback is not None:
            lines = tracebacks.show(traceback, code)
            raise CellFailed(traceback, [*lines, _FULL] if traceback.ename == "MemoryError" else lines)
