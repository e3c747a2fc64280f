"""One kernel in the keeper: from the launch call to its end, whatever happens to link, agent and
front ends in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ...backends import kernel_of
from ...backends.contract import Costly
from ..agent.channels import Priority
from ..agent.zmtp import Buffer, decode_message, encode_message
from ..configuration import Target
from ..errors import FarkernelError, RemoteError
from ..local_end.local_end import LocalEnd
from ..settings import duration_text
from ..text import one_line
from . import engines, spares, working_directory
from .adopted import Adopted, left_behind
from .allocations import HeldAllocation
from .cell_answers import CellAnswerer
from .facts import MOVES, Facts, IllegalMove, KernelGone, KernelState, reason_from_agent, reason_from_error
from .far_agent import AgentGone, SessionLost
from .idle import IdleClock
from .programs import devices, start
from .resource_questions import Interview, answers_text
from .user import KeeperUser
from .wire import pack_request, unpack_message
from .working_directory import notebook_directory

log = logging.getLogger(__name__)

_PRIORITIES = {
    "control": Priority.CONTROL,
    "shell": Priority.SHELL,
    "stdin": Priority.STDIN,
    "iopub": Priority.OUTPUT,
}
_STOP_GRACE = 5.0
# For a front end whose connection breaks to come back (`launcher.client` tries every 30 s at the least).
_LOST = 40
_ACKNOWLEDGE_EVERY = 0.5
NO_KERNEL = "no-kernel"
"""The agent's kind of error (`launcher.agent.problems`)."""

Watcher = Callable[["Kernel"], None]


