"""The keeper: one per user and machine.  Holds allocations and kernels, answers front ends, ends when it is idle."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ... import __version__
from ...backends.archive import cache_directory, stored_archive
from ..configuration import Configuration, KeeperSettings, Target
from ..errors import FarkernelError
from . import (
    bridges,
    elsewhere,
    forwards,
    free,
    journal,
    lines,
    logins,
    probes,
    resource_questions,
    visits,
)
from .allocations import Allocations, HeldAllocation
from .debts import Debts
from .facts import Facts, KernelState
from .inquiries import Inquiries
from .kernel import Kernel
from .kernel_requests import KernelRequests
from .launches import Launches
from .pools import Pools
from .reach import reach
from .server import BadRequest, ClientConnection, Handler
from .store import Store
from .user import KeeperUser, Nobody

log = logging.getLogger(__name__)

_MOST_REMEMBERED = 200
_LARGEST_LOG = 4 * 1024 * 1024
_REMEMBER_FOR = 7 * 24 * 3600.0


class Keeper:
    """See `launcher.keeper.__main__` for how it is started."""

    def __init__(self, directory: Path, store: Store, load: Callable[[], Configuration]) -> None:
        self.directory = directory
        self.kernels: dict[str, Kernel] = {}
        self.user = KeeperUser()
        self.finished = asyncio.Event()
        self._store = store
        self._load = load
        self._ended: dict[str, Facts] = {}
        self._allocations = Allocations(stored_archive(cache_directory()), self.user, store.identity())
        self._pools = Pools(self, load, self.kernels.values, self._ended.values)
        self._since = time.time()
        self._clients = 0
        self._idle: asyncio.TimerHandle | None = None
        self._idle_after = _keeper_settings(load).idle
        self._inquiries = Inquiries(self._allocations.inquire)
        self._debts = Debts(
            self._allocations, self._inquiries, self._target, lambda: self._load().targets, self.save
        )
        self._requests = KernelRequests(self.kernels, self._ended, self._allocations)
        self._launches = Launches(self)

    def handlers(self) -> dict[str, Handler]:
        return {
            "status": self._status,
            "end": self._end,
            "reach": self._reach,
            **self._launches.handlers(),
            **self._requests.handlers(),
            **journal.handlers(self._requests.kernel, self.directory),
            **forwards.handlers(self._requests.kernel),
            **bridges.handlers(self, self._named, self.directory),
            **logins.handlers(self.user, self._configured, self._allocations.retry),
            **elsewhere.handlers(
                self, self.user, self._configured, self._targets, self._far_names, self._launches.adopt
            ),
            **visits.handlers(self, self._configured, self.user, self._requests.kernel),
            **lines.handlers(self, self._at_address, self.directory),
            **probes.handlers(self, self.user, lambda: self._load().target),
        }

    # life

    async def take_up(self) -> None:
        """Find again what the facts speak of; a kernel that cannot be taken up is said, and hinders no other."""
        kernels: list[Kernel] = []
        wanted: set[str] = set()
        loaded = self._store.load()
        await self._inquiries.ask(self._to_inquire(loaded.values()))
        for name, found in loaded.items():
            if found.get("state") != KernelState.ENDED.value:
                wanted.add(str(found.get("allocation")))
            try:
                facts = Facts.from_dict(found)
                if facts.state == KernelState.ENDED.value:
                    self._remember(facts)
                    self._debts.pay(facts)
                    continue
                kernel = self.make(facts, self._target(facts))
                await kernel.open()
                self._debts.pay_elsewhere(facts, kernel.stop_paid)
                kernels.append(kernel)
            except (FarkernelError, TypeError, ValueError) as error:
                log.error("kernel %s cannot be taken up: %s", name, error)
        for kernel in kernels:
            self._inquiries.when_known(kernel.target, partial(self._resume, kernel))
            kernel.attendance.left(None)  # nobody is here yet: `keep` counts
        self._allocations.take_up(wanted)
        self.consider_idle()

    def _to_inquire(self, loaded: Iterable[Mapping[str, Any]]) -> Iterator[Target]:
        """The targets of kernels that live, or that must still be stopped."""
        for found in loaded:
            with contextlib.suppress(FarkernelError, TypeError, ValueError):  # said by `take_up`
                facts = Facts.from_dict(dict(found))
                if facts.state != KernelState.ENDED.value or facts.owed:
                    yield self._target(facts)
                known = self._load().targets
                yield from (known[member] for member in facts.left if member in known)

    def _resume(self, kernel: Kernel) -> None:
        """Unless something else has happened to it while its target was inquired about."""
        if not kernel.gone and kernel.state is not KernelState.ENDED and kernel.allocation is None:
            kernel.resume()

    async def close(self) -> None:
        """End, leaving every kernel as it is."""
        self._inquiries.close()
        await self._pools.close()
        await asyncio.gather(*(kernel.close(forget=False) for kernel in list(self.kernels.values())))
        await self._allocations.close()

    def clients_changed(self, count: int) -> None:
        self._clients = count
        self.consider_idle()

    def consider_idle(self) -> None:
        """Start or stop the clock after which a keeper without work ends."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if not self._clients and not self.kernels and self._idle_after is not None:
            self._idle = asyncio.get_running_loop().call_later(self._idle_after, self._is_idle)

    def _is_idle(self) -> None:
        log.info("nothing to do for %.0f s: ending", self._idle_after)
        self.finished.set()

    # owner of kernels

    async def inquire(self, target: Target) -> None:
        await self._allocations.inquire(target)

    def allocation_for(self, target: Target, kernel: str | None) -> HeldAllocation:
        return self._allocations.for_kernel(target, kernel)

    def owe_stop(self, kernel: Kernel) -> None:
        self._debts.owe(kernel)

    async def place(self, kernel: Kernel) -> None:
        await self._pools.place(kernel)

    def target_of(self, facts: Facts) -> Target:
        """As it is configured now, with what its user answered."""
        return self.resolve(facts.wanted(), facts.entry)

    def questions(self, target: Target) -> tuple[str, ...]:
        """The resources for which its user is asked; what is locked is not."""
        configuration = self._load()
        members = [configuration.target(name) for name in target.address.members]
        names = resource_questions.questions(target, members)
        return tuple(
            name for name in names if not configuration.is_locked("targets", target.name, "resources", name)
        )

    async def free(self, target: Target) -> str:
        if target.address.members:
            return await self._pools.free(target)
        return await free.free_there(self, self.user, target)

    async def open_dashboard(self, kernel: Kernel, port: int, same_machine: bool) -> forwards.Forward:
        return await forwards.open_forward(kernel, {"port": port}, same_machine)

    def save(self, facts: Facts) -> None:
        self._store.save(facts.kernel, facts.as_dict())

    def remember_info(self, entry: str, info: dict[str, Any]) -> None:
        self._store.remember_info(entry, info)

    def recall_info(self, entry: str) -> dict[str, Any] | None:
        return self._store.recall_info(entry)

    def kernel_over(self, kernel: Kernel) -> None:
        self.kernels.pop(kernel.id, None)
        self._remember(kernel.facts)
        self.consider_idle()

    def _remember(self, facts: Facts) -> None:
        """Ended kernels are listed for a while, so that `ps` can say why."""
        self._ended[facts.kernel] = facts
        for old in sorted(self._ended.values(), key=lambda each: each.since)[: -_MOST_REMEMBERED or None]:
            self._drop(old)
        for old in list(self._ended.values()):
            if old.since < time.time() - _REMEMBER_FOR:
                self._drop(old)

    def forget_ended(self, kernel: str) -> None:
        """It comes back under its name."""
        self._ended.pop(kernel, None)

    def _drop(self, facts: Facts) -> None:
        self._ended.pop(facts.kernel, None)
        self._store.forget(facts.kernel)

    # kernels

    def make(self, facts: Facts, target: Target) -> Kernel:
        kernel = Kernel(self, facts, target, self.directory / "kernels" / facts.kernel)
        self.kernels[facts.kernel] = kernel
        self.consider_idle()
        return kernel

    def unmake(self, kernel: str) -> None:
        """It could not be opened."""
        self.kernels.pop(kernel, None)
        self._store.forget(kernel)

    def _target(self, facts: Facts) -> Target:
        """The one that the kernel runs on, the member of its pool."""
        return self.resolve(facts.wanted(), facts.entry, facts.member)

    def resolve(self, settings: dict[str, Any], entry: str, member: str = "") -> Target:
        """The settings of a menu entry, over what the configuration says of its target."""
        return self._load().resolve(settings if settings else {"target": entry}, member=member)

    # requests

    async def _status(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "version": __version__,
            "since": self._since,
            "kernels": len(self.kernels),
            "allocations": [held.as_dict() for held in self._allocations.held.values()],
            "clients": self._clients,
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "directory": str(self.directory),
            "log": str(self.directory / "log"),
            "internals": [repr(each) for each in (*self.kernels.values(), *self._allocations.held.values())],
        }

    async def _end(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        log.info("asked to end; %d kernels live on", len(self.kernels))
        asyncio.get_running_loop().call_soon(self.finished.set)
        return {"pid": os.getpid()}

    async def _reach(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        """Whether a command can be run at each of the targets; nothing is started there."""
        names = request.get("targets") or []
        deadline = request.get("deadline") or 10
        if not isinstance(names, list) or not isinstance(deadline, int | float):
            raise BadRequest("targets must be a list of names, deadline a number of seconds")
        configuration = self._load()
        found = await asyncio.gather(
            *(reach(configuration.target, str(name), Nobody(self.user), deadline) for name in names)
        )
        return {"targets": dict(zip(map(str, names), found, strict=True))}

    def _far_names(self) -> set[str]:
        return {kernel.far for kernel in self.kernels.values() if kernel.state is not KernelState.ENDED}

    def _targets(self) -> list[Target]:
        configuration = self._load()
        return [each for each in configuration.targets.values() if not each.address.members]

    def _at_address(self, address: str) -> Target:
        configuration = self._load()
        known = (each for each in configuration.targets.values() if str(each.address) == address)
        return next(known, None) or configuration.resolve({"address": address})

    def _named(self, name: str) -> Target:
        return self._at_address(name) if "://" in name else self._configured(name)

    def _configured(self, name: str) -> Target:
        return self._load().target(name)


def _keeper_settings(load: Callable[[], Configuration]) -> KeeperSettings:
    """A broken configuration stops launches, which say so; a keeper that holds kernels must come up all the same."""
    try:
        return load().keeper
    except FarkernelError as error:
        log.error("%s", error)
        return KeeperSettings()
