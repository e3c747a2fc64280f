"""A job from its name to its end, through real commands (the stand-in for OpenPBS) whose answers get lost."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from farkernel.backends.batch import cluster as cluster_module
from farkernel.backends.batch import submission as module
from farkernel.backends.batch.cluster import Cluster
from farkernel.backends.batch.contract import (
    Adapter,
    CannotTell,
    Command,
    EndKind,
    JobEnded,
    NoScheduler,
    Refused,
    Request,
    Said,
)
from farkernel.backends.batch.job_script import RENDEZVOUS
from farkernel.backends.batch.journal import Journal, Phase, Record
from farkernel.backends.batch.lsf import Lsf
from farkernel.backends.batch.pbs import Pbs
from farkernel.backends.batch.submission import Submission
from farkernel.backends.contract import Question
from farkernel.backends.local import LocalRoute

from ...sites.engine import wait_until
from ...sites.pbs import PbsSite


class User:
    """Lends nothing, answers nothing."""

    def environment(self) -> Mapping[str, str]:
        return {}

    async def ask(self, question: Question) -> str:
        raise AssertionError(question)


class Forgetful(Pbs):
    """Its answers to the first submissions get lost; with ``deaf`` the requests too."""

    def __init__(self, lost: int, deaf: bool = False) -> None:
        self.lost = lost
        self.deaf = deaf

    def submit(self, request: Request, script: str) -> Command:
        command = super().submit(request, "#!/bin/sh\nsleep 60\n")
        return Command(("true",)) if self.deaf and self.lost else command

    def submitted(self, said: Said) -> str:
        if self.lost:
            self.lost -= 1
            raise CannotTell(self.title, "the answer was lost")
        return super().submitted(said)


@pytest.fixture
def site(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PbsSite]:
    site = PbsSite(home / "pbs", "pbs", slots=5)
    monkeypatch.setenv("PATH", str(site.bin), prepend=":")
    monkeypatch.setattr(module, "SETTLE", 0.5)
    yield site
    site.stop()


class Case:
    """One submission with its journal."""

    def __init__(self, home: Path, adapter: Adapter, queue: str | None = None) -> None:
        self.sentences: list[str] = []
        self.directory = home / "jobs"
        self.journal = Journal(self.directory)
        self.cluster = Cluster(adapter, LocalRoute(User()))
        self.record = Record("pbs:///workq#k", "pbs:///workq", "fk-k-123456")
        self.submission = Submission(
            self.cluster, self.journal, self.record, Request(self.record.name, queue)
        )

    async def running(self, written_down: bool = False) -> str:
        return (await self.submission.running(self.sentences.append, written_down)).id

    @property
    def written(self) -> dict[str, Any]:
        (path,) = self.directory.glob("*.json")
        return dict(json.loads(path.read_bytes()))


def play(work: Coroutine[Any, Any, None]) -> None:
    async def all_of_it() -> None:
        async with asyncio.timeout(50):
            try:
                await work
            finally:
                # Commands that were hung up on are still being collected, and some of the tasks begin others.
                while others := asyncio.all_tasks() - {asyncio.current_task()}:
                    await asyncio.gather(*others, return_exceptions=True)

    asyncio.run(all_of_it())


def test_an_answer_that_was_lost(site: PbsSite, home: Path) -> None:
    """The job was taken: it is found by its name, and not sent again."""

    async def act() -> None:
        case = Case(home, Forgetful(1))
        assert await case.running() == "0.ctl"
        assert (case.written["phase"], case.written["job"]) == ("submitted", "0.ctl")
        assert any("whether it has taken the job is being looked for" in each for each in case.sentences)
        case.submission.unwanted()
        await case.submission.cancelled()

    play(act())
    assert site.calls("qsub") == 1
    assert site.jobs() == []


def test_a_submission_that_was_lost(site: PbsSite, home: Path) -> None:
    """The scheduler says several times that there is no such job: it is sent again, once."""

    async def act() -> None:
        case = Case(home, Forgetful(1, deaf=True))
        assert await case.running() == "0.ctl"

    play(act())
    assert site.calls("qsub") == 1
    assert site.calls("qselect") >= module.LOOKS


def test_a_former_keeper_may_have_submitted(site: PbsSite, home: Path) -> None:
    async def act() -> None:
        first = Case(home, Forgetful(0))
        first.journal.save(first.record)  # as it is when the keeper is killed right after qsub
        await first.cluster.submit(first.submission._request, "")
        second = Case(home, Forgetful(0))
        record = second.journal.find("pbs:///workq#k")
        assert record is not None
        assert record.phase is Phase.SUBMITTING
        assert await second.running(written_down=True) == "0.ctl"

    play(act())
    assert site.calls("qsub") == 1


def test_one_that_is_there_twice_is_cancelled(site: PbsSite, home: Path) -> None:
    async def act() -> None:
        case = Case(home, Forgetful(0))
        await case.cluster.submit(case.submission._request, "")
        await case.cluster.submit(case.submission._request, "")
        assert await case.running(written_down=True) == "0.ctl"

    play(act())
    # PBS is asked by id once it is known; the double is found while only the name is known, and when it is cancelled.
    assert site.calls("qsub") == 2


def test_unwanted_before_anything_was_answered(site: PbsSite, home: Path) -> None:
    """Jobs of that name are looked for, and all of them go."""

    async def act() -> None:
        case = Case(home, Forgetful(0))
        case.journal.save(case.record)
        await case.cluster.submit(case.submission._request, "")
        case.submission.unwanted()
        assert case.written["phase"] == "unwanted"
        assert case.journal.find(case.record.key) is None
        await case.submission.cancelled()
        assert case.journal.load() == []

    play(act())
    assert site.jobs() == []


def test_a_refusal_is_forgotten(site: PbsSite, home: Path) -> None:
    async def act() -> None:
        case = Case(home, Forgetful(0), "nosuch")
        with pytest.raises(Refused, match="PBS refuses the job: Unknown queue"):
            await case.running()
        assert case.journal.load() == []

    play(act())


def test_no_scheduler_there(home: Path) -> None:
    async def act() -> None:
        case = Case(home, Lsf())
        with pytest.raises(NoScheduler) as caught:
            await case.running()
        assert "LSF's command bsub is not found" in caught.value.what
        assert "PATH" in caught.value.advice

    play(act())


def test_the_end_of_a_job_that_nobody_watched(site: PbsSite, home: Path) -> None:
    async def act() -> None:
        case = Case(home, Forgetful(0))
        number = await case.running()
        site.limit_reached(number)
        with pytest.raises(JobEnded, match="its time limit was reached") as caught:
            await case.running()
        assert caught.value.end.kind is EndKind.TIME_LIMIT
        assert case.journal.load() == []
        end = await case.submission.why_it_ended(1.0)
        assert end is not None
        assert end.kind is EndKind.TIME_LIMIT

    play(act())


def test_a_job_that_runs_has_not_ended(site: PbsSite, home: Path) -> None:
    async def act() -> None:
        case = Case(home, Forgetful(0))
        await case.running()
        assert await case.submission.why_it_ended(5.0) is None

    play(act())


def test_many_wait_by_one_query(site: PbsSite, home: Path) -> None:
    """Ten jobs, and not more looks than seconds."""
    (site.directory / "slots").write_text("0")

    async def act() -> None:
        cluster = Cluster(Forgetful(0), LocalRoute(User()))
        journal = Journal(home / "jobs")
        records = [Record(f"key-{number}", "pbs:///workq", f"fk-{number}") for number in range(10)]
        waits = [
            asyncio.create_task(
                Submission(cluster, journal, each, Request(each.name)).running(_ignore, False)
            )
            for each in records
        ]
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(3)
        assert 1 <= site.calls("qstat") <= loop.time() - began + 2
        (site.directory / "slots").write_text("10")
        assert len({job.id for job in await asyncio.gather(*waits)}) == 10

    play(act())


def test_a_job_says_itself_that_it_has_begun(
    site: PbsSite, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its note in the home: the scheduler is asked then, and not before."""
    monkeypatch.setattr(cluster_module, "_SHORTEST", 40.0)
    (site.directory / "slots").write_text("0")

    async def act() -> None:
        case = Case(home, Forgetful(0))
        waiting = asyncio.create_task(case.running())
        await asyncio.to_thread(wait_until, lambda: site.calls("qstat"), "the first look")
        (home / RENDEZVOUS).mkdir(parents=True)
        (home / RENDEZVOUS / "fk-another").touch()
        (site.directory / "slots").write_text("1")
        subprocess.run([site.bin / "qstat", "-f"], check=True)  # noqa: ASYNC221 - somebody else's, which starts it
        await asyncio.sleep(1)
        assert site.calls("qstat") == 2
        (home / RENDEZVOUS / case.record.name).touch()
        assert await asyncio.wait_for(waiting, 20) == "0.ctl"
        assert site.calls("qstat") == 3

    play(act())


def _ignore(sentence: str) -> None:
    """Nobody reads it."""


def test_a_broken_record_hinders_no_other(home: Path) -> None:
    journal = Journal(home / "jobs")
    journal.save(Record("a", "slurm:///x", "fk-a"))
    (home / "jobs" / "fk-b.json").write_text("{")
    (home / "jobs" / "fk-c.json").write_text(
        '{"key": "c", "address": "slurm:///x", "name": "../x", "phase": "submitted"}'
    )
    assert [record.name for record in journal.load()] == ["fk-a"]