class Owner(Protocol):
    """What a kernel needs of the keeper."""

    @property
    def user(self) -> KeeperUser: ...

    async def inquire(self, target: Target) -> None: ...
    def allocation_for(self, target: Target, kernel: str | None) -> HeldAllocation: ...
    async def place(self, kernel: Kernel) -> None: ...
    def owe_stop(self, kernel: Kernel) -> None: ...
    def target_of(self, facts: Facts) -> Target: ...
    def questions(self, target: Target) -> tuple[str, ...]: ...
    async def free(self, target: Target) -> str: ...
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
        self._interview: Interview | None = None
        self.allocation: HeldAllocation | None = None
        self._idle = IdleClock(target.idle, self.local.idle_since, self._is_idle)
        self.engine = engines.EngineWatch(self, facts.engine)
        self.fronts: set[object] = set()
        self.watchers: set[Watcher] = set()
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._channels: dict[str, int] = {}
        self._spare_arguments: dict[str, Any] | None = None
        self._bringing: asyncio.Task[None] | None = None
        self._attaching: asyncio.Task[None] | None = None
        self._chores: set[asyncio.Task[Any]] = set()
        self._keep: asyncio.TimerHandle | None = None
        self._acknowledge: asyncio.TimerHandle | None = None
        self._ended = asyncio.Event()
        self._stop_asked = False
        self._stop_kind = "stopped"
        self._stopped_because = ""
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
        self._show_answers()
        self._say_note()

    def begin(self) -> None:
        """Bring a new life up (the facts say which)."""
        self._stop_asked = False
        self._stopped_because = ""
        self._ended.clear()
        self._save()
        self._tell_watchers()
        self._bringing = self._chore(self._bring_up(), "bring up")

    def resume(self) -> None:
        """After a keeper's restart: take up what the facts say.

        Unless the kernel was live, nobody knows whether the agent heard of it; asking again for the same
        life does no harm.
        """
        if self.state is not KernelState.LIVE:
            self.begin()
            return
        self._enter()
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
        self._close_channels()
        self._move(KernelState.WAITING)
        self.facts.session = self.local.new_life()
        self.begin()

    async def _bring_up(self) -> None:
        try:
            if not self.target.address.is_host:
                await self._ask_resources()
            if self.target.address.members:
                await self._owner.place(self)
            await self._owner.inquire(self.target)
            held = self._enter()
            self.facts.started = True
            if self.state is KernelState.WAITING:
                self._move(KernelState.STARTING)
            if held.costly is not None and not held.up:
                # A queue may take hours, and what is known of a directory changes whenever the notebook is saved.
                await held.agent.request("list")
            place = await notebook_directory(self.facts.cwd)
            if self.facts.notebook and self.facts.far_life == 1:
                await self._look_for_left_behind(held)
            await self._ask_resources()
            if self.target.warm and self.facts.far_life == 1 and not self.facts.far:
                await self._take_spare(held, place)
            answer = await start(held.agent.request, await self._with_engine(place))
            self.facts.interrupt = str(answer.get("interrupt", "signal"))
            self.facts.devices = [each for each in answer.get("devices") or [] if isinstance(each, dict)]
            self._note_directory(answer, held)
            self._save()
            self.engine.started(answer.get("engine"), held.agent)
            self._attach_soon()
        except AgentGone:
            log.info("kernel %s: the link ended before it was started", self.id)
        except FarkernelError as error:
            self._end(reason_from_error(error.as_dict()))

    async def _ask_resources(self) -> None:
        """In the first cell, where the configuration says so; once for each allocation."""
        names = () if self.facts.asked else self._owner.questions(self.target)
        if not names:
            return
        self._interview = Interview(self._owner.user, self._answerer, self.local, self.facts.front == "argv")
        try:
            look = partial(self._owner.free, self.target)
            self.facts.answers = await self._interview.hold(self.target, names, look)
        finally:
            self._interview = None
        self.facts.asked = True
        self._save()
        self.target = self._owner.target_of(self.facts)
        self._show_answers()

    def _show_answers(self) -> None:
        self.local.show_asked_for(answers_text(self.facts.answers) if self.facts.answers else "")

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
        self._save()

    def _count_anew(self) -> None:
        """The next life is another agent's: that one counts its messages from 1, and may still have a former life under
        the former name.
        """
        self.facts.far, self.facts.base = f"{self.id}.{self.facts.life}", self.local.seen()

    def moved(self, former: str, why: str) -> None:
        """Said in the next cell: what it had in memory is not there."""
        text = (
            f"[farkernel] {former} {why.rstrip('.')}. This kernel was started on {self.target.name} instead, another "
            f"member of the pool {self.facts.target}.\n"
        )
        self.local.notes.say_once(text, _nothing)

    async def _look_for_left_behind(self, held: HeldAllocation) -> None:
        """The notebook may have a kernel there that this keeper does not know: of another machine, or a lost state."""
        rows = (await held.agent.request("list")).get("kernels") or []
        name = left_behind(rows, self.facts.entry, self.facts.notebook)
        if name is None or name == self.far:
            return
        try:
            about = Adopted.from_answer(await held.agent.request("adopt", kernel=name))
        except (FarkernelError, KeyError, TypeError, ValueError) as error:
            log.warning("kernel %s: %s cannot be taken up: %s", self.id, name, error)
            return
        self.adopt(about)
        text = (
            f"[farkernel] This notebook's kernel was still there ({about.origin()}) and has been taken up with all "
            f"that it had. For a fresh one, restart it. What its cells printed meanwhile: farkernel output "
            f"{self.id[:8]} --into NOTEBOOK.ipynb\n"
        )
        self.local.notes.say_once(text, _nothing)

    async def _take_spare(self, held: HeldAllocation, place: dict[str, Any] | None) -> None:
        arguments = self._start_arguments(place)
        if arguments.get("devices") or self.target.cluster:
            return  # a spare would keep a GPU from those who need it now, and has no engine
        about = await spares.claim(held.agent, arguments)
        if about is not None:
            self.adopt(about)
        self._spare_arguments = arguments

    def _replenish(self) -> None:
        """The kernel is live: now there is time for the next one."""
        arguments, self._spare_arguments = self._spare_arguments, None
        if arguments is not None and self.allocation is not None:
            work = spares.replenish(self.allocation.agent, arguments, self.target.warm)
            self._chore(work, "start spares")

    def come_back(self, about: Adopted) -> None:
        """Another keeper had taken it, and this one takes it back."""
        self._close_channels()
        self.facts.reason = None
        self._move(KernelState.WAITING)
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
        self._save()
        self.local.take_up(about.key, about.received)

    def stop_paid(self, member: str) -> None:
        """Its agent (on that member of a pool) has heard that it was given up."""
        if self.facts.left.pop(member, None) is None:
            self.facts.owed = False
        self._save()

    def _enter(self) -> HeldAllocation:
        held = self._owner.allocation_for(self.target, self.id)
        if self.allocation is not held:
            if self.allocation is not None:
                self.allocation.leave(self, self.local.say_waiting)
            self.allocation = held
            held.enter(self, self.local.say_waiting)
            held.await_answers(self, self.local.awaits)
            self.facts.allocation = held.key
        return held

    def _start_arguments(self, notebook: dict[str, Any] | None) -> dict[str, Any]:
        target, facts = self.target, self.facts
        return {
            "kernel": self.far,
            "life": facts.far_life,
            "env": {**facts.env, **dict(target.env)},
            "unset": list(target.unset),
            "cwd": target.cwd,
            "notebook": notebook,
            **surroundings(target, facts.settings.get("argv")),
            **devices(target),
            "key": facts.far_key,
            "interrupt": None,
            "keep": target.keep,
            "journal": target.journal,
            "label": {
                "entry": facts.entry,
                "notebook": facts.notebook,
                "target": facts.target,
                "settings": facts.settings,
                "answers": facts.answers,
                "host": platform.node(),
            },
        }

    async def _with_engine(self, place: dict[str, Any] | None) -> dict[str, Any]:
        cluster = await engines.wanted(self.target)
        if cluster:
            count = cluster["cluster"]["nodes"]
            where = f"across {count} nodes" if count > 1 else "beside it"
            self.local.say_waiting(f"its engine ({self.target.cluster}) is being started {where}")
        return {**self._start_arguments(place), **cluster}

    def engine_changed(self, engine: dict[str, Any] | None) -> None:
        self.facts.engine = engine
        self._save()

    def engine_said(self, text: str) -> None:
        self.local.notes.say_notice(text)

    async def open_dashboard(self, port: int, same_machine: bool) -> engines.Dashboard:
        return await self._owner.open_dashboard(self, port, same_machine)

    def _note_directory(self, answer: dict[str, Any], held: HeldAllocation) -> None:
        text = working_directory.note(answer, self.target, self.facts.cwd, _host(held))
        if text != self.facts.said:
            self.facts.note = text
            self._say_note()

    def _say_note(self) -> None:
        if self.facts.note:
            self.local.notes.say_once(self.facts.note, self._note_said)

    def _note_said(self) -> None:
        self.facts.said, self.facts.note = self.facts.note, ""
        self._save()

    # tenant of an allocation

    def agent_fresh(self) -> None:
        self._channels.clear()
        if self.facts.started and self.state is not KernelState.ENDED and not self._is_starting():
            self._attach_soon()
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
            self._far_state(str(event.get("state")), event.get("reason"))

    def _taken(self, by: Any) -> None:
        where = str(by.get("host") or "another machine") if isinstance(by, dict) else "another machine"
        self._channels = {}
        text = f"your keeper on {where[:100]} has taken it over, and it runs on there"
        self._end(
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
        if self._interview is not None:
            self._interview.cell_came()
        if self._interview is not None or (held is not None and not held.up):
            self._answerer.cell_waits(held)

    def notice(self, sentence: str) -> None:
        self.local.notes.say_notice(sentence)

    def allocation_lost(self, error: FarkernelError) -> None:
        held, self.allocation = self.allocation, None
        over = {"over": True} if held is not None and held.costly is not None else {}
        self._end({**reason_from_error(error.as_dict()), **over})

    def allocation_emptied(self, reason: Mapping[str, Any]) -> None:
        if self.state is KernelState.LIVE:
            self._end({"tail": "", **reason})

    def _is_starting(self) -> bool:
        return self._bringing is not None and not self._bringing.done()

    def _attach_soon(self) -> None:
        if self._attaching is not None:
            self._attaching.cancel()
        self._attaching = self._chore(self._attach(), "attach")

    async def _attach(self) -> None:
        held = self.allocation
        if held is None:
            return
        self._close_channels()
        self._channels = {
            name: held.agent.open_channel(priority, partial(self._from_kernel, name))
            for name, priority in _PRIORITIES.items()
        }
        try:
            received = self._received()
            answer = await held.agent.request(
                "attach", kernel=self.far, channels=self._channels, received=received
            )
        except (SessionLost, AgentGone):
            return  # the next fresh session attaches again
        except FarkernelError as error:
            held.agent.forget_channels(self._channels.values())
            self._channels = {}
            if isinstance(error, RemoteError) and error.remote_kind == NO_KERNEL:
                error = KernelGone(_host(held) or self.facts.target)
            self._end(reason_from_error(error.as_dict()))
            return
        first = answer.get("first") or {}
        for name, number in received.items():
            if isinstance(first.get(name), int) and first[name] > number + 1:
                self.local.notes.say_dropped(name, None, number + 1, first[name] - 1)
        self.local.attached({name: int(number) for name, number in (answer.get("taken") or {}).items()})
        self._far_state(str(answer.get("state")), answer.get("reason"))

    def _far_state(self, state: str, reason: Any) -> None:
        if self.state is KernelState.ENDED:
            return
        if state == "live" and self._channels:
            if self.state is not KernelState.LIVE:
                self._move(KernelState.LIVE)
            self.local.hand_over()
            self._idle.start()
            self._replenish()
        elif state == "ended":
            found = reason_from_agent(reason)
            if self.allocation is not None and self.allocation.costly is not None and not self._stop_asked:
                self._chore(self._end_explained(self.allocation.costly, found), "explain the end")
            else:
                self._end(found)

    async def _end_explained(self, costly: Costly, reason: dict[str, Any]) -> None:
        """What ends a job ends its kernels by a signal: the scheduler knows better than the agent why."""
        because = None
        if reason.get("kind") != "oom" and (reason.get("kind") != "exit" or reason.get("status")):
            with contextlib.suppress(FarkernelError, TimeoutError):
                because = await costly.explain()
        self._end({**reason, **(because or {})})

    # messages

    def _received(self) -> dict[str, int]:
        """As its present agent counts."""
        return {
            name: max(number - self.facts.base.get(name, 0), 0)
            for name, number in self.local.received().items()
        }

    def _from_kernel(self, name: str, data: Buffer) -> None:
        """One message of the kernel; an empty one is the end of the channel."""
        if not data:
            return
        try:
            number, when, body = unpack_message(data)
            frames = decode_message(body)
        except ValueError as error:
            log.error("kernel %s: unreadable message on %s: %s", self.id, name, error)
            return
        channel, size = self._channels.get(name, 0), len(data)
        number += self.facts.base.get(name, 0)
        self.local.from_kernel.take(name, number, when, frames, partial(self._consumed, channel, size))

    def _consumed(self, channel: int, size: int) -> None:
        if self.allocation is not None:
            self.allocation.agent.consumed(channel, size)
            self.allocation.agent.driver.pump()
        if self._acknowledge is None:
            self._acknowledge = self._loop.call_later(_ACKNOWLEDGE_EVERY, self._tell_received)

    def _tell_received(self) -> None:
        self._acknowledge = None
        if self.allocation is not None and self._channels:
            self.allocation.agent.tell("received", kernel=self.far, numbers=self._received())

    def to_kernel(self, channel: str, number: int, frames: Sequence[Buffer]) -> None:
        """Called by the local end, in order of numbers.  Raises `MessageTooLarge`."""
        if self.allocation is not None and channel in self._channels:
            self.allocation.agent.send(self._channels[channel], pack_request(number, encode_message(frames)))

    def after_delivery(self, callback: Callable[[], None]) -> None:
        if self.allocation is not None:
            self.allocation.agent.driver.after_delivery(callback)
        else:
            self._loop.call_soon(callback)

    def info_seen(self, info: dict[str, Any]) -> None:
        self._owner.remember_info(self.facts.entry, info)

    # acts

    async def interrupt(self) -> None:
        """In every state: what waits is given back as interrupted, what runs gets the kernel's own
        kind of interrupt.
        """
        if self.state is not KernelState.LIVE:
            self.local.interrupt_held()
            self._answerer.leave()
            return
        if self.allocation is not None and self.allocation.up:
            await self._interrupt_there(self.allocation)
        elif self.allocation is not None:
            # Whoever asked need not wait for the link.  Interrupts overtake cells on it, and what is meant may be a
            # cell that has not got there.
            self.local.starts.when_running(partial(self._interrupt_soon_there, self.allocation))

    def _interrupt_soon_there(self, held: HeldAllocation) -> None:
        if self.state is KernelState.LIVE:
            self._chore(self._interrupt_there(held), "interrupt")

    async def _interrupt_there(self, held: HeldAllocation) -> None:
        answer = await held.agent.request("interrupt", kernel=self.far)
        if answer.get("how") == "message":
            self.local.send_interrupt_request()

    def interrupt_soon(self) -> None:
        self._chore(self.interrupt(), "interrupt")

    @property
    def interrupts_by_message(self) -> bool:
        return self.facts.interrupt == "message"

    async def signal(self, signum: int) -> None:
        if self.allocation is not None and self.state is KernelState.LIVE:
            await self.allocation.agent.request("signal", kernel=self.far, signum=signum, group=True)

    def shutdown(self, restart: bool) -> None:
        """The user wants it ended: let the held shutdown_request go, so that the kernel can end by itself."""
        self._stop_asked = True
        self._stopped_because = "it was shut down for a restart" if restart else "it was shut down on request"
        if self.state is KernelState.LIVE:
            self.local.shutdown.release()
        else:
            self.local.shutdown.drop(answer=True)
            self._chore(self.stop(now=True, text="stopped before it had started"), "stop")

    async def stop(self, now: bool, text: str = "stopped on request") -> None:
        """End this life and wait until it has ended."""
        self._stop_asked = True
        if self.state is KernelState.ENDED:
            return
        held, asked = self.allocation, self.facts.started
        if self._bringing is not None and not self._bringing.done():
            self._bringing.cancel()
        if held is None or not asked or not held.up:
            # Nobody there to be asked now.  What was started is ended by the agent's own `keep`, or when it
            # is found again.
            if asked:
                self.facts.owed = True
                if held is not None:
                    held.owe_stop(self.far, partial(self.stop_paid, self.facts.member))
                else:  # a keeper has just started, and it is not known yet which allocation this is in
                    self._owner.owe_stop(self)
            self._end({"kind": self._stop_kind, "text": text, "tail": ""})
            return
        self._stopped_because = text
        life = self.facts.life
        try:
            await held.agent.request("stop", kernel=self.far, grace=0 if now else _STOP_GRACE)
        except FarkernelError as error:
            log.warning("kernel %s: could not be stopped: %s", self.id, error)
        if self.facts.life == life:  # it may have been started again meanwhile
            self._end({"kind": self._stop_kind, "text": text, "tail": ""})

    async def read_log(self, size: int) -> str:
        """The end of what it wrote on stdout and stderr: all of it from the agent, or what is known here."""
        held = self.allocation
        if held is None or not held.up or not self.facts.started:
            return str((self.facts.reason or {}).get("tail", ""))
        answer = await held.agent.request("log", kernel=self.far, size=size)
        return str(answer.get("text", ""))

    def detach(self) -> None:
        """The front end goes away, the kernel stays."""
        self.local.shutdown.drop(answer=False)
        self.facts.detached = True
        self._save()

    # front ends

    def front_came(self, front: object) -> None:
        self.fronts.add(front)
        self.facts.detached = False
        if self._keep is not None:
            self._keep.cancel()
            self._keep = None

    def front_left(self, front: object) -> None:
        self.fronts.discard(front)
        if self.fronts or self.gone:
            return
        if self.state is KernelState.ENDED:
            self._chore(self.close(forget=True), "close")
        elif self._keep is None:
            self._keep_for(self._patience(), 0)

    def _patience(self) -> int | None:
        """How long it lives on without a front end.

        One that waits in a queue for a program that was killed (nbclient, papermill), and that no notebook can come
        back to, is wanted by nobody: its job must not start for that (DESIGN §3, promise 4).
        """
        facts, keep = self.facts, self.target.keep
        lost = facts.front == "provisioner" and not facts.notebook and not facts.detached
        if lost and self.state is not KernelState.LIVE and not self.target.address.is_host:
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
            self._chore(self._stop_unwatched(), "keep")

    async def _stop_unwatched(self) -> None:
        self._stop_kind = "keep"
        why = f"nobody came back to it within {self._patience()} s (keep)"
        if self._patience() != self.target.keep:
            why = "the program that asked for it ended while it waited, and no notebook can come back to it"
        await self.stop(now=False, text=why)
        await self.close(forget=True)

    def _is_idle(self) -> None:
        self._chore(self._stop_idle(), "idle")

    async def _stop_idle(self) -> None:
        """The allocation is given back, whether somebody still looks at the kernel or not."""
        self._stop_kind = "idle"
        await self.stop(
            now=False, text=f"nothing was run in it for {duration_text(self.target.idle or 0)} (idle)"
        )
        held, self.allocation = self.allocation, None
        if held is not None:
            held.leave(self, self.local.say_waiting)

    # the end

    def _end(self, reason: dict[str, Any]) -> None:
        if self.state is KernelState.ENDED:
            return
        wanted = self._stop_asked
        if wanted and reason.get("kind") in ("exit", "signal", "stopped"):
            # The agent knows how it ended, we know why.
            reason = {
                **reason,
                "kind": self._stop_kind,
                "text": self._stopped_because or reason.get("text", ""),
            }
        self.facts.reason = reason
        self.engine.close()
        self._idle.stop()
        self._answerer.leave()
        self._move(KernelState.ENDED)
        log.info("kernel %s has ended: %s", self.id, reason.get("text", ""))
        self.local.kernel_ended(reason, wanted)
        self._ended.set()
        self._tell_watchers()
        if not self.fronts:
            self._chore(self.close(forget=True), "close")

    async def wait_ended(self) -> None:
        await self._ended.wait()

    async def close(self, forget: bool) -> None:
        """Give up the local end.  With ``forget`` the kernel has ended for good, and the agent may
        clear up after it.
        """
        if self.gone:
            return
        self.gone = True
        self.engine.close()
        self._idle.stop()
        for timer in (self._keep, self._acknowledge):
            if timer is not None:
                timer.cancel()
        self._answerer.leave()
        held, self.allocation = self.allocation, None
        if held is not None and forget:
            if held.up:
                with contextlib.suppress(FarkernelError, TimeoutError):
                    async with asyncio.timeout(5):
                        await held.agent.request("forget", kernel=self.far)
            for channel in self._channels.values():
                held.agent.close_channel(channel)
            held.leave(self, self.local.say_waiting, for_good=forget)
        await self.local.close(forget)
        if forget:
            self._save()
            self._owner.kernel_over(self)
        current = asyncio.current_task()
        for task in list(self._chores):
            if task is not current:
                task.cancel()

    # inside

    def _close_channels(self) -> None:
        if self.allocation is not None:
            for channel in self._channels.values():
                self.allocation.agent.close_channel(channel)
        self._channels = {}

    def _move(self, new: KernelState) -> None:
        old = self.state
        if new not in MOVES[old]:
            raise IllegalMove(self.id, old, new)
        self.facts.state = new.value
        self.facts.since = time.time()
        self._save()
        if new is not KernelState.ENDED:
            self._tell_watchers()

    def _save(self) -> None:
        self._owner.save(self.facts)

    def _tell_watchers(self) -> None:
        for watcher in list(self.watchers):
            watcher(self)

    def _chore(self, work: Any, name: str) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = self._loop.create_task(work, name=f"{name} {self.id}")
        self._chores.add(task)
        task.add_done_callback(self._chore_done)
        return task

    def _chore_done(self, task: asyncio.Task[Any]) -> None:
        self._chores.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("kernel %s: %s failed", self.id, task.get_name(), exc_info=task.exception())


def surroundings(target: Target, argv: object = None) -> dict[str, Any]:
    """Which kernel, and what it is started in, as `start` and `look` take it (docs/architecture.md §4)."""
    return {
        **({"argv": argv} if argv else kernel_of(target)),
        "modules": list(target.modules),
        "conda": target.conda,
        "before": target.before,
        "container": target.container,
    }


def _host(held: HeldAllocation) -> str:
    """What the machine of the agent calls itself."""
    return one_line(held.agent.link.peer.get("about", {}).get("host") or "")[:100]


def _nothing() -> None:
    """Nobody needs to know that it was said."""
