"""Says in the notebooks when an allocation is about to end: 10 and 2 minutes before."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from ...backends.contract import Costly
from ..errors import FarkernelError

log = logging.getLogger(__name__)

WARN_BEFORE = (600.0, 120.0)
# An allocation that is shorter than that has nothing to warn of: everybody knows.
SLACK = 5.0


class EndingNotice:
    """Of one allocation.  The end is asked for again before it is spoken of: administrators move it."""

    def __init__(self, costly: Costly, notice: Callable[[str], None]) -> None:
        self._costly = costly
        self._notice = notice
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """The allocation runs."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._watch(), name="ending notice")

    def stop(self) -> None:
        """It is over."""
        if self._task is not None:
            self._task.cancel()

    async def _watch(self) -> None:
        ends = self._costly.facts().get("ends")
        for before in WARN_BEFORE:
            while ends is not None and ends - before > time.time():
                await asyncio.sleep(ends - before - time.time())
                ends = await self._look(ends)
            # Where the whole time was shorter than that, there is nothing to be said of it.
            if ends is not None and abs(ends - before - time.time()) < SLACK:
                self._notice(warning(ends))

    async def _look(self, known: float) -> float:
        try:
            return await self._costly.look() or known
        except FarkernelError as error:
            log.warning("when the allocation ends cannot be asked now: %s", error)
            return known


def warning(ends: float) -> str:
    minutes = max(round((ends - time.time()) / 60), 1)
    clock = time.strftime("%H:%M:%S", time.localtime(ends))
    return (
        f"This kernel's allocation ends in {minutes} minute{'s' * (minutes != 1)}, at {clock}, and the kernel with it: "
        "save what you need"
    )
