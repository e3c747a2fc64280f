"""Runs cells, and looks things up for completion and help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..board.errors import BoardException
from ..errors import FarkernelError
from . import completion, inspection, magics, tracebacks
from .context import Context, Interrupted, Interrupts
from .held import Boards
from .history import History
from .local_python import LocalPython
from .outputs import CellOutput
from .running import Asker

__all__ = ["CellRunner", "Interrupted"]


class CellRunner:
    """One cell at a time."""

    def __init__(self, boards: Boards, history: History) -> None:
        self._boards = boards
        self._history = history
        self._local = LocalPython()
        self._interrupts = Interrupts()
        self._output: CellOutput | None = None

    async def run(self, code: str, output: CellOutput, ask: Asker, payload: list[dict[str, Any]]) -> None:
        """Raises `CellFailed`, `Interrupted`, or an error of ours with its advice."""
        context = Context(
            self._boards,
            output,
            ask,
            payload,
            self._history,
            self._local,
            self._interrupts,
            magics.run_magic,
            inspection.run_question,
        )
        self._output = output
        try:
            await self._interrupts.run(context.run(code))
        finally:
            self._output = None

    async def interrupt(self) -> None:
        await self._interrupts.interrupt(self._tell)

    def _tell(self, text: str) -> None:
        if self._output is not None:
            self._output.write(text, "stderr")

    async def close(self) -> None:
        await self._local.close()

    async def user_expressions(self, expressions: Mapping[str, Any]) -> dict[str, Any]:
        """Name → what `execute_reply` says about each."""
        return {str(name): await self._value(str(text)) for name, text in expressions.items()}

    async def _value(self, expression: str) -> dict[str, Any]:
        held = self._boards.present
        try:
            if held is None:
                return _failed("NoBoard", "no board is connected")
            await held.ready(lambda sentence: None, patience=0)
            value = await held.board.evaluate(f"repr({expression})")
        except BoardException as error:
            found = tracebacks.parse(error.traceback.encode())
            return _failed(found.ename, found.evalue)
        except FarkernelError as error:
            return _failed(type(error).__name__, str(error))
        return {"status": "ok", "data": {"text/plain": str(value)}, "metadata": {}}

    async def complete(self, code: str, position: int) -> dict[str, Any]:
        """The content of `complete_reply`; where the board cannot be asked, what is known without it."""
        return await completion.complete(code, position, self._boards.present, magics.completions())

    async def inspect(self, code: str, position: int, detail: int) -> dict[str, Any]:
        """The content of `inspect_reply`."""
        found = await inspection.inspect(code, position, self._boards.present, self._history, bool(detail))
        data = {"text/plain": found} if found else {}
        return {"status": "ok", "found": bool(found), "data": data, "metadata": {}}


def _failed(ename: str, evalue: str) -> dict[str, Any]:
    return {"status": "error", "ename": ename, "evalue": evalue, "traceback": [f"{ename}: {evalue}"]}
