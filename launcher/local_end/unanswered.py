"""Cells that get no answer: an interrupt hit their kernel where it does not expect one.

ipykernel lets interrupts in some steps before it runs the code, and takes them until some steps after: one that comes
there ends the whole request, and the kernel says `idle` without an answer.  Front ends would wait for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .request_log import Request

# The answer goes ahead of `idle`, on another way.
_FOLLOWS = 3.0


class Unanswered:
    """Of one kernel.  ``link_is_away``: an answer may still be there; ``answer``: for the kernel."""

    def __init__(self, link_is_away: Callable[[], bool], answer: Callable[[Request], None]) -> None:
        self._link_is_away = link_is_away
        self._answer = answer
        self._loop = asyncio.get_running_loop()

    def interrupted(self, cell: Request) -> None:
        """A signal has reached its kernel."""
        cell.interrupted = True
        self.note_idle(cell)

    def note_idle(self, request: Request) -> None:
        """Also when there is nothing to be noted."""
        if request.idle_sent and request.interrupted and not request.replied:
            self._loop.call_later(_FOLLOWS, self._look_again, request)

    def _look_again(self, request: Request) -> None:
        if request.replied:
            return
        if self._link_is_away():
            self.note_idle(request)
        else:
            self._answer(request)
