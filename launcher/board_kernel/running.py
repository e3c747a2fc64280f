"""One run of code, on a board or in the child process here: its output, its questions, its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ..board.session import Board
from . import source, tracebacks
from .outputs import Shown, show_record
from .records import Ask, Clear, Display, RecordReader, Result, Text

Asker = Callable[[str, bool], Coroutine[Any, Any, str]]
"""Asks the person: prompt, whether it is a password.  Raises `NoAnswer`."""


_POKE_AFTER = 0.3


class NoAnswer(Exception):
    """The front end cannot ask; the program is told so."""


class OutputReader:
    """From the bytes of one run to the notebook.  ``deliver`` takes an answer's line, without its end."""

    def __init__(
        self, output: Shown, ask: Asker, deliver: Callable[[bytes], None], echo: bytes = b""
    ) -> None:
        self._output = output
        self._ask = ask
        self._deliver = deliver
        self._echo = (
            echo  # the end of the line that the far side sends back after an answer; empty: it does not
        )
        self._reader = RecordReader()
        self._question: asyncio.Task[None] | None = None
        self._held_back = ""

    @property
    def asking(self) -> bool:
        """A question is open."""
        return self._question is not None and not self._question.done()

    def feed(self, data: bytes) -> None:
        for event in self._reader.feed(data):
            self._take(event)

    def finish(self) -> None:
        """The run has ended, one way or another."""
        if self._question is not None:
            self._question.cancel()
        for event in self._reader.finish():
            self._take(event)
        self._output.write(self._held_back)
        self._held_back = ""

    def _take(self, event: Text | Display | Result | Clear | Ask) -> None:
        if isinstance(event, Text):
            self._write(event.text)
        elif isinstance(event, Ask):
            self._output.flush()
            self._question = asyncio.get_running_loop().create_task(self._answer(event))
        else:
            show_record(self._output, event)

    def _write(self, text: str) -> None:
        """Boards end their lines with CR LF; a CR alone is a program's own."""
        text = self._held_back + text
        self._held_back = "\r" if text.endswith("\r") else ""
        self._output.write(text.removesuffix("\r").replace("\r\n", "\n"))

    async def _answer(self, question: Ask) -> None:
        try:
            line = source.answer_line(await self._ask(question.prompt, question.password))
        except NoAnswer as error:
            line = source.refusal_line(str(error))
        if self._echo:
            self._reader.expect_echo(line + self._echo)
        self._deliver(line)


class BoardRun:
    """Code on a board.  Runs once."""

    def __init__(self, board: Board, output: Shown, ask: Asker) -> None:
        self._board = board
        self._reader = OutputReader(output, ask, lambda line: board.send_input(line + b"\r"), echo=b"\r\n")
        self._poke: asyncio.TimerHandle | None = None

    async def execute(self, code: str) -> tracebacks.Traceback | None:
        """The traceback, if there was one.  Raises what `Board.execute` raises."""
        try:
            traceback = await self._board.execute(code, self._reader.feed)
        finally:
            if self._poke is not None:
                self._poke.cancel()
            self._reader.finish()
        return tracebacks.parse(traceback) if traceback else None

    async def interrupt(self) -> None:
        """Ctrl-C."""
        await self._board.interrupt()
        if self._reader.asking:
            # MicroPython 1.9 notes a Ctrl-C while it waits for a character, but looks at the note only after one.
            self._poke = asyncio.get_running_loop().call_later(_POKE_AFTER, self._board.send_input, b"\r")
