"""A kernel's way up: questions to its user, an allocation, and then a kernel there that waits for it, or a new one."""

from __future__ import annotations

import logging
import platform
from collections.abc import Awaitable
from functools import partial
from typing import Any, Protocol

from ...backends import kernel_of
from ..configuration import Target
from ..errors import FarkernelError
from ..local_end.local_end import LocalEnd
from ..text import one_line
from . import engines, spares, working_directory
from .adopted import Adopted, left_behind
from .allocations import HeldAllocation
from .cell_answers import CellAnswerer
from .facts import Facts, KernelState, reason_from_error
from .far_agent import AgentGone
from .programs import devices, start
from .resource_questions import Interview, answers_text
from .user import KeeperUser
from .working_directory import notebook_directory

log = logging.getLogger(__name__)


class Keeper(Protocol):
    """What is asked of the keeper on the way."""

    @property
    def user(self) -> KeeperUser: ...

    async def inquire(self, target: Target) -> None: ...
    def target_of(self, facts: Facts) -> Target: ...
    def questions(self, target: Target) -> tuple[str, ...]: ...
    async def free(self, target: Target) -> str: ...


class Newcomer(Protocol):
    """The kernel."""

    id: str
    facts: Facts
    target: Target
    local: LocalEnd
    engine: engines.EngineWatch

    @property
    def far(self) -> str: ...
    @property
    def state(self) -> KernelState: ...
    def enter(self) -> HeldAllocation: ...
    def place(self) -> Awaitable[None]: ...
    def adopt(self, about: Adopted) -> None: ...
    def move(self, new: KernelState) -> None: ...
    def save(self) -> None: ...
    def attach_soon(self) -> None: ...
    def end(self, reason: dict[str, Any]) -> None: ...


