"""The clock that ends kernels in which nothing is run."""

from __future__ import annotations

import asyncio
import time

from farkernel.launcher.keeper.idle import IdleClock


def ended_after(busy: float, after: float | None, wait: float) -> bool:
    """Something runs for so long, and then nothing."""
    given_up = asyncio.Event()

    async def act() -> bool:
        began = time.time()
        clock = IdleClock(after, lambda: None if time.time() < began + busy else began + busy, given_up.set)
        clock.start()
        await asyncio.sleep(wait)
        clock.stop()
        return given_up.is_set()

    return asyncio.run(act())


def test_nothing_is_run() -> None:
    assert ended_after(busy=0, after=0.1, wait=0.5)


def test_what_runs_is_not_ended() -> None:
    assert not ended_after(busy=10, after=0.1, wait=0.5)


def test_the_clock_begins_when_the_cell_is_done() -> None:
    assert not ended_after(busy=0.4, after=0.5, wait=0.7)


def test_never() -> None:
    assert not ended_after(busy=0, after=None, wait=0.2)
