"""What a cluster has and what of it is free: asked of the scheduler once for everybody, and not often.

Readers of what the commands say are in ``slurm_survey.py`` and its likes, as pure pairs, like adapters.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from ...launcher.discovery.cluster import OURS, Cluster, MyJob, Queue, with_nodes
from ...launcher.errors import FarkernelError
from .cluster import Cluster as Scheduler
from .contract import Adapter, Command, Job, JobState, Said

log = logging.getLogger(__name__)

#: How long an answer holds: two looks a minute at most, whoever asks and however often (DESIGN §3, promise 6).
FRESH = 30.0
#: After a look that failed.
FRESH_FAILURE = 10.0


class Surveyor(Protocol):
    """One kind of scheduler.  It runs nothing."""

    def commands(self) -> Sequence[Command]:
        """Everything that `read` wants to know, the jobs of the user who asks included."""

    def read(self, said: Sequence[Said]) -> Cluster:
        """Without time; raises `CannotTell` if not even the nodes are told."""

    def mine(self) -> Sequence[Command]:
        """The jobs of the user who asks."""

    def my_jobs(self, said: Sequence[Said]) -> list[Job]:
        """Raises `CannotTell`."""


class Survey:
    """Of one scheduler, seen from one login host."""

    def __init__(self, scheduler: Scheduler, surveyor: Surveyor) -> None:
        self._scheduler = scheduler
        self._surveyor = surveyor
        self._found: Cluster | None = None
        self._failed: FarkernelError | None = None
        self._next = 0.0  # of the loop's clock: not before
        self._looking: asyncio.Task[Cluster] | None = None

    def __repr__(self) -> str:
        return f"<Survey of {self._scheduler!r}, {'known' if self._found else 'not known yet'}>"

    async def look(self) -> Cluster:
        """As it is, or was `FRESH` ago at the most.  Raises what `Scheduler.ask` raises, and `CannotTell`.

        Who gives up waiting does not take it from the others.
        """
        if self._looking is None and asyncio.get_running_loop().time() < self._next:
            if self._failed is not None:
                raise self._failed
            if self._found is not None:
                return self._found
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name=f"{self!r}")
            self._looking.add_done_callback(self._looked)
        return await asyncio.shield(self._looking)

    async def mine(self) -> list[Job]:
        """The jobs of the user, now; one small query."""
        return self._surveyor.my_jobs(await self._scheduler.ask(self._surveyor.mine()))

    async def _look(self) -> Cluster:
        began, now = time.monotonic(), time.time()
        found = self._surveyor.read(await self._scheduler.ask(self._surveyor.commands()))
        return replace(found, time=now, took=time.monotonic() - began)

    def _looked(self, task: asyncio.Task[Cluster]) -> None:
        self._looking = None
        if task.cancelled():
            return
        error = task.exception()
        self._failed = error if isinstance(error, FarkernelError) else None
        self._found = None if error is not None else task.result()
        pause = FRESH if self._found is not None else FRESH_FAILURE
        self._next = asyncio.get_running_loop().time() + pause


def my_job(adapter: Adapter, job: Job) -> MyJob:
    """A job for the document; ``reason`` only where it waits."""
    waits = job.state in (JobState.QUEUED, JobState.HELD)
    return MyJob(
        id=job.id,
        name=job.name,
        state=job.state.value,
        queue=job.queue or None,
        node=job.node or None,
        starts=job.starts if waits else None,
        ends=job.ends if job.left is None else time.time() + job.left,
        reason=adapter.waiting(job) if waits else None,
        ours=job.name.startswith(OURS),
    )


def with_sums(found: Cluster) -> Cluster:
    """The queues with the sums of their nodes."""
    queues: list[Queue] = [with_nodes(queue, found.nodes) for queue in found.queues]
    return replace(found, queues=tuple(queues))
