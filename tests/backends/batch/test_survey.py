"""One look at a cluster for everybody who asks, and not often."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from farkernel.backends.batch import survey
from farkernel.backends.batch.cluster import Cluster as Scheduler
from farkernel.backends.batch.contract import CannotTell, Command, Job, Said
from farkernel.backends.batch.slurm import ADAPTER
from farkernel.backends.batch.survey import Survey
from farkernel.backends.contract import Receiver, Stream
from farkernel.launcher.discovery.cluster import Cluster


class Nowhere:
    async def open(self, command: Sequence[str], receiver: Receiver) -> Stream:
        raise AssertionError("nothing is run")


class Asked(Scheduler):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(ADAPTER, Nowhere())
        self.times = 0
        self.answer = asyncio.Event()
        self.status = 0

    async def ask(self, commands: Sequence[Command]) -> list[Said]:
        self.times += 1
        await self.answer.wait()
        return [Said(self.status, str(self.times), "") for _ in commands]


class Reader:
    def commands(self) -> Sequence[Command]:
        return [Command(("sinfo",))]

    def read(self, said: Sequence[Said]) -> Cluster:
        if said[0].status:
            raise CannotTell("Slurm", "it is frozen")
        return Cluster(release=said[0].out)

    def mine(self) -> Sequence[Command]:
        return [Command(("squeue",))]

    def my_jobs(self, said: Sequence[Said]) -> list[Job]:
        return []


def test_all_who_ask_at_once_and_soon_after_are_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        scheduler = Asked()
        looks = Survey(scheduler, Reader())
        asking = [asyncio.create_task(looks.look()) for _ in range(20)]
        await asyncio.sleep(0)
        asking[0].cancel()  # who gives up takes it from nobody
        scheduler.answer.set()
        found = await asyncio.gather(*asking[1:])
        assert {each.release for each in found} == {"1"}
        assert found[0].time is not None
        assert (await looks.look()).release == "1"
        assert scheduler.times == 1
        monkeypatch.setattr(survey, "FRESH", 0.0)
        looks = Survey(scheduler, Reader())
        assert (await looks.look()).release == "2"
        assert (await looks.look()).release == "3"

    asyncio.run(scenario())


def test_a_scheduler_that_fails_is_not_asked_at_once_again() -> None:
    async def scenario() -> None:
        scheduler = Asked()
        scheduler.answer.set()
        scheduler.status = 1
        looks = Survey(scheduler, Reader())
        for _ in range(5):
            with pytest.raises(CannotTell, match="it is frozen"):
                await looks.look()
        assert scheduler.times == 1

    asyncio.run(scenario())
