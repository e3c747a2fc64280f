"""Who waits for the first cell to reach the kernel: an interrupt that came sooner would get lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..messages import Message
from .questions import is_silent
from .request_log import Request

# ipykernel publishes a cell's code some steps before it runs it; an interrupt between the two gets lost in itself.
# On a busy machine 0.3 s were not enough; whoever typed ahead over a broken link has waited for longer than this.
_GETS_GOING = 1.0


class Starts:
    """Of one kernel.  ``running_cell``: the first cell that has no answer yet."""

    def __init__(self, running_cell: Callable[[], Request | None]) -> None:
        self._running_cell = running_cell
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Callable[[], None]] = []

    def when_running(self, callback: Callable[[], None]) -> None:
        """Call back, once, when the first cell has reached the kernel; at once if there is none that has not.

        Not at all if it ends at once.
        """
        self._waiting.append(callback)
        self.call_those_who_wait()

    def note(self, request: Request, message: Message) -> None:
        """A cell runs when its code is published: `busy` comes before the kernel can be interrupted."""
        if message.msg_type != "status" or is_silent(request):
            request.started = True
            self.call_those_who_wait(_GETS_GOING)

    def call_those_who_wait(self, pause: float = 0.0) -> None:
        """If their cell has started, or there is none any more."""
        cell = self._running_cell() if self._waiting else None
        if cell is None or cell.started:
            waiting, self._waiting = self._waiting, []
            for callback in waiting:
                if cell is None or not pause:
                    callback()
                else:
                    self._loop.call_later(pause, self._if_it_still_runs, cell, callback)

    def _if_it_still_runs(self, cell: Request, callback: Callable[[], None]) -> None:
        if self._running_cell() is cell:
            callback()
