"""Ends a kernel in which nothing has been run for a while, so that its allocation can be given back (``idle``)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class IdleClock:
    """Runs while a kernel is live.  ``idle_since`` gives None while the kernel has something to do.

    One timer, and none at all with every message: when it fires, it looks how long there has been nothing.
    """

    def __init__(
        self, after: float | None, idle_since: Callable[[], float | None], give_up: Callable[[], None]
    ) -> None:
        self._after = after
        self._idle_since = idle_since
        self._give_up = give_up
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        if self._after is not None and self._timer is None:
            self._arm(self._after, self._after)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, after: float, wait: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(wait, self._look, after)

    def _look(self, after: float) -> None:
        self._timer = None
        since = self._idle_since()
        left = after if since is None else since + after - time.time()
        if left <= 0:
            self._give_up()
        else:
            self._arm(after, left)
