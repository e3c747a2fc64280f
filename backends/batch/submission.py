"""One job from its name to its end, such that it is never there twice and never left behind (DESIGN §3, promise 4).

Whatever is about to be done is on disk first.  A submission whose answer was lost is looked for by the job's name,
several times, before it is sent again: a controller that was frozen takes it when it wakes up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import asdict

from ...launcher.errors import FarkernelError
from ..contract import RouteError
from .cluster import Cluster
from .contract import End, EndKind, Job, JobEnded, JobState, NoScheduler, Refused, Request
from .door_keys import make_door_keys
from .ends import requeued_end
from .job_script import job_script, job_script_with_door
from .journal import Journal, Phase, Record
from .ways import Entrance
from .words import waiting_text

log = logging.getLogger(__name__)

# So often, and for so long, a name must not be found before the submission counts as lost.
LOOKS, SETTLE = 3, 10.0
_ENDING_PATIENCE = 60.0
_LONGEST_PAUSE = 60.0
_ACCOUNTS_PATIENCE = 5.0
_WAITING = (JobState.QUEUED, JobState.HELD, JobState.STARTING)

Report = Callable[[str], None]


def _nothing() -> None:
    """Nobody needs to know."""


class Submission:
    """A job of ours, or one that shall be."""

    def __init__(self, cluster: Cluster, journal: Journal, record: Record, request: Request) -> None:
        self.record = record
        self._cluster = cluster
        self._journal = journal
        self._request = request

    def __repr__(self) -> str:
        return f"<Submission {self.record.name}, {self.record.phase.value}, job {self.record.job or 'not known'}>"

    async def running(
        self,
        report: Report,
        written_down: bool,
        ran: Job | None = None,
        requeued: Callable[[], None] = _nothing,
    ) -> Job:
        """Submit it unless that was done (``written_down``: perhaps), and wait until it runs.

        ``ran``: as it was when it ran before; ``requeued`` is called when it turns out that it has begun anew since.
        Raises `Refused`, `JobEnded`, `RouteError`.  A scheduler that does not answer is waited for.
        """
        if self.record.phase is Phase.SUBMITTING:
            await self._submit(report, written_down)
        return await self._until_running(report, ran, requeued)

    async def _submit(self, report: Report, doubtful: bool) -> None:
        title = self._cluster.adapter.title
        if not doubtful:
            self.record.door = asdict(await asyncio.to_thread(make_door_keys))
        self._journal.save(self.record)
        script = self._script()
        while True:
            if doubtful:
                job = await self._look_for(report)
                if job is not None:
                    self._submitted(job.id)
                    return
            report(f"submitting a job to {title}")
            try:
                self._submitted(await self._cluster.submit(self._request, script))
                return
            except (Refused, NoScheduler):
                self._journal.forget(self.record)
                raise
            except RouteError:
                raise
            except FarkernelError as error:
                log.warning("job %s: %s", self.record.name, error)
                report(f"{error.what}; whether it has taken the job is being looked for")
                doubtful = True

    def _script(self) -> str:
        keys = self.record.door_keys()
        return job_script_with_door(keys.job_key, keys.keeper_certificate) if keys else job_script()

    def _submitted(self, job: str) -> None:
        self.record.job = job
        self.record.phase = Phase.SUBMITTED
        if self.record.door:
            self.record.door["job_key"] = ""  # it need not lie here any more
        self._journal.save(self.record)

    async def _look_for(self, report: Report) -> Job | None:
        """The job with our name; None when it is certain that there is none."""
        looks, first = 0, 0.0
        with self._cluster.watching(self.record.name, "") as watch:
            while looks < LOOKS or time.monotonic() - first < SETTLE:
                try:
                    found = await watch.next()
                except RouteError:
                    raise
                except FarkernelError as error:
                    report(f"{error.what}; waiting for it, to see whether it has taken the job")
                    continue
                if found:
                    return self._one_of(found)
                looks += 1
                first = first or time.monotonic()
        return None

    async def _until_running(self, report: Report, ran: Job | None, requeued: Callable[[], None]) -> Job:
        missing, ending = 0, 0.0
        with self._cluster.watching(self.record.name, self.record.job) as watch:
            while True:
                try:
                    found = await watch.next()
                except RouteError:
                    raise
                except FarkernelError as error:
                    report(f"{error.what}; the job is not affected, waiting for an answer")
                    continue
                if not found:
                    missing += 1
                    if missing > 1:
                        self._over(
                            await self._how_it_ended(Job(self.record.job, self.record.name, JobState.UNKNOWN))
                        )
                    continue
                missing = 0
                job = self._one_of(found)
                await self._cancel_doubles(found, job)
                if ran is not None and _begun_anew(ran, job):
                    ran = None
                    requeued()
                if job.state is JobState.RUNNING and job.node:
                    return job
                ending = ending or time.monotonic() if job.state is JobState.ENDING else 0.0
                if job.state is JobState.ENDED or (ending and time.monotonic() - ending > _ENDING_PATIENCE):
                    self._over(await self._how_it_ended(job))
                elif job.state is JobState.ENDING:
                    report(f"{self._cluster.adapter.title} job {job.id} is ending")
                else:
                    reason = self._cluster.adapter.waiting(job)
                    report(waiting_text(self._cluster.adapter.title, job, reason))

    def _one_of(self, found: list[Job]) -> Job:
        """Ours among several with its name: the one whose id we know, else the first that was submitted."""
        for job in found:
            if job.id == self.record.job:
                return job
        alive = [job for job in found if job.state is not JobState.ENDED]
        return (alive or found)[0]

    async def _cancel_doubles(self, found: list[Job], ours: Job) -> None:
        for job in found:
            if job.id != ours.id and job.state not in (JobState.ENDED, JobState.ENDING):
                log.warning(
                    "job %s was taken twice by the scheduler; cancelling %s", self.record.name, job.id
                )
                await self._cluster.cancel(job.id)

    async def _how_it_ended(self, job: Job) -> Job:
        """As well as it can be told; asked a few times, because accounts lag behind (sacct(1))."""
        answer = job
        for _ in range(3):
            try:
                answer = await self._cluster.details(job)
                if answer.end is None or not (answer.end.kind is EndKind.GONE or answer.end.lags):
                    return answer
            except RouteError:
                raise
            except FarkernelError as error:
                log.warning("job %s: %s", self.record.name, error)
            await asyncio.sleep(1)
        return answer

    def _over(self, job: Job) -> None:
        """Raises `JobEnded`, unless the job turns out to be alive."""
        if job.state in (*_WAITING, JobState.RUNNING):
            return
        end = job.end or End(EndKind.GONE, "it has ended, and the scheduler does not say why")
        self._journal.forget(self.record)
        raise JobEnded(self._cluster.adapter.title, job, end)

    async def why_it_ended(self, deadline: float) -> End | None:
        """Called when what ran in the job has died: why the job is over, or None if it runs on (or cannot be told)."""
        until = time.monotonic() + deadline
        known = time.monotonic() + _ACCOUNTS_PATIENCE
        pause = 0.3
        while self.record.job:
            try:
                job = await self._cluster.details(Job(self.record.job, self.record.name, JobState.UNKNOWN))
            except FarkernelError as error:
                log.warning("job %s: %s", self.record.name, error)
                return None
            if job.state in _WAITING:
                return requeued_end()
            lags = job.end is not None and (job.end.kind is EndKind.GONE or job.end.lags)
            # Accounts that are behind are waited for, but not for long: the end itself is known.
            late = time.monotonic() + pause > (
                min(until, known) if job.end is not None and job.end.lags else until
            )
            if job.end is not None and (late or not lags):
                return job.end
            if late or (not lags and job.state is not JobState.ENDING and pause > 1.0):
                return None
            await asyncio.sleep(pause)
            pause = min(pause * 2, 3.0)
        return None

    @property
    def entrance(self) -> Entrance:
        """What its job's ways in need to know."""
        record = self.record
        return Entrance(
            record.door_keys(),
            self._journal.ways().get(record.address, ""),
            lambda way: self._journal.remember_way(record.address, way),
        )

    # the end

    def unwanted(self) -> None:
        """Write down that it shall be cancelled."""
        self.record.phase = Phase.UNWANTED
        self._journal.save(self.record)

    async def cancelled(self) -> None:
        """Cancel it, and see that it is over; goes on until that is so."""
        pause = 1.0
        while True:
            try:
                if await self._is_over():
                    self._journal.forget(self.record)
                    return
            except FarkernelError as error:
                log.warning("job %s cannot be cancelled now: %s", self.record.name, error)
                pause = min(pause * 2, _LONGEST_PAUSE)
            await asyncio.sleep(pause)

    async def _is_over(self) -> bool:
        """One try; also looks for jobs of that name which were never answered for."""
        if self.record.job:
            await self._cluster.cancel(self.record.job)
        elif await self._look_for(_silently) is None:
            return True
        with self._cluster.watching(self.record.name, self.record.job) as watch:
            found = await watch.next()
        alive = [job for job in found if job.state not in (JobState.ENDED, JobState.ENDING)]
        for job in alive:
            await self._cluster.cancel(job.id)
        return not alive


def _begun_anew(ran: Job, job: Job) -> bool:
    """Whether what ran once is not that run any more."""
    later = ran.starts is not None and job.starts is not None and job.starts > ran.starts
    return job.state in _WAITING or (job.state is JobState.RUNNING and later)


def _silently(sentence: str) -> None:
    """Nobody waits for it."""
