"""Members of pools for kernels: asks the members how they are, and picks one (`pool_choice`).

A kernel on a member is a kernel of that target like any other: same allocation, same link.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ...backends import find_backend, kernel_of
from ...backends.contract import BringsKernel
from ..configuration import Configuration, Target
from ..discovery.machine import Machine, read_machine
from ..errors import FarkernelError
from ..settings import Resources
from .bringing_up import nothing
from .facts import Facts, KernelState
from .free import free_on
from .kernel import Kernel
from .pool_choice import Candidate, choose, gpus_asked, unfit
from .programs import with_programs
from .visits import OutOfReach, Owner, visit

log = logging.getLogger(__name__)

#: For one member, there and back: a small Raspberry Pi needs ten seconds and more for its first answer.
DEADLINE = 30.0
#: Once some member fits, how long the others are waited for: one that hangs is nobody's trouble.
PATIENCE = 5.0
#: How long an answer holds: many kernels started at once are one question, and the dead are not asked by each of them.
FRESH, FRESH_FAILURE = 5.0, 20.0
_AT_A_TIME = 100
_PARTS = ("host", "cpu", "memory", "raspberrypi")
_GPU_PARTS = ("nvidia", "graphics")
_OPENCL_PARTS = ("opencl", "opencl of the kernel")


@dataclass(frozen=True)
class Seen:
    """What a member said."""

    machine: Machine | None = None
    others: int = 0  # live kernels there that this keeper does not hold
    why: str = ""  # it could not be asked


class _Look:
    """A question to one member, and when it was asked."""

    def __init__(self, task: asyncio.Task[Seen]) -> None:
        self.task = task
        self._loop = asyncio.get_running_loop()
        self.asked = self._answered = self._loop.time()
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Seen]) -> None:
        self._answered = self._loop.time()

    def is_fresh(self) -> bool:
        if not self.task.done():
            return True
        if self.task.cancelled():
            return False
        age = self._loop.time() - self._answered
        return age < (FRESH_FAILURE if self.task.result().why else FRESH)

    def result(self) -> Seen:
        return self.task.result() if self.task.done() else Seen(why="has not answered yet")


class Pools:
    """Of one keeper."""

    def __init__(
        self,
        owner: Owner,
        load: Callable[[], Configuration],
        kernels: Callable[[], Iterable[Kernel]],
        remembered: Callable[[], Iterable[Facts]],
    ) -> None:
        self._owner = owner
        self._load = load
        self._kernels = kernels
        self._remembered = remembered
        self._looks: dict[tuple[str, str, _Question], _Look] = {}
        self._last: dict[str, str] = {}  # pool → who had the last turn
        self._turns = asyncio.Semaphore(_AT_A_TIME)

    async def place(self, kernel: Kernel) -> None:
        """Settle the kernel on a member of its pool; raises `NoneFits`.

        A restart stays where the kernel was (DESIGN §3.4), unless that member is dead, or the kernel could not be
        started there.
        """
        pool, former = kernel.target, kernel.facts.member
        configuration, moved = self._load(), ""
        if former:
            moved = await self._gone(kernel, configuration, former)
            if not moved:
                self._settle(kernel, configuration, former, anew=False)
                return
        members = [configuration.target(name) for name in pool.address.members if name != former or not moved]
        kernel.local.say_waiting(
            f"looking which of the {len(pool.address.members)} targets of {pool.name} is free"
        )
        await self._look_at(pool, members)
        # From here to the end nothing is awaited: whoever picks next counts this kernel.
        candidates = [self._candidate(kernel, pool, member) for member in members]
        if moved and former in pool.address.members:
            candidates.append(Candidate(former, why=moved))
        picked = choose(
            pool.name,
            candidates,
            pool.policy,
            pool.resources,
            random.random,
            wanted=self._stuck(kernel, pool),
            after=self._last.get(pool.name, ""),
            avoid=kernel.avoid,
        )
        self._last[pool.name] = picked.name
        self._settle(kernel, configuration, picked.name, anew=True)
        if moved:
            text = (  # what it had in memory is not there
                f"[farkernel] {former} {moved.rstrip('.')}. This kernel was started on {kernel.target.name} instead, "
                f"another member of the pool {kernel.facts.target}.\n"
            )
            kernel.local.notes.say_once(text, nothing)

    async def free(self, pool: Target) -> str:
        """GPUs that nobody has, by member: for who is asked what a kernel shall have."""
        configuration = self._load()
        members = [configuration.target(name) for name in pool.address.members]
        wanted = replace(pool, resources=replace(pool.resources, gpus=1))  # so that GPUs are looked at
        await self._look_at(wanted, members)
        said = []
        for member in filter(_is_asked, members):
            seen = self._looks[_key(member, _Question.of(wanted, member))].result()
            said.append(f"{member.name}: {seen.why or free_on(seen.machine or Machine())}")
        return "; ".join(said)

    async def close(self) -> None:
        for look in self._looks.values():
            look.task.cancel()
        await asyncio.gather(*(look.task for look in self._looks.values()), return_exceptions=True)

    def _settle(self, kernel: Kernel, configuration: Configuration, member: str, anew: bool) -> None:
        facts = kernel.facts
        log.info("kernel %s: %s for it, of the pool %s", kernel.id, member, facts.target)
        kernel.settle(configuration.resolve(facts.wanted(), member=member), anew)

    async def _gone(self, kernel: Kernel, configuration: Configuration, member: str) -> str:
        """Why the kernel cannot stay there; empty: it can."""
        if member not in configuration.targets:
            return "is no target any more"
        if member not in kernel.target.address.members:
            return "is not in the pool any more"
        held = kernel.allocation
        if held is not None and (held.up or held.costly is not None):
            return ""
        target = configuration.target(member)
        if not target.address.is_host:
            return ""
        look = self._look(target, _Question(_PARTS), anew=True)
        return (await asyncio.shield(look.task)).why

    # what the members say

    async def _look_at(self, pool: Target, members: Iterable[Target]) -> None:
        """Until all have answered, or one that fits has and the others had their time."""
        looks = [self._look(each, _Question.of(pool, each)) for each in members if _is_asked(each)]
        waiting = {look.task: look for look in looks}
        loop, some_fit = asyncio.get_running_loop(), False
        while waiting:
            left = None
            if some_fit:  # who was asked long ago, for another kernel, had their time already
                left = max(max(look.asked for look in waiting.values()) + PATIENCE - loop.time(), 0.0)
            done, _ = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                return
            some_fit = some_fit or any(_fits(task.result(), pool.resources) for task in done)
            waiting = {task: look for task, look in waiting.items() if task not in done}

    def _look(self, member: Target, question: _Question, anew: bool = False) -> _Look:
        key = _key(member, question)
        look = self._looks.get(key)
        if look is None or not look.is_fresh() or (anew and look.task.done()):
            task = asyncio.create_task(self._ask(member, question), name=f"look at {member.name}")
            look = self._looks[key] = _Look(task)
        return look

    async def _ask(self, member: Target, question: _Question) -> Seen:
        try:
            # First in a thread: it may ask ssh_config, and remembers the answer for a moment.
            await asyncio.to_thread(find_backend(member.address.scheme).key, member, None)
            async with (
                self._turns,
                asyncio.timeout(DEADLINE),
                visit(self._owner, member, patient=False) as ask,
            ):
                found, listed = await asyncio.gather(
                    with_programs(ask, "probe", deadline=DEADLINE * 0.8, **question.asked()), ask("list")
                )
        except TimeoutError:
            return Seen(why=f"did not answer within {DEADLINE:g} s")
        except OutOfReach as error:
            return Seen(why=f"cannot be reached: {error.why}")
        except FarkernelError as error:
            return Seen(why=f"cannot be used: {error.what}")
        return Seen(read_machine(found.get("machine")), self._others(listed.get("kernels") or []))

    def _others(self, rows: Iterable[Any]) -> int:
        ours = {kernel.far for kernel in self._kernels()}
        return sum(
            isinstance(row, dict)
            and row.get("state") != "ended"
            and row.get("kernel") not in ours
            and not (isinstance(row.get("label"), dict) and row["label"].get("spare"))
            for row in rows
        )

    # what is decided from it

    def _candidate(self, kernel: Kernel, pool: Target, member: Target) -> Candidate:
        seen = self._looks[_key(member, _Question.of(pool, member))].result() if _is_asked(member) else Seen()
        ours = [
            each
            for each in self._kernels()
            if each.target.name == member.name and each is not kernel and each.state is not KernelState.ENDED
        ]
        return Candidate(
            member.name,
            member.drain,
            _capacity(pool, member),
            len(ours) + seen.others,
            seen.machine,
            seen.why,
            _claimed(ours, seen.machine),
        )

    def _stuck(self, kernel: Kernel, pool: Target) -> str:
        """Where this notebook's, or this user's, newest kernel of the pool was; empty: none, or nobody asked for it."""
        facts = kernel.facts
        if pool.sticky == "never" or (pool.sticky == "notebook" and not facts.notebook):
            return ""
        known = [*(each.facts for each in self._kernels()), *self._remembered()]
        alike = [
            each
            for each in known
            if each.target == pool.name
            and each.member
            and each.kernel != facts.kernel
            and (pool.sticky == "user" or each.notebook == facts.notebook)
        ]
        return max(alike, key=lambda each: each.created).member if alike else ""


def _is_asked(member: Target) -> bool:
    """A queue has no machine to be asked about, and whoever drains a host may have taken it away."""
    return member.address.is_host and not member.drain


class _Question(NamedTuple):
    """What a member is asked for a pool's kernels."""

    parts: tuple[str, ...]
    kernel: tuple[tuple[str, str], ...] = ()  # whose environment

    @classmethod
    def of(cls, pool: Target, member: Target) -> _Question:
        resources = pool.resources
        if not resources.opencl:
            return cls(_PARTS + _GPU_PARTS if resources.gpus or resources.gpu_memory else _PARTS)
        whose = pool if pool.python or pool.kernel else member
        return cls(_PARTS + _GPU_PARTS + _OPENCL_PARTS, tuple(kernel_of(whose).items()))

    def asked(self) -> dict[str, Any]:
        return {"wanted": list(self.parts), **dict(self.kernel)}


def _key(member: Target, question: _Question) -> tuple[str, str, _Question]:
    return member.name, str(member.address), question


def _fits(seen: Seen, resources: Resources) -> bool:
    return unfit(Candidate("", machine=seen.machine, why=seen.why), resources) is None


def _claimed(kernels: Iterable[Kernel], machine: Machine | None) -> int:
    """GPUs of those whose leases the probe has not seen yet: its answer holds for some seconds."""
    leased = (
        {gpu.lease.kernel for gpu in machine.gpus if gpu.lease is not None} if machine is not None else set()
    )
    return sum(gpus_asked(each.target.resources) for each in kernels if each.far not in leased)


def _capacity(pool: Target, member: Target) -> int | None:
    """A board runs one kernel at a time, whatever is said."""
    if isinstance(find_backend(member.address.scheme), BringsKernel):
        return 1
    return member.capacity if member.capacity is not None else pool.capacity
