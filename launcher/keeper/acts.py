"""What its user does to a kernel: interrupt it, send it a signal, shut it down, stop it, read its log."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any, Protocol

from ..errors import FarkernelError
from ..local_end.local_end import LocalEnd
from ..local_end.request_log import Request
from .allocations import HeldAllocation
from .cell_answers import CellAnswerer
from .facts import Facts, KernelState

log = logging.getLogger(__name__)

_STOP_GRACE = 5.0
# ipykernel publishes a cell's code some steps before it runs it; an interrupt between the two gets lost in itself.
_GETS_GOING = 0.3
_STARTS = 0.5  # at most so long from its arrival to the news of that
_TAKES_IT = 1.0
_AGAIN = 0.05
_TRIES = 40


class Acted(Protocol):
    """The kernel."""

    id: str
    facts: Facts
    local: LocalEnd
    allocation: HeldAllocation | None

    @property
    def far(self) -> str: ...
    @property
    def state(self) -> KernelState: ...
    def stop_coming_up(self) -> None: ...
    def stop_paid(self, member: str) -> None: ...
    def owe_stop(self) -> None: ...
    def end(self, reason: dict[str, Any]) -> None: ...
    def chore(self, work: Coroutine[Any, Any, None], name: str) -> object: ...


class Acts:
    """On one kernel, in every state that it can be in."""

    def __init__(self, kernel: Acted, answerer: CellAnswerer) -> None:
        self.stop_asked = False
        """this life ends because somebody wants it to"""
        self._kernel = kernel
        self._answerer = answerer
        self._stop_kind = "stopped"
        self._stopped_because = ""
        self._meant: list[Request | None] = []  # cells that an interrupt is on its way to

    def life_begins(self) -> None:
        """What was done to the former one is over."""
        self.stop_asked = False
        self._stopped_because = ""

    def as_wanted(self, reason: Mapping[str, Any]) -> dict[str, Any]:
        """The reason of its end: the agent knows how it ended, we know why."""
        if not self.stop_asked or reason.get("kind") not in ("exit", "signal", "stopped"):
            return dict(reason)
        return {**reason, "kind": self._stop_kind, "text": self._stopped_because or reason.get("text", "")}

    async def interrupt(self) -> None:
        """In every state: what waits is given back as interrupted, what runs gets the kernel's own
        kind of interrupt.
        """
        if self._kernel.state is not KernelState.LIVE:
            self._kernel.local.interrupt_held()
            self._answerer.leave()
            return
        held, cell = self._kernel.allocation, self._kernel.local.running_cell()
        if held is None:
            return
        if held.up and (cell is None or _is_going(cell)):
            await self._interrupt_now(held, cell)
        elif not any(each is cell for each in self._meant):  # who presses three times meanwhile means it once
            self._meant.append(cell)
            self._kernel.chore(self._interrupt_once(held, cell), "interrupt")

    async def _interrupt_once(self, held: HeldAllocation, cell: Request | None) -> None:
        try:
            await self._interrupt_when_it_runs(held, cell)
        finally:
            self._meant = [each for each in self._meant if each is not cell]

    async def _interrupt_when_it_runs(self, held: HeldAllocation, cell: Request | None) -> None:
        """Interrupts overtake cells on the link, and what is meant may be a cell that has not got there.

        Whoever asked need not wait for that.
        """
        local = self._kernel.local
        young = False
        for _ in range(_TRIES):
            if cell is not None:
                # Without a sign of it, it is likely that the kernel is at something else (a widget's callback).
                await local.starts.begun(cell, _STARTS if held.up else None)
                if cell.started is not None:
                    await local.starts.over(cell, max(0.0, _GETS_GOING - _age(cell)))
                if not local.is_open(cell):
                    return
            if self._kernel.state is not KernelState.LIVE:
                return
            young = cell is not None and _age(cell) < 2 * _GETS_GOING
            # What ignores interrupts in the middle of a cell waits for a program (system(3)), which takes them.
            if await self._interrupt_now(held, cell, if_it_listens=cell is not None and cell.started is None):
                break
            await asyncio.sleep(_AGAIN)  # the far end cannot tell us when the kernel begins to listen
        else:
            await self._interrupt_now(held, cell)  # it always ignores them; what it has started may not
        if cell is not None and young:
            await self._interrupt_again(held, cell)

    async def _interrupt_again(self, held: HeldAllocation, cell: Request) -> None:
        """Around the first steps of a cell ipykernel also swallows interrupts: one that shows no sign gets another.

        Only then: a cell that has been running may be clearing up after the first.
        """
        heard = cell.heard
        await self._kernel.local.starts.over(cell, _TAKES_IT)
        if (
            self._kernel.local.is_open(cell)
            and cell.heard == heard
            and self._kernel.state is KernelState.LIVE
        ):
            log.info("kernel %s: the cell that was to be interrupted still runs; once more", self._kernel.id)
            await self._interrupt_now(held, cell)

    async def _interrupt_now(
        self, held: HeldAllocation, cell: Request | None, if_it_listens: bool = False
    ) -> bool:
        """False: it does not listen."""
        answer = await held.agent.request("interrupt", kernel=self._kernel.far, if_it_listens=if_it_listens)
        how = answer.get("how")
        if how == "message":
            self._kernel.local.send_interrupt_request()
        elif how == "signal" and cell is not None:
            self._kernel.local.unanswered.interrupted(cell)
        return how != "none"

    def interrupt_soon(self) -> None:
        self._kernel.chore(self.interrupt(), "interrupt")

    async def signal(self, signum: int) -> None:
        if self._kernel.allocation is not None and self._kernel.state is KernelState.LIVE:
            await self._kernel.allocation.agent.request(
                "signal", kernel=self._kernel.far, signum=signum, group=True
            )

    def shutdown(self, restart: bool) -> None:
        """The user wants it ended: let the held shutdown_request go, so that the kernel can end by itself."""
        self.stop_asked = True
        self._stopped_because = "it was shut down for a restart" if restart else "it was shut down on request"
        if self._kernel.state is KernelState.LIVE:
            self._kernel.local.shutdown.release()
        else:
            self._kernel.local.shutdown.drop(answer=True)
            self._kernel.chore(self.stop(now=True, text="stopped before it had started"), "stop")

    async def stop(self, now: bool, text: str = "stopped on request") -> None:
        """End this life and wait until it has ended."""
        self.stop_asked = True
        if self._kernel.state is KernelState.ENDED:
            return
        held, asked = self._kernel.allocation, self._kernel.facts.started
        self._kernel.stop_coming_up()
        if held is None or not asked or not held.up:
            # Nobody there to be asked now.  What was started is ended by the agent's own `keep`, or when it
            # is found again.
            if asked:
                self._kernel.facts.owed = True
                if held is not None:
                    held.owe_stop(
                        self._kernel.far, partial(self._kernel.stop_paid, self._kernel.facts.member)
                    )
                else:  # a keeper has just started, and it is not known yet which allocation this is in
                    self._kernel.owe_stop()
            self._kernel.end({"kind": self._stop_kind, "text": text, "tail": ""})
            return
        self._stopped_because = text
        life = self._kernel.facts.life
        try:
            await held.agent.request("stop", kernel=self._kernel.far, grace=0 if now else _STOP_GRACE)
        except FarkernelError as error:
            log.warning("kernel %s: could not be stopped: %s", self._kernel.id, error)
        if self._kernel.facts.life == life:  # it may have been started again meanwhile
            self._kernel.end({"kind": self._stop_kind, "text": text, "tail": ""})

    async def stop_because(self, kind: str, text: str) -> None:
        """With time to end by itself; not its user's wish, but ours."""
        self._stop_kind = kind
        await self.stop(now=False, text=text)

    async def read_log(self, size: int) -> str:
        """The end of what it wrote on stdout and stderr: all of it from the agent, or what is known here."""
        held = self._kernel.allocation
        if held is None or not held.up or not self._kernel.facts.started:
            return str((self._kernel.facts.reason or {}).get("tail", ""))
        answer = await held.agent.request("log", kernel=self._kernel.far, size=size)
        return str(answer.get("text", ""))


def _age(cell: Request) -> float:
    """Since the kernel said that it works on it; very old where it has not."""
    return math.inf if cell.started is None else time.monotonic() - cell.started


def _is_going(cell: Request) -> bool:
    return cell.started is not None and _age(cell) > _GETS_GOING
