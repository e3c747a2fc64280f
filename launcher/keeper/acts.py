"""What its user does to a kernel: interrupt it, send it a signal, shut it down, stop it, read its log."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any, Protocol

from ..errors import FarkernelError
from ..local_end.local_end import LocalEnd
from .allocations import HeldAllocation
from .cell_answers import CellAnswerer
from .facts import Facts, KernelState

log = logging.getLogger(__name__)

_STOP_GRACE = 5.0


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
        if self._kernel.allocation is not None and self._kernel.allocation.up:
            await self._interrupt_there(self._kernel.allocation)
        elif self._kernel.allocation is not None:
            # Whoever asked need not wait for the link.  Interrupts overtake cells on it, and what is meant may be a
            # cell that has not got there.
            self._kernel.local.starts.when_running(
                partial(self._interrupt_soon_there, self._kernel.allocation)
            )

    def _interrupt_soon_there(self, held: HeldAllocation) -> None:
        if self._kernel.state is KernelState.LIVE:
            self._kernel.chore(self._interrupt_there(held), "interrupt")

    async def _interrupt_there(self, held: HeldAllocation) -> None:
        answer = await held.agent.request("interrupt", kernel=self._kernel.far)
        if answer.get("how") == "message":
            self._kernel.local.send_interrupt_request()

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
