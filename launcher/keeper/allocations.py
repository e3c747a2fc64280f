"""Allocations that the keeper holds, each with its agent; kernels whose targets agree share one (one link per host)."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from ... import __version__
from ...backends import find_backend, indebted_backends
from ...backends.boot import Archive
from ...backends.contract import Allocation, Backend, Costly, Indebted, Inquiring, Route, User
from ..configuration import Target
from ..errors import FarkernelError, RemoteError
from .driver import DriverState
from .ending import EndingNotice
from .far_agent import FarAgent

log = logging.getLogger(__name__)

# How long a link without kernels is kept, for the next start on that host to find it open.
LINGER = 30.0
_LAST_CHANCE = 3.0  # for stops that are owed, when the keeper ends


class Tenant(Protocol):
    """A kernel, as its allocation sees it."""

    id: str

    @property
    def far(self) -> str:
        """What the agent calls it."""

    def agent_fresh(self) -> None:
        """The agent does not know our session: attach again."""

    def agent_event(self, event: dict[str, Any]) -> None:
        """An event of the agent about this kernel."""

    def link_changed(self) -> None:
        """The link came or went, or there is news about it: see `HeldAllocation.up`, `why`, `next_try`."""

    def notice(self, sentence: str) -> None:
        """Something that the user should know of now."""

    def allocation_lost(self, error: FarkernelError) -> None:
        """It is over: nothing will bring this allocation back."""

    def allocation_emptied(self, reason: Mapping[str, Any]) -> None:
        """It goes on, but what ran in it has ended."""


class HeldAllocation:
    """One allocation, its agent and its tenants.  Runs from the first tenant to `LINGER` after the last."""

    def __init__(
        self,
        key: str,
        allocation: Allocation,
        archive: Archive,
        target: Target,
        on_over: Callable[[HeldAllocation], None],
        keeper: str,
    ) -> None:
        self.key = key
        self.host = target.address.host
        self.target = target.name
        self.tenants: dict[str, Tenant] = {}
        self.up = False
        self.why = ""
        self._allocation = allocation
        self.costly = allocation if isinstance(allocation, Costly) else None
        self._ending = EndingNotice(self.costly, self._notice) if self.costly is not None else None
        if self.costly is not None:
            self.costly.when_emptied(self._emptied)
        self._on_over = on_over
        self._reporters: set[Callable[[str], None]] = set()
        self._awaited: set[str] = set()
        self._linger: asyncio.TimerHandle | None = None
        self._debts: set[asyncio.Task[None]] = set()
        self._given_back = False
        about = {
            "keeper": keeper,
            "host": platform.node(),
            "pid": os.getpid(),
            "version": __version__,
            "allocation": key,
        }
        self.agent = FarAgent(
            about,
            self._route,
            archive,
            allocation.name,
            self._fresh,
            self._event,
            self._state,
            target.agent_python,
        )
        self._task = asyncio.create_task(self._run(), name=f"allocation {key}")

    def __repr__(self) -> str:
        return f"<HeldAllocation {self.key}, {len(self.tenants)} kernels, {self.agent!r}>"

    @property
    def needs_user(self) -> bool:
        """Nothing goes on before somebody does what `why` says, and then calls `retry`."""
        return self.agent.driver.needs_user

    @property
    def paused(self) -> bool:
        """The link is down, and between two tries."""
        return self.agent.driver.state is DriverState.PAUSED

    @property
    def next_try(self) -> float | None:
        """When the link will be tried again (seconds since 1970), while it is down."""
        return self.agent.driver.next_try

    def retry(self) -> None:
        """Somebody wants the link now."""
        self.agent.driver.retry_now()

    def enter(self, tenant: Tenant, report: Callable[[str], None]) -> None:
        """A kernel comes in; ``report`` hears how waiting goes."""
        self.tenants[tenant.id] = tenant
        self._reporters.add(report)
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self.retry()

    def leave(self, tenant: Tenant, report: Callable[[str], None], for_good: bool = True) -> None:
        """A kernel has ended; or (not ``for_good``) the keeper ends, and the kernel lives on."""
        self.tenants.pop(tenant.id, None)
        self._reporters.discard(report)
        self.await_answers(tenant, False)
        if for_good:
            self._consider_leaving()

    def await_answers(self, tenant: Tenant, some: bool) -> None:
        """Whether somebody waits for what that kernel will say."""
        if some:
            self._awaited.add(tenant.id)
        else:
            self._awaited.discard(tenant.id)
        self.agent.expect(bool(self._awaited))

    def owe_stop(self, kernel: str, paid: Callable[[], None]) -> None:
        """A kernel was given up while its agent could not be reached: it is stopped when that can be said again.

        The debt is the allocation's, because the kernel itself is closed here at once.
        """
        debt = asyncio.get_running_loop().create_task(self._stop(kernel, paid), name=f"stop {kernel}")
        self._debts.add(debt)
        debt.add_done_callback(self._paid)

    async def _stop(self, kernel: str, paid: Callable[[], None]) -> None:
        try:
            await self.agent.request("stop", kernel=kernel, grace=0)
            await self.agent.request("forget", kernel=kernel)
        except RemoteError as error:
            log.info("kernel %s need not be stopped any more: %s", kernel, error)
        except FarkernelError:
            return  # the link was given up: it is still owed
        paid()

    def _paid(self, debt: asyncio.Task[None]) -> None:
        self._debts.discard(debt)
        self._consider_leaving()

    def _consider_leaving(self) -> None:
        if self.tenants or self._linger is not None:
            return
        if self.costly is not None:
            self.give_back()  # at once, and what still runs in it ends with it
        elif not self._debts:
            self._linger = asyncio.get_running_loop().call_later(LINGER, self.give_back)

    def give_back(self) -> None:
        """Nobody wants it any more."""
        self._given_back = True
        if self.costly is not None:
            self.costly.give_up()
            self._on_over(self)
        self._task.cancel()

    async def close(self) -> None:
        """The keeper ends: let go of the link; what runs there runs on.

        A kernel that was stopped while the link was still being made is not left to the next keeper, which nobody may
        start for days.
        """
        if self._linger is not None:
            self._linger.cancel()
        if self._debts and not self.paused:
            await asyncio.wait(self._debts, timeout=_LAST_CHANCE)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def as_dict(self) -> dict[str, Any]:
        return {
            "allocation": self.key,
            "link": "up" if self.up else self.agent.driver.state.value,
            "why": self.why,
            "kernels": sorted(self.tenants),
            "agent": self.agent.link.peer.get("about", {}),
            "target": self.target,
            **self._costs(),
        }

    def _costs(self) -> dict[str, Any]:
        facts = dict(self.costly.facts()) if self.costly is not None else {}
        ends = facts.get("ends")
        return {**facts, "left": max(ends - time.time(), 0.0)} if ends is not None else facts

    async def _route(self) -> Route:
        return await self._allocation.ready(self._report)

    async def _run(self) -> None:
        try:
            await self.agent.run()
        except asyncio.CancelledError:
            if self._given_back:
                await self._allocation.release()
            raise
        except FarkernelError as error:
            log.error("allocation %s: %s", self.key, error)
            for tenant in list(self.tenants.values()):
                tenant.allocation_lost(error)
        finally:
            if self._ending is not None:
                self._ending.stop()
            self._on_over(self)

    def _report(self, sentence: str) -> None:
        for report in list(self._reporters):
            report(sentence)

    def _emptied(self, reason: Mapping[str, Any]) -> None:
        for tenant in list(self.tenants.values()):
            tenant.allocation_emptied(reason)

    def _notice(self, sentence: str) -> None:
        for tenant in list(self.tenants.values()):
            tenant.notice(sentence)

    def _fresh(self) -> None:
        for tenant in list(self.tenants.values()):
            tenant.agent_fresh()

    def _event(self, event: dict[str, Any]) -> None:
        for tenant in list(self.tenants.values()):
            if tenant.far == event.get("kernel"):
                tenant.agent_event(event)

    def _state(self, state: DriverState, why: str) -> None:
        self.up, self.why = state is DriverState.UP, why
        if self.up and self._ending is not None:
            self._ending.start()
        for tenant in list(self.tenants.values()):
            tenant.link_changed()


class Allocations:
    """All that the keeper holds."""

    def __init__(self, archive: Archive, user: User, keeper: str) -> None:
        self._archive = archive
        self._keeper = keeper
        self._user = user
        self._used: set[Backend] = set()
        self.held: dict[str, HeldAllocation] = {}

    async def inquire(self, target: Target) -> None:
        """To be awaited before `for_kernel`, wherever something may wait; raises `UnknownBackend`."""
        backend = find_backend(target.address.scheme)
        if isinstance(backend, Inquiring):
            await backend.inquire(target)

    def for_kernel(self, target: Target, kernel: str | None) -> HeldAllocation:
        """The allocation in which that kernel (None: nobody's) runs or shall run; raises `UnknownBackend`."""
        backend = find_backend(target.address.scheme)
        self._used.add(backend)
        key = backend.key(target, kernel)
        held = self.held.get(key)
        if held is None:
            allocation = backend.allocate(target, kernel, self._user)
            held = self.held[key] = HeldAllocation(
                key, allocation, self._archive, target, self._over, self._keeper
            )
        return held

    def retry(self, host: str | None) -> None:
        """Somebody has logged in to that host: whatever waits for it is tried now."""
        for held in self.held.values():
            if held.host == host:
                held.retry()

    def may_live(self, target: Target, kernel: str) -> bool:
        """Whether the allocation of a former keeper may still be there; false: to ask for it would make a new one."""
        backend = find_backend(target.address.scheme)
        return not isinstance(backend, Indebted) or backend.holds(self._user, backend.key(target, kernel))

    def take_up(self, wanted: Collection[str]) -> None:
        """A keeper has started: what former ones allocated for kernels that nobody knows any more is given back."""
        for backend in indebted_backends():
            self._used.add(backend)
            backend.take_up(self._user, wanted)

    async def close(self) -> None:
        await asyncio.gather(*(held.close() for held in list(self.held.values())))
        await asyncio.gather(*(each.settle(self._user) for each in self._used if isinstance(each, Indebted)))

    def _over(self, held: HeldAllocation) -> None:
        if self.held.get(held.key) is held:
            del self.held[held.key]