class BringingUp:
    """Of one kernel; `run` for each of its lives."""

    def __init__(self, kernel: Newcomer, keeper: Keeper, answerer: CellAnswerer) -> None:
        self.interview: Interview | None = None
        """held at this moment"""
        self._kernel = kernel
        self._keeper = keeper
        self._answerer = answerer
        self._spare_arguments: dict[str, Any] | None = None

    async def run(self) -> None:
        """Ends by `attach_soon`, or by `end` with the reason."""
        try:
            if not self._kernel.target.address.is_host:
                await self._ask_resources()
            if self._kernel.target.address.members:
                await self._kernel.place()
            await self._keeper.inquire(self._kernel.target)
            held = self._kernel.enter()
            self._kernel.facts.started = True
            if self._kernel.state is KernelState.WAITING:
                self._kernel.move(KernelState.STARTING)
            if held.costly is not None and not held.up:
                # A queue may take hours, and what is known of a directory changes whenever the notebook is saved.
                await held.agent.request("list")
            place = await notebook_directory(self._kernel.facts.cwd)
            if self._kernel.facts.notebook and self._kernel.facts.far_life == 1:
                await self._look_for_left_behind(held)
            await self._ask_resources()
            if self._kernel.target.warm and self._kernel.facts.far_life == 1 and not self._kernel.facts.far:
                await self._take_spare(held, place)
            answer = await start(held.agent.request, await self._with_engine(place))
            self._kernel.facts.interrupt = str(answer.get("interrupt", "signal"))
            self._kernel.facts.devices = [
                each for each in answer.get("devices") or [] if isinstance(each, dict)
            ]
            self._note_directory(answer, held)
            self._kernel.save()
            self._kernel.engine.started(answer.get("engine"), held.agent)
            self._kernel.attach_soon()
        except AgentGone:
            log.info("kernel %s: the link ended before it was started", self._kernel.id)
        except FarkernelError as error:
            self._kernel.end(reason_from_error(error.as_dict()))

    async def _ask_resources(self) -> None:
        """In the first cell, where the configuration says so; once for each allocation."""
        names = () if self._kernel.facts.asked else self._keeper.questions(self._kernel.target)
        if not names:
            return
        self.interview = Interview(
            self._keeper.user, self._answerer, self._kernel.local, self._kernel.facts.front == "argv"
        )
        try:
            look = partial(self._keeper.free, self._kernel.target)
            self._kernel.facts.answers = await self.interview.hold(self._kernel.target, names, look)
        finally:
            self.interview = None
        self._kernel.facts.asked = True
        self._kernel.save()
        self._kernel.target = self._keeper.target_of(self._kernel.facts)
        self.show_answers()

    async def _look_for_left_behind(self, held: HeldAllocation) -> None:
        """The notebook may have a kernel there that this keeper does not know: of another machine, or a lost state."""
        rows = (await held.agent.request("list")).get("kernels") or []
        name = left_behind(rows, self._kernel.facts.entry, self._kernel.facts.notebook)
        if name is None or name == self._kernel.far:
            return
        try:
            about = Adopted.from_answer(await held.agent.request("adopt", kernel=name))
        except (FarkernelError, KeyError, TypeError, ValueError) as error:
            log.warning("kernel %s: %s cannot be taken up: %s", self._kernel.id, name, error)
            return
        self._kernel.adopt(about)
        text = (
            f"[farkernel] This notebook's kernel was still there ({about.origin()}) and has been taken up with all "
            f"that it had. For a fresh one, restart it. What its cells printed meanwhile: farkernel output "
            f"{self._kernel.id[:8]} --into NOTEBOOK.ipynb\n"
        )
        self._kernel.local.notes.say_once(text, nothing)

    async def _take_spare(self, held: HeldAllocation, place: dict[str, Any] | None) -> None:
        arguments = self._start_arguments(place)
        if arguments.get("devices") or self._kernel.target.cluster:
            return  # a spare would keep a GPU from those who need it now, and has no engine
        about = await spares.claim(held.agent, arguments)
        if about is not None:
            self._kernel.adopt(about)
        self._spare_arguments = arguments

    def replenish(self, held: HeldAllocation) -> Awaitable[None] | None:
        """The kernel is live: now there is time to start the next spare; None: none is wanted."""
        arguments, self._spare_arguments = self._spare_arguments, None
        return (
            None if arguments is None else spares.replenish(held.agent, arguments, self._kernel.target.warm)
        )

    def _start_arguments(self, notebook: dict[str, Any] | None) -> dict[str, Any]:
        target, facts = self._kernel.target, self._kernel.facts
        return {
            "kernel": self._kernel.far,
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
        cluster = await engines.wanted(self._kernel.target)
        if cluster:
            count = cluster["cluster"]["nodes"]
            where = f"across {count} nodes" if count > 1 else "beside it"
            self._kernel.local.say_waiting(
                f"its engine ({self._kernel.target.cluster}) is being started {where}"
            )
        return {**self._start_arguments(place), **cluster}

    def _note_directory(self, answer: dict[str, Any], held: HeldAllocation) -> None:
        text = working_directory.note(answer, self._kernel.target, self._kernel.facts.cwd, host_of(held))
        if text != self._kernel.facts.said:
            self._kernel.facts.note = text
            self.say_note()

    def show_answers(self) -> None:
        answers = self._kernel.facts.answers
        self._kernel.local.show_asked_for(answers_text(answers) if answers else "")

    def say_note(self) -> None:
        if self._kernel.facts.note:
            self._kernel.local.notes.say_once(self._kernel.facts.note, self._note_said)

    def _note_said(self) -> None:
        self._kernel.facts.said, self._kernel.facts.note = self._kernel.facts.note, ""
        self._kernel.save()


def surroundings(target: Target, argv: object = None) -> dict[str, Any]:
    """Which kernel, and what it is started in, as `start` and `look` take it (docs/architecture.md §4)."""
    return {
        **({"argv": argv} if argv else kernel_of(target)),
        "modules": list(target.modules),
        "conda": target.conda,
        "before": target.before,
        "container": target.container,
    }


def host_of(held: HeldAllocation) -> str:
    """What the machine of the agent calls itself."""
    return one_line(held.agent.link.peer.get("about", {}).get("host") or "")[:100]


def nothing() -> None:
    """Nobody needs to know that it was said."""
