"""What a target's `ask` names is asked in the first cell, before anything is allocated (DESIGN §5).

Front ends that cannot ask (nbclient, papermill) get the defaults; so does one that runs a menu entry's argv and waits
for something of its own to be answered before it lets anybody run a cell.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Protocol

from ...backends.contract import NotAnswered, Question
from ..configuration import Target
from ..errors import FarkernelError
from ..settings import (
    OPENCL,
    RESOURCE_KEYS,
    InvalidValue,
    Resources,
    count,
    duration_text,
    positive,
    size_text,
)
from ..text import one_line
from .cell_answers import CellAnswerer
from .user import KeeperUser

#: For looking what is free; whoever waits would rather answer than wait longer.
LOOK = 8.0
_BACKGROUND_PATIENCE = 15.0

Answers = dict[str, Any]
"""As they would stand in TOML."""

# What is typed after these; where a host is its own scheduler, the others mean nothing there.
_PROMPTS = {
    "gpus": "GPUs",
    "gpu_type": "Type of GPU",
    "gpu_memory": "Memory of each GPU, such as 20G",
    "opencl": f"OpenCL device ({', '.join(OPENCL)})",
    "cpus": "CPUs",
    "memory": "Memory, such as 16G",
    "time": "Time, such as 30m or 4h",
    "nodes": "Nodes",
}
_OF_HOSTS = frozenset({"gpus", "gpu_memory", "opencl"})
_NUMBERS = (count, positive)
_TEXTS: Mapping[str, Callable[[int], str]] = {
    "time": duration_text,
    "memory": size_text,
    "gpu_memory": size_text,
}


def questions(target: Target, members: Collection[Target] = ()) -> tuple[str, ...]:
    """The resources to be asked for there; ``members`` are those of a pool."""
    hosts = all(each.address.is_host for each in members or [target])
    boards = any(each.address.scheme in ("serial", "webrepl") for each in members or [target])
    return tuple(
        name for name in dict.fromkeys(target.ask) if (not hosts or name in _OF_HOSTS) and not boards
    )


def defaults(resources: Resources, names: Collection[str]) -> Answers:
    """What is taken when nobody is asked, of what the configuration says."""
    found = {name: getattr(resources, name) for name in names}
    return {
        name: _TEXTS[name](value) if name in _TEXTS else value
        for name, value in found.items()
        if value is not None
    }


def read(name: str, words: str) -> Any:
    """What somebody typed, as it would stand in TOML; raises `InvalidValue`, as the configuration does."""
    parse, typed = RESOURCE_KEYS[name], words.strip()
    number = parse in _NUMBERS and re.fullmatch(r"[0-9]{1,9}", typed, re.ASCII)
    value: object = int(typed) if number else typed
    parse(value)
    return value


def prompt(name: str, default: object) -> str:
    return f"{_PROMPTS[name]} [{'as usual there' if default is None else default}]: "


def answers_text(answers: Mapping[str, Any]) -> str:
    """In a few words: "gpus 2, time 4h"."""
    return (
        ", ".join(f"{name} {one_line(value)}" for name, value in answers.items()) or "whatever is usual there"
    )


class Cells(Protocol):
    """What is needed of a kernel's local end."""

    @property
    def awaits(self) -> bool: ...
    def can_be_asked(self) -> bool | None: ...
    def say_waiting(self, sentence: str) -> None: ...
    def say_once(self, text: str, said: Callable[[], None]) -> None: ...


class Interview:
    """One kernel's questions.  ``argv``: its front end knows nothing but a command."""

    def __init__(self, user: KeeperUser, answerer: CellAnswerer, cells: Cells, argv: bool) -> None:
        self._user = user
        self._answerer = answerer
        self._cells = cells
        self._argv = argv
        self._came = asyncio.Event()

    def cell_came(self) -> None:
        """Somebody has run one."""
        self._came.set()

    async def hold(
        self, target: Target, names: Collection[str], look: Callable[[], Awaitable[str]]
    ) -> Answers:
        """Wait for a cell, and ask there until every answer is good; ``look`` says what is free.

        An interrupt takes the cell back: then the next one is waited for, and nothing has been allocated meanwhile.
        """
        found = defaults(target.resources, names)
        self._cells.say_waiting("asks what the kernel shall have, when the first cell is run")
        self._answerer.interviewed = True
        try:
            while True:
                if not await self._cell():
                    text = (
                        f"[farkernel] {target.name} asks for {' and '.join(names)}, which this front end cannot: taken "
                        f"is what the configuration says ({answers_text(found)})\n"
                    )
                    self._cells.say_once(text, _nothing)
                    return found
                self._answerer.cell_waits(None)
                try:
                    return await self._ask_all(target, names, found, look)
                except NotAnswered:
                    self._came.clear()
        finally:
            self._answerer.interviewed = False
            self._answerer.leave()

    async def _cell(self) -> bool:
        """Wait for one; whether somebody can be asked there."""
        while (can := self._cells.can_be_asked()) is None:
            self._came.clear()
            patience = _BACKGROUND_PATIENCE if self._argv and self._cells.awaits else None
            try:
                await asyncio.wait_for(self._came.wait(), patience)
            except TimeoutError:
                return False
        return can

    async def _ask_all(
        self, target: Target, names: Collection[str], found: Answers, look: Callable[[], Awaitable[str]]
    ) -> Answers:
        self._cells.say_waiting("looking what is free")
        head = (
            f"{target.name}: what shall this kernel have? Enter takes what stands in brackets; interrupt takes the "
            f"cell back.\nThere now: {await self._free(look)}\n"
        )
        given = {}
        for name in names:
            value = await self._ask(target, name, head, found.get(name))
            if value is not None:
                given[name] = value
            head = ""
        self._cells.say_waiting("starting")
        return given

    async def _ask(self, target: Target, name: str, head: str, default: object) -> Any:
        """One answer; None: nothing was typed, and there is no default."""
        while True:
            text = head + prompt(name, default)
            question = Question(self._answerer.host, text, hidden=False, kernel=self._answerer.kernel)
            typed = await self._user.ask(question)
            if not typed.strip():
                return default
            try:
                return read(name, typed)
            except InvalidValue as error:
                head = f"{name!r} {error.what}. {error.advice}.\n"

    async def _free(self, look: Callable[[], Awaitable[str]]) -> str:
        """What is free, if that can be had soon; a login on the way that is asked for in the cell takes its time."""
        looking = asyncio.ensure_future(look())
        try:
            while not looking.done():
                done, _ = await asyncio.wait({looking}, timeout=LOOK)
                if not done and not self._answerer.is_asked:
                    return f"not known (no answer within {LOOK:g} s)"
            return looking.result() or "not known"
        except FarkernelError as error:
            return f"not known ({one_line(error.what)[:200]})"
        finally:
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError, FarkernelError):
                await looking


def _nothing() -> None:
    """Nobody needs to know that it was said."""
