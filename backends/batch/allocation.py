"""A job as an allocation: waited for, entered by the way that the site allows, given back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from ..contract import Route
from .cluster import Cluster
from .contract import End, EndKind, Job
from .ends import requeued_end
from .job_script import PREFIX
from .submission import Submission
from .ways import JobRoute

log = logging.getLogger(__name__)

_EXPLAIN_DEADLINE = 18.0  # Grid Engine writes its accounts every 15 s


class BatchAllocation:
    """See `backends.contract.Allocation`."""

    def __init__(
        self, cluster: Cluster, submission: Submission, written_down: bool, owe: Callable[[Submission], None]
    ) -> None:
        self.name = PREFIX + submission.record.name
        self.job: Job | None = None
        self._cluster = cluster
        self._submission = submission
        self._written_down = written_down
        self._begun = written_down
        self._owe = owe
        self._tell_emptied: Callable[[Mapping[str, Any]], None] = _ignore

    def __repr__(self) -> str:
        return f"<BatchAllocation {self._submission!r}>"

    async def ready(self, report: Callable[[str], None]) -> Route:
        written_down, self._begun = self._begun, True
        self.job = job = await self._submission.running(report, written_down, self.job, self._requeued)
        report(f"{self._cluster.adapter.title} job {job.id} runs on {job.node}; its agent is starting")
        return JobRoute(self._cluster, job, self._submission.entrance)

    def give_up(self) -> None:
        if self._begun:
            self._submission.unwanted()

    async def release(self) -> None:
        """Returns at once; the job is cancelled as soon as that can be done."""
        if self._begun:
            self.give_up()
            self._owe(self._submission)

    def facts(self) -> dict[str, Any]:
        """For listings."""
        record, job = self._submission.record, self.job
        return {
            "job": record.job,
            "since": record.created,
            "where": job.node if job else "",
            "ends": job.ends if job else None,
            "way": self._submission.entrance.last,
        }

    async def explain(self) -> dict[str, Any] | None:
        """Why what runs in it has died, if that is because the job is over."""
        async with asyncio.timeout(_EXPLAIN_DEADLINE * 2):
            end = await self._submission.why_it_ended(_EXPLAIN_DEADLINE)
        if end is None:
            return None
        number = self._submission.record.job
        if end.kind is EndKind.REQUEUED:
            return self._emptied(end)
        text = f"the {self._cluster.adapter.title} job {number} is over: {end.text}"
        return {"kind": end.kind.value, "text": f"{text}. {end.advice}".strip(), "over": True}

    def when_emptied(self, tell: Callable[[Mapping[str, Any]], None]) -> None:
        self._tell_emptied = tell

    def _requeued(self) -> None:
        self._tell_emptied(self._emptied(requeued_end()))

    def _emptied(self, end: End) -> dict[str, Any]:
        words = end.text.removeprefix("it ")
        text = f"the {self._cluster.adapter.title} job {self._submission.record.job} {words}. {end.advice}"
        return {"kind": end.kind.value, "text": text, "emptied": True}

    async def look(self) -> float | None:
        if self.job is None:
            return None
        found = await self._cluster.look(self.job)
        if found is not None:
            self.job = found
        return self.job.ends


def _ignore(reason: Mapping[str, Any]) -> None:
    """Nobody is in it."""
