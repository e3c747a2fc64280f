"""One kernel in the keeper: from the launch call to its end, whatever happens to link, agent and
front ends in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ...backends.contract import Costly
from ..agent.zmtp import Buffer
from ..configuration import Target
from ..errors import FarkernelError
from ..local_end.local_end import LocalEnd
from ..settings import duration_text
from . import bringing_up, engines
from .acts import Acts
from .adopted import Adopted
from .allocations import HeldAllocation
from .attachment import Attachment
from .attendance import Attendance
from .bringing_up import BringingUp
from .cell_answers import CellAnswerer
from .facts import MOVES, Facts, IllegalMove, KernelGone, KernelState, reason_from_agent, reason_from_error
from .idle import IdleClock

log = logging.getLogger(__name__)


Watcher = Callable[["Kernel"], None]


class Owner(bringing_up.Keeper, Protocol):
    """What a kernel needs of the keeper."""

    def allocation_for(self, target: Target, kernel: str | None) -> HeldAllocation: ...
    async def place(self, kernel: Kernel) -> None: ...
    def owe_stop(self, kernel: Kernel) -> None: ...
    async def open_dashboard(self, kernel: Kernel, port: int, same_machine: bool) -> engines.Dashboard: ...
    def save(self, facts: Facts) -> None: ...
    def remember_info(self, entry: str, info: dict[str, Any]) -> None: ...
    def recall_info(self, entry: str) -> dict[str, Any] | None: ...
    def kernel_over(self, kernel: Kernel) -> None: ...


class Kernel:
    """A tenant of an allocation, with a local end for its clients."""

    def __init__(self, owner: Owner, facts: Facts, target: Target, directory: Path) -> None:
        self.facts = facts
        self.id = facts.kernel
        self.target = target
        self.directory = directory
        self.local = LocalEnd(
            self,
            facts.connection,
            facts.far_key,
            directory,
            facts.session,
            facts.target or facts.entry,
            facts.given,
        )
        self._answerer = CellAnswerer(owner.user, self.local.asking, target.address.host or "", self.id)
        self._up = BringingUp(self, owner, self._answerer)
        self.allocation: HeldAllocation | None = None
        self._idle = IdleClock(target.idle, self.local.idle_since, self._is_idle)
        self.engine = engines.EngineWatch(self, facts.engine)
        self.attendance = Attendance(self)
        self.watchers: set[Watcher] = set()
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._attachment = Attachment(self)
        self._bringing: asyncio.Task[None] | None = None
        self._chores: set[asyncio.Task[Any]] = set()
        self.acts = Acts(self, self._answerer)
        self.gone = False
        self.avoid = ""  # the member of a pool where it could not be started

    @property
    def far(self) -> str:
        """What its agent calls it."""
        return self.facts.far_name

    def __repr__(self) -> str:
        return f"<Kernel {self.id}, life {self.facts.life}, {self.facts.state}, {self.local!r}>"

    @property
    def state(self) -> KernelState:
        return KernelState(self.facts.state)

    # coming up

    async def open(self) -> None:
        """Bind the local end; after this a front end may be told where to connect."""
        await self.local.open(self._owner.recall_info(self.facts.entry))
        self._up.show_answers()
        self._up.say_note()

    def begin(self) -> None:
        """Bring a new life up (the facts say which)."""
        self.acts.life_begins()
        self.save()
        self._tell_watchers()
        self._bringing = self.chore(self._up.run(), "bring up")

    def resume(self) -> None:
        """After a keeper's restart: take up what the facts say.

        Unless the kernel was live, nobody knows whether the agent heard of it; asking again for the same
        life does no harm.
        """
        if self.state is not KernelState.LIVE:
            self.begin()
            return
        self.enter()
        if self.allocation is not None and self.allocation.up:
            self.agent_fresh()

    def begin_again(self, target: Target) -> None:
        """Restart: same endpoints, another life; the former one must have ended.  ``target`` as it is
        configured now.
        """
        self.target = target
        self._idle = IdleClock(target.idle, self.local.idle_since, self._is_idle)
        self.facts.life += 1
        self.facts.started = False
        self.avoid = ""
        former = self.facts.reason or {}
        if former.get("kind") == "failed" or (
            not target.address.is_host and (self.allocation is None or former.get("over"))
        ):
            self.facts.asked = False  # there will be another allocation, and maybe of another size
        if former.get("error") == KernelGone.kind or former.get("over") or former.get("emptied"):
            self._count_anew()
        if target.address.members and former.get("kind") == "failed":
            self.avoid, self.facts.member = self.facts.member, ""
        self.facts.reason = None
        self._attachment.close(self.allocation)
        self.move(KernelState.WAITING)
        self.facts.session = self.local.new_life()
        self.begin()

    def settle(self, member: Target, anew: bool) -> None:
        """The member of its pool on which it runs from now on; ``anew``: it has no former life there to go on with."""
        facts = self.facts
        if anew and facts.life > 1:
            if facts.owed:
                facts.left[facts.member], facts.owed = facts.far_name, False
            self._count_anew()
        self.target = member
        facts.member = member.name
        self._idle = IdleClock(member.idle, self.local.idle_since, self._is_idle)
        self._answerer.host = member.address.host or ""
        self.save()

    def _count_anew(self) -> None:
        """The next life is another agent's: that one counts its messages from 1, and may still have a former life under
        the former name.
        """
        self.facts.far, self.facts.base = f"{self.id}.{self.facts.life}", self.local.seen()

    def come_back(self, about: Adopted) -> None:
        """Another keeper had taken it, and this one takes it back."""
        self._attachment.close(self.allocation)
        self.facts.reason = None
        self.move(KernelState.WAITING)
        self.facts.session = self.local.new_life()
        self.adopt(about)
        self.begin()

    def adopt(self, about: Adopted) -> None:
        """From now on this is the far kernel that `about` tells of; it has not been attached yet."""
        log.info("kernel %s takes up %s (%s)", self.id, about.kernel, about.origin())
        facts = self.facts
        facts.far, facts.far_key, facts.interrupt = about.kernel, about.key, about.interrupt
        facts.lives_before = about.life - facts.life
        answers = about.label.get("answers")
        facts.answers, facts.asked = answers if isinstance(answers, dict) else {}, True
        self.save()
        self.local.take_up(about.key, about.received)

    def stop_paid(self, member: str) -> None:
        """Its agent (on that member of a pool) has heard that it was given up."""
        if self.facts.left.pop(member, None) is None:
            self.facts.owed = False
        self.save()

    def attach_soon(self) -> None:
        self._attachment.begin()

    async def place(self) -> None:
        await self._owner.place(self)

    def enter(self) -> HeldAllocation:
        held = self._owner.allocation_for(self.target, self.id)
        if self.allocation is not held:
            if self.allocation is not None:
                self.allocation.leave(self, self.local.say_waiting)
            self.allocation = held
            held.enter(self, self.local.say_waiting)
            held.await_answers(self, self.local.awaits)
            self.facts.allocation = held.key
        return held

    def engine_changed(self, engine: dict[str, Any] | None) -> None:
        self.facts.engine = engine
        self.save()

    def engine_said(self, text: str) -> None:
        self.local.notes.say_notice(text)

    async def open_dashboard(self, port: int, same_machine: bool) -> engines.Dashboard:
        return await self._owner.open_dashboard(self, port, same_machine)

    # tenant of an allocation

    def agent_fresh(self) -> None:
        self._attachment.forget()
        if self.facts.started and self.state is not KernelState.ENDED and not self._is_starting():
            self._attachment.begin()
            if self.allocation is not None:
                self.engine.follow(self.allocation.agent)

    def agent_event(self, event: dict[str, Any]) -> None:
        if event.get("event") == "dropped":
            self.local.notes.say_dropped(
                str(event.get("name")), event.get("bytes"), event.get("first"), event.get("last")
            )
        elif event.get("event") == "taken":
            self._taken(event.get("by"))
        elif event.get("event") == "kernel" and event.get("life") == self.facts.far_life:
            self.far_state(str(event.get("state")), event.get("reason"))

    def _taken(self, by: Any) -> None:
        where = str(by.get("host") or "another machine") if isinstance(by, dict) else "another machine"
        self._attachment.forget()
        text = f"your keeper on {where[:100]} has taken it over, and it runs on there"
        self.end(
            {"kind": "taken", "text": f"{text}. To take it back: farkernel attach {self.far}", "tail": ""}
        )

    def link_changed(self) -> None:
        held = self.allocation
        if held is None:
            return
        if held.up:
            self.local.link_is_up()
        elif held.why:
            elsewhere = (
                f"; a restart goes to another member of {self.facts.target}" if self.facts.member else ""
            )
            self.local.link_is_down(held.why + elsewhere, held.next_try)
        self._answerer.link_changed(held)
        self._tell_watchers()

    def answers_awaited(self, some: bool) -> None:
        if self.allocation is not None:
            self.allocation.await_answers(self, some)

    def cell_waits(self) -> None:
        held = self.allocation
        if self._up.interview is not None:
            self._up.interview.cell_came()
        if self._up.interview is not None or (held is not None and not held.up):
            self._answerer.cell_waits(held)

    def notice(self, sentence: str) -> None:
        self.local.notes.say_notice(sentence)

    def allocation_lost(self, error: FarkernelError) -> None:
        held, self.allocation = self.allocation, None
        over = {"over": True} if held is not None and held.costly is not None else {}
        self.end({**reason_from_error(error.as_dict()), **over})

    def allocation_emptied(self, reason: Mapping[str, Any]) -> None:
        if self.state is KernelState.LIVE:
            self.end({"tail": "", **reason})

    def _is_starting(self) -> bool:
        return self._bringing is not None and not self._bringing.done()

    def far_state(self, state: str, reason: Any) -> None:
        if self.state is KernelState.ENDED:
            return
        if state == "live" and self._attachment:
            if self.state is not KernelState.LIVE:
                self.move(KernelState.LIVE)
            self.local.hand_over()
            self._idle.start()
            self._replenish()
        elif state == "ended":
            found = reason_from_agent(reason)
            if (
                self.allocation is not None
                and self.allocation.costly is not None
                and not self.acts.stop_asked
            ):
                self.chore(self._end_explained(self.allocation.costly, found), "explain the end")
            else:
                self.end(found)

    async def _end_explained(self, costly: Costly, reason: dict[str, Any]) -> None:
        """What ends a job ends its kernels by a signal: the scheduler knows better than the agent why."""
        because, life = None, self.facts.life
        if reason.get("kind") != "oom" and (reason.get("kind") != "exit" or reason.get("status")):
            with contextlib.suppress(FarkernelError, TimeoutError):
                because = await costly.explain()
        if self.facts.life == life:  # it may have been lost with its job meanwhile, and been started again
            self.end({**reason, **(because or {})})

    def _replenish(self) -> None:
        work = self._up.replenish(self.allocation) if self.allocation is not None else None
        if work is not None:
            self.chore(work, "start spares")

    # messages

    def to_kernel(self, channel: str, number: int, frames: Sequence[Buffer]) -> None:
        self._attachment.send(channel, number, frames)

    def after_delivery(self, callback: Callable[[], None]) -> None:
        if self.allocation is not None:
            self.allocation.agent.driver.after_delivery(callback)
        else:
            self._loop.call_soon(callback)

    def info_seen(self, info: dict[str, Any]) -> None:
        self._owner.remember_info(self.facts.entry, info)

    # acts

    def stop_coming_up(self) -> None:
        if self._bringing is not None:
            self._bringing.cancel()

    def owe_stop(self) -> None:
        self._owner.owe_stop(self)

    def interrupt_soon(self) -> None:
        self.acts.interrupt_soon()

    @property
    def interrupts_by_message(self) -> bool:
        return self.facts.interrupt == "message"

    @property
    def front_end_says_so(self) -> bool:
        return self.facts.front == "provisioner" and bool(self.attendance.fronts)

    def detach(self) -> None:
        """The front end goes away, the kernel stays."""
        self.local.shutdown.renounce()
        self.facts.detached = True
        self.save()

    def _is_idle(self) -> None:
        self.chore(self._stop_idle(), "idle")

    async def _stop_idle(self) -> None:
        """The allocation is given back, whether somebody still looks at the kernel or not."""
        await self.acts.stop_because(
            "idle", f"nothing was run in it for {duration_text(self.target.idle or 0)} (idle)"
        )
        held, self.allocation = self.allocation, None
        if held is not None:
            held.leave(self, self.local.say_waiting)

    # the end

    def end(self, reason: dict[str, Any]) -> None:
        if self.state is KernelState.ENDED:
            return
        self.facts.reason = reason = self.acts.as_wanted(reason)
        self.engine.close()
        self._idle.stop()
        self._answerer.leave()
        self.move(KernelState.ENDED)
        log.info("kernel %s has ended: %s", self.id, reason.get("text", ""))
        self.local.kernel_ended(reason, self.acts.stop_asked)
        self._tell_watchers()
        if not self.attendance.fronts:
            self.chore(self.close(forget=True), "close")

    async def close(self, forget: bool) -> None:
        """Give up the local end.  With ``forget`` the kernel has ended for good, and the agent may
        clear up after it.
        """
        if self.gone:
            return
        self.gone = True
        self.engine.close()
        self._idle.stop()
        self.attendance.stop()
        self._attachment.stop()
        self._answerer.leave()
        held, self.allocation = self.allocation, None
        if held is not None and forget:
            if held.up:
                with contextlib.suppress(FarkernelError, TimeoutError):
                    async with asyncio.timeout(5):
                        await held.agent.request("forget", kernel=self.far)
            self._attachment.close(held)
            held.leave(self, self.local.say_waiting, for_good=forget)
        await self.local.close(forget)
        if forget:
            self.save()
            self._owner.kernel_over(self)
        current = asyncio.current_task()
        for task in list(self._chores):
            if task is not current:
                task.cancel()

    # inside

    def move(self, new: KernelState) -> None:
        old = self.state
        if new not in MOVES[old]:
            raise IllegalMove(self.id, old, new)
        self.facts.state = new.value
        self.facts.since = time.time()
        self.save()
        if new is not KernelState.ENDED:
            self._tell_watchers()

    def save(self) -> None:
        self._owner.save(self.facts)

    def _tell_watchers(self) -> None:
        for watcher in list(self.watchers):
            watcher(self)

    def chore(self, work: Any, name: str) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = self._loop.create_task(work, name=f"{name} {self.id}")
        self._chores.add(task)
        task.add_done_callback(self._chore_done)
        return task

    def _chore_done(self, task: asyncio.Task[Any]) -> None:
        self._chores.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("kernel %s: %s failed", self.id, task.get_name(), exc_info=task.exception())
