"""Who waits for a cell to begin, or to be over: an interrupt that came sooner would get lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ..messages import Message
from .questions import is_silent
from .request_log import Request


class Starts:
    """Of one kernel.  ``is_open``: whether that cell has no answer yet."""

    def __init__(self, is_open: Callable[[Request], bool]) -> None:
        self.is_open = is_open
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[Request, bool, asyncio.Future[None]]] = []

    async def begun(self, cell: Request, patience: float | None) -> None:
        """Return when the kernel works on it, or it is over, or as long has passed."""
        if cell.started is None:
            await self._wait(cell, False, patience)

    async def over(self, cell: Request, patience: float | None) -> None:
        await self._wait(cell, True, patience)

    async def _wait(self, cell: Request, until_over: bool, patience: float | None) -> None:
        if not self.is_open(cell):
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((cell, until_over, future))
        await asyncio.wait([future], timeout=patience)
        self._waiting = [each for each in self._waiting if each[2] is not future]

    def note(self, request: Request, message: Message) -> None:
        """A cell runs when its code is published: `busy` comes before the kernel can be interrupted."""
        if message.msg_type != "status" or is_silent(request):
            request.started = time.monotonic()
            self.look()

    def look(self) -> None:
        """Some cell has begun, or is over."""
        for cell, until_over, future in self._waiting:
            if not future.done() and (
                not self.is_open(cell) or (cell.started is not None and not until_over)
            ):
                future.set_result(None)
