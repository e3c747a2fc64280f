"""The front ends of a kernel, and how long it lives on without any (``keep``)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from ..configuration import Target
from ..local_end.local_end import LocalEnd
from .acts import Acts
from .facts import Facts, KernelState

# For a front end whose connection breaks to come back (`launcher.client` tries every 30 s at the least).
_LOST = 40


class Attended(Protocol):
    """The kernel."""

    facts: Facts
    target: Target
    gone: bool
    acts: Acts
    local: LocalEnd

    @property
    def state(self) -> KernelState: ...
    def chore(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]: ...
    async def close(self, forget: bool) -> None: ...


class Attendance:
    """Of one kernel.  A front end is whatever object stands for its connection."""

    def __init__(self, kernel: Attended) -> None:
        self.fronts: set[object] = set()
        self._kernel = kernel
        self._loop = asyncio.get_running_loop()
        self._keep: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        """The kernel is over: nothing is counted any more."""
        if self._keep is not None:
            self._keep.cancel()

    def came(self, front: object) -> None:
        self.fronts.add(front)
        self._kernel.facts.detached = False
        if self._keep is not None:
            self._keep.cancel()
            self._keep = None

    def left(self, front: object) -> None:
        self.fronts.discard(front)
        if self.fronts or self._kernel.gone:
            return
        if self._kernel.facts.front == "provisioner":
            # A server that was killed may have meant to keep it.
            self._kernel.local.shutdown.drop(answer=False)
        if self._kernel.state is KernelState.ENDED:
            self._kernel.chore(self._kernel.close(forget=True), "close")
        elif self._keep is None:
            self._keep_for(self._patience(), 0)

    def _patience(self) -> int | None:
        """How long it lives on without a front end.

        One that waits in a queue for a program that was killed (nbclient, papermill), and that no notebook can come
        back to, is wanted by nobody: its job must not start for that (DESIGN §3, promise 4).
        """
        facts, keep = self._kernel.facts, self._kernel.target.keep
        lost = facts.front == "provisioner" and not facts.notebook and not facts.detached
        if lost and self._kernel.state is not KernelState.LIVE and not self._kernel.target.address.is_host:
            return _LOST if keep is None else min(_LOST, keep)
        return keep

    def _keep_for(self, patience: int | None, waited: int) -> None:
        if patience is not None:
            self._keep = self._loop.call_later(patience - waited, self._keep_is_over, patience)

    def _keep_is_over(self, waited: int) -> None:
        self._keep, patience = None, self._patience()
        if patience is None or patience > waited:  # it has become live meanwhile
            self._keep_for(patience, waited)
        else:
            self._kernel.chore(self._stop_unwatched(), "keep")

    async def _stop_unwatched(self) -> None:
        why = f"nobody came back to it within {self._patience()} s (keep)"
        if self._patience() != self._kernel.target.keep:
            why = "the program that asked for it ended while it waited, and no notebook can come back to it"
        await self._kernel.acts.stop_because("keep", why)
        await self._kernel.close(forget=True)
