"""Opening something that another side opens too: given up half-way, it is closed there when it has come about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_going_on: set[asyncio.Task[Any]] = set()


async def whole_or_undone(opening: Coroutine[Any, Any, T], undo: Callable[[T], None]) -> T:
    """The result; who is cancelled meanwhile is so at once, and the opening is undone when it is through."""
    task = asyncio.ensure_future(opening)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        _going_on.add(task)  # the loop itself holds tasks weakly

        def over(done: asyncio.Task[T]) -> None:
            _going_on.discard(done)
            if not done.cancelled() and done.exception() is None:
                undo(done.result())

        task.add_done_callback(over)
        raise
