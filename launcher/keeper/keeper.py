"""The keeper: one per user and machine.  Holds allocations and kernels, answers front ends, ends when it is idle."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import secrets
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ... import __version__
from ...backends.archive import cache_directory, stored_archive
from ..configuration import Configuration, KeeperSettings, Target
from ..errors import FarkernelError
from ..local_end.client_links import own_connection
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
    spares,
    visits,
)
from .adopted import Adopted
from .allocations import Allocations, HeldAllocation
from .facts import Facts, KernelState
from .far_agent import AgentGone
from .inquiries import Inquiries
from .kernel import Kernel
from .pools import Pools
from .reach import reach
from .server import BadRequest, ClientConnection, Handler
from .store import Store, checked_name
from .user import KeeperUser, Nobody

log = logging.getLogger(__name__)

_MOST_REMEMBERED = 200
_LARGEST_LOG = 4 * 1024 * 1024
_REMEMBER_FOR = 7 * 24 * 3600.0


class NoSuchKernel(FarkernelError):
    """An id that this keeper does not know."""

    kind = "no-such-kernel"

    def __init__(self, kernel: str) -> None:
        super().__init__(f"there is no kernel {kernel[:80]}", "See: farkernel ps")


class NoSuchAllocation(FarkernelError):
    kind = "no-such-allocation"

    def __init__(self, allocation: str) -> None:
        super().__init__(f"there is no allocation {allocation[:80]}", "See: farkernel ps")


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
        self._launching: dict[str, asyncio.Lock] = {}
        self._inquiries = Inquiries(self._allocations.inquire)

    def handlers(self) -> dict[str, Handler]:
        return {
            "status": self._status,
            "end": self._end,
            "launch": self._launch,
            "watch": self._watch,
            "interrupt": self._interrupt,
            "signal": self._signal,
            "shutdown": self._shutdown,
            "stop": self._stop,
            "cleanup": self._cleanup,
            "detach": self._detach,
            "list": self._list,
            "release": self._release,
            "logs": self._logs,
            "reach": self._reach,
            **journal.handlers(self._kernel, self.directory),
            **forwards.handlers(self._kernel),
            **bridges.handlers(self, self._named, self.directory),
            **logins.handlers(self.user, self._configured, self._allocations.retry),
            **elsewhere.handlers(
                self, self.user, self._configured, self._targets, self._far_names, self._adopt
            ),
            **visits.handlers(self, self._configured, self.user, self._kernel),
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
                    self._pay(facts)
                    continue
                kernel = self._make(facts, self._target(facts.wanted(), facts.entry, facts.member))
                await kernel.open()
                self._pay_elsewhere(facts, kernel.stop_paid)
                kernels.append(kernel)
            except (FarkernelError, TypeError, ValueError) as error:
                log.error("kernel %s cannot be taken up: %s", name, error)
        for kernel in kernels:
            self._inquiries.when_known(kernel.target, partial(self._resume, kernel))
            kernel.front_left(None)  # nobody is here yet: `keep` counts
        self._allocations.take_up(wanted)
        self.consider_idle()

    def _to_inquire(self, loaded: Iterable[Mapping[str, Any]]) -> Iterator[Target]:
        """The targets of kernels that live, or that must still be stopped."""
        for found in loaded:
            with contextlib.suppress(FarkernelError, TypeError, ValueError):  # said by `take_up`
                facts = Facts.from_dict(dict(found))
                if facts.state != KernelState.ENDED.value or facts.owed:
                    yield self._target(facts.wanted(), facts.entry, facts.member)
                known = self._load().targets
                yield from (known[member] for member in facts.left if member in known)

    def _resume(self, kernel: Kernel) -> None:
        """Unless something else has happened to it while its target was inquired about."""
        if not kernel.gone and kernel.state is not KernelState.ENDED and kernel.allocation is None:
            kernel.resume()

    def _pay(self, facts: Facts) -> None:
        """A former keeper gave that kernel up while it was out of reach."""

        def left(member: str) -> None:
            facts.left.pop(member, None)
            self.save(facts)

        def paid() -> None:
            facts.owed = False
            self.save(facts)

        self._pay_elsewhere(facts, left)
        if not facts.owed:
            return
        target = self._target(facts.wanted(), facts.entry, facts.member)
        if target.address.members:
            paid()
            return
        if self._allocations.may_live(target, facts.kernel):
            self._owe_stop(target, facts.kernel, facts.far_name, paid)
        else:
            paid()

    def _pay_elsewhere(self, facts: Facts, paid: Callable[[str], None]) -> None:
        """It was started again on another member of its pool, while a former one was out of reach."""
        known = self._load().targets
        for member, far in list(facts.left.items()):
            if member in known:
                self._owe_stop(known[member], facts.kernel, far, partial(paid, member))
            else:
                paid(member)

    def owe_stop(self, kernel: Kernel) -> None:
        """It was given up before its allocation was entered."""
        paid = partial(kernel.stop_paid, kernel.facts.member)
        if self._allocations.may_live(kernel.target, kernel.id):
            self._owe_stop(kernel.target, kernel.id, kernel.far, paid)
        else:
            paid()

    def _owe_stop(self, target: Target, kernel: str, far: str, paid: Callable[[], None]) -> None:
        self._inquiries.when_known(target, lambda: self.allocation_for(target, kernel).owe_stop(far, paid))

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

    async def place(self, kernel: Kernel) -> None:
        await self._pools.place(kernel)

    def target_of(self, facts: Facts) -> Target:
        """As it is configured now, with what its user answered."""
        return self._target(facts.wanted(), facts.entry)

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

    def _drop(self, facts: Facts) -> None:
        self._ended.pop(facts.kernel, None)
        self._store.forget(facts.kernel)

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

    async def _launch(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        asked = request.get("kernel")
        name = checked_name(asked) if asked else str(uuid.uuid4())
        async with self._launching.setdefault(name, asyncio.Lock()):
            try:
                return await self._launch_one(client, request, name)
            finally:
                self._launching.pop(name, None)

    async def _launch_one(
        self, client: ClientConnection, request: dict[str, Any], name: str
    ) -> dict[str, Any]:
        settings = request.get("settings") or {}
        if not isinstance(settings, dict):
            raise BadRequest("settings must be an object")
        entry = str(request.get("entry") or settings.get("target") or settings.get("address") or "")
        kernel = self.kernels.get(name) or self._left_behind(entry, str(request.get("notebook") or ""))
        resumed = kernel is not None and kernel.state is not KernelState.ENDED and not request.get("restart")
        if kernel is None:
            kernel = await self._new(name, entry, settings, request)
        else:
            kernel.front_came(client)
            await self._again(kernel, request, resumed)
        self._follow(client, kernel)
        facts = kernel.facts
        return {"kernel": kernel.id, "connection": facts.connection, "life": facts.life, "resumed": resumed}

    async def _new(self, name: str, entry: str, settings: dict[str, Any], request: dict[str, Any]) -> Kernel:
        target = self._target(settings, entry)
        given = request.get("connection")
        key = secrets.token_hex(32)
        connection = (
            dict(given)
            if isinstance(given, dict) and given.get("shell_port")
            else own_connection(self.directory, name, key)
        )
        facts = Facts(
            kernel=name,
            entry=entry,
            settings=settings,
            connection=connection,
            far_key=secrets.token_hex(32),
            given=bool(given),
            cwd=str(request.get("cwd") or ""),
            env={str(key): str(value) for key, value in (request.get("env") or {}).items()},
            notebook=str(request.get("notebook") or ""),
            front=str(request.get("front") or "provisioner"),
            session=uuid.uuid4().hex,
            target=target.name,
        )
        self.save(facts)
        kernel = self._make(facts, target)
        try:
            await kernel.open()
        except FarkernelError:
            self.kernels.pop(name, None)
            self._store.forget(name)
            raise
        kernel.begin()
        return kernel

    async def _again(self, kernel: Kernel, request: dict[str, Any], resumed: bool) -> None:
        """The kernel is there already: a restart, a start after it died, or a front end that comes back to it."""
        done = isinstance(request.get("life"), int) and kernel.facts.life >= request["life"]
        if resumed or (done and kernel.state is not KernelState.ENDED):  # asked again: the answer was lost
            kernel.local.refresh_endpoints()
            return
        if kernel.state is not KernelState.ENDED:
            await kernel.stop(now=True, text="restarted")
        if isinstance(request.get("env"), dict):
            kernel.facts.env = {str(key): str(value) for key, value in request["env"].items()}
        target = self.target_of(kernel.facts)
        kernel.local.refresh_endpoints()
        kernel.begin_again(target)

    def _left_behind(self, entry: str, notebook: str) -> Kernel | None:
        """A kernel that the same notebook had by the same menu entry, and that no front end holds now."""
        if not notebook:
            return None
        for kernel in self.kernels.values():
            facts = kernel.facts
            same = facts.entry == entry and facts.notebook == notebook and not facts.given
            if same and not kernel.fronts and kernel.state is not KernelState.ENDED:
                return kernel
        return None

    def _make(self, facts: Facts, target: Target) -> Kernel:
        kernel = Kernel(self, facts, target, self.directory / "kernels" / facts.kernel)
        self.kernels[facts.kernel] = kernel
        self.consider_idle()
        return kernel

    def _target(self, settings: dict[str, Any], entry: str, member: str = "") -> Target:
        """The settings of a menu entry, over what the configuration says of its target."""
        return self._load().resolve(settings if settings else {"target": entry}, member=member)

    def _follow(self, client: ClientConnection, kernel: Kernel) -> None:
        """That client is a front end of the kernel until it goes away or says `detach`."""
        kernel.front_came(client)
        client.on_close["front", kernel.id] = lambda: kernel.front_left(client)

    async def _watch(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        name = str(request.get("kernel"))
        kernel = self.kernels.get(name)
        if kernel is None:
            if name not in self._ended:
                raise NoSuchKernel(name)
            client.event(_kernel_event(self._ended[name], True, ""))
            return {}

        def watcher(kernel: Kernel) -> None:
            held = kernel.allocation
            client.event(_kernel_event(kernel.facts, held is None or held.up, held.why if held else ""))

        kernel.watchers.add(watcher)
        former = client.on_close.pop(("watch", kernel.id), None)
        if former is not None:
            former()
        client.on_close["watch", kernel.id] = lambda: kernel.watchers.discard(watcher)
        if request.get("front", True):
            self._follow(client, kernel)
        watcher(kernel)
        return {}

    async def _interrupt(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        await self._kernel(request).interrupt()
        return {}

    async def _signal(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        signum = request.get("signum")
        if not isinstance(signum, int) or not 0 <= signum < 65:
            raise BadRequest(f"{str(signum)[:20]!r} is not a signal's number")
        await self._kernel(request).signal(signum)
        return {}

    async def _shutdown(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        self._kernel(request).shutdown(bool(request.get("restart")))
        return {}

    async def _stop(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        kernel = self.kernels.get(str(request.get("kernel")))
        if kernel is None and str(request.get("kernel")) in self._ended:
            return {}
        await self._kernel(request).stop(now=bool(request.get("now")))
        return {}

    async def _cleanup(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        kernel = self.kernels.get(str(request.get("kernel")))
        if kernel is not None and not request.get("restart"):
            if kernel.state is not KernelState.ENDED:
                await kernel.stop(now=True)
            await kernel.close(forget=True)
        return {}

    async def _detach(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        kernel = self._kernel(request)
        kernel.detach()
        kernel.front_left(client)
        return {}

    async def _list(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        rows = [
            {**kernel.facts.row(), "fronts": len(kernel.fronts), "usage": None, "why": kernel.local.waits_for}
            for kernel in self.kernels.values()
        ]
        usage = await self._usage()
        for row in rows:
            row["usage"] = usage.get(str(row["kernel"]))
        if request.get("all", True):
            rows += [{**facts.row(), "fronts": 0, "usage": None} for facts in self._ended.values()]
        return {"kernels": rows, "allocations": [held.as_dict() for held in self._allocations.held.values()]}

    async def _usage(self) -> dict[str, Any]:
        """Memory and CPU by kernel, of the agents that answer at once."""

        async def ask(held: HeldAllocation) -> dict[str, Any]:
            async with asyncio.timeout(2):
                return await held.agent.request("usage")

        found: dict[str, Any] = {}
        up = [held for held in self._allocations.held.values() if held.up]
        for answer in await asyncio.gather(*map(ask, up), return_exceptions=True):
            if isinstance(answer, dict):
                found.update(answer.get("kernels", answer))
        return found

    async def _release(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        name = str(request.get("allocation"))
        held = self._allocations.held.get(name)
        if held is None:
            raise NoSuchAllocation(name)
        with contextlib.suppress(AgentGone):  # somebody else gave it back meanwhile
            for kernel in list(self.kernels.values()):
                if kernel.allocation is held:
                    await kernel.stop(now=False, text="its allocation was released")
            if held.up:
                await spares.end_all(held.agent)
        held.give_back()
        await held.close()
        return {}

    async def _logs(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        size = request.get("size") or 65536
        if not isinstance(size, int) or not 0 < size <= _LARGEST_LOG:
            raise BadRequest(f"a log of {str(size)[:20]} bytes cannot be asked for")
        name = str(request.get("kernel"))
        if name not in self.kernels and name in self._ended:
            return {"log": str((self._ended[name].reason or {}).get("tail", ""))}
        return {"log": await self._kernel(request).read_log(size)}

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

    async def _adopt(self, target: Target, about: Adopted) -> Kernel:
        """A kernel that another keeper started is ours from now on, until somebody takes it back."""
        name = checked_name(about.kernel)
        if name in self.kernels:
            kernel = self.kernels[name]
            if kernel.state is KernelState.ENDED:
                kernel.come_back(about)
            return kernel
        self._ended.pop(name, None)
        settings = about.label.get("settings")
        facts = Facts(
            kernel=name,
            entry=about.said("entry"),
            settings={**(settings if isinstance(settings, dict) else {}), "target": target.name},
            connection=own_connection(self.directory, name, secrets.token_hex(32)),
            far_key=about.key,
            notebook=about.said("notebook"),
            session=uuid.uuid4().hex,
            target=target.name,
            started=True,
        )
        facts.settings.pop("address", None)
        self.save(facts)
        kernel = self._make(facts, self._target(facts.wanted(), facts.entry))
        await kernel.open()
        kernel.adopt(about)
        kernel.begin()
        kernel.front_left(None)
        return kernel

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

    def _kernel(self, request: dict[str, Any]) -> Kernel:
        name = str(request.get("kernel"))
        if name not in self.kernels:
            raise NoSuchKernel(name)
        return self.kernels[name]


def _keeper_settings(load: Callable[[], Configuration]) -> KeeperSettings:
    """A broken configuration stops launches, which say so; a keeper that holds kernels must come up all the same."""
    try:
        return load().keeper
    except FarkernelError as error:
        log.error("%s", error)
        return KeeperSettings()


def _kernel_event(facts: Facts, link_up: bool, why: str) -> dict[str, Any]:
    """What a front end that watches is told."""
    return {
        "event": "kernel",
        "kernel": facts.kernel,
        "life": facts.life,
        "state": facts.state,
        "reason": facts.reason,
        "exit": exit_status(facts.reason) if facts.state == KernelState.ENDED.value else None,
        "link": "up" if link_up else "down",
        "why": why,
    }


def exit_status(reason: dict[str, Any] | None) -> int:
    """As a shell would see it: the status, or minus the signal's number; 0 for a stop that was asked for."""
    reason = reason or {}
    if reason.get("kind") in ("stopped", "keep", "idle"):
        return 0
    if isinstance(reason.get("signum"), int) and reason["signum"]:
        return -int(reason["signum"])
    if isinstance(reason.get("status"), int):
        return int(reason["status"])
    return 1
