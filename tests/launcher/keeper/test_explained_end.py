"""The end of a kernel in a job is explained by the scheduler, which takes its time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from farkernel.backends.contract import Costly
from farkernel.launcher.keeper.kernel import Kernel


class Site:
    """A kernel in its first life, and a scheduler that answers when it is told to."""

    def __init__(self) -> None:
        self.facts = SimpleNamespace(life=1)
        self.ended: list[Mapping[str, Any]] = []
        self.answer: asyncio.Future[Mapping[str, Any] | None] = asyncio.get_running_loop().create_future()

    def end(self, reason: dict[str, Any]) -> None:
        self.ended.append(reason)

    async def explain(self) -> Mapping[str, Any] | None:
        return await self.answer

    def agent_says_ended(self) -> asyncio.Task[None]:
        reason = {"kind": "signal", "text": "It was ended by SIGKILL."}
        explained = Kernel._end_explained(cast(Kernel, self), cast(Costly, self), reason)
        return asyncio.get_running_loop().create_task(explained)


@pytest.mark.parametrize("because", [None, {"text": "the job was cancelled"}])
def test_the_schedulers_word_counts(because: Mapping[str, Any] | None) -> None:
    async def act() -> None:
        site = Site()
        ends = site.agent_says_ended()
        site.answer.set_result(because)
        await ends
        assert site.ended == [{"kind": "signal", "text": "It was ended by SIGKILL.", **(because or {})}]

    asyncio.run(act())


def test_a_life_that_has_begun_meanwhile_is_left_alone() -> None:
    """The job was seen to be over, and somebody has restarted the kernel, before the scheduler had answered."""

    async def act() -> None:
        site = Site()
        ends = site.agent_says_ended()
        await asyncio.sleep(0)
        site.facts.life = 2
        site.answer.set_result({"text": "the job was cancelled"})
        await ends
        assert site.ended == []

    asyncio.run(act())
