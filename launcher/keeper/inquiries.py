"""What a keeper that starts must find out about its kernels' targets before it enters their allocations.

Two names of one host are one allocation (`Backend.key`), so a kernel waits until it is known what its target's name
means; `ssh -G` may take seconds (a `Match exec`), and those that know already do not wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from ..configuration import Target

PATIENCE = 5.0  # that front ends wait for a keeper

_Key = tuple[str, str | None]


class Inquiries:
    """All asked at once.  ``inquire`` raises nothing that matters here: it is said when the allocation is entered."""

    def __init__(self, inquire: Callable[[Target], Awaitable[None]]) -> None:
        self._inquire = inquire
        self._asked: dict[_Key, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"<Inquiries, {sum(not task.done() for task in self._asked.values())} open>"

    async def ask(self, targets: Iterable[Target], patience: float = PATIENCE) -> None:
        """Returns when all is known, or after that time."""
        for target in targets:
            if (key := _key(target)) not in self._asked:
                self._asked[key] = asyncio.ensure_future(self._one(target))
        if self._asked:
            await asyncio.wait(self._asked.values(), timeout=patience)

    async def _one(self, target: Target) -> None:
        await self._inquire(target)

    def when_known(self, target: Target, act: Callable[[], None]) -> None:
        """Now, if it is known or was never asked."""
        task = self._asked.get(_key(target))
        if task is None or task.done():
            act()
        else:
            task.add_done_callback(lambda done: None if done.cancelled() else act())

    def close(self) -> None:
        for task in self._asked.values():
            task.cancel()


def _key(target: Target) -> _Key:
    """What the answer depends on."""
    return str(target.address), target.ssh_config
