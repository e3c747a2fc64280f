"""One scheduler as seen from one place: its commands, run few at a time, and one query for all jobs that wait.

The query comes after 1 s for a job that was just submitted, and less often the longer the youngest of those that wait
has waited, up to 30 s (DESIGN §3, promise 6).  A job that runs is not asked about.  Where the home is shared, a job's
own note that it has begun is seen within a second, and the query comes at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ...launcher.errors import FarkernelError
from ..contract import Route
from .contract import Adapter, Command, Job, JobState, NoScheduler, Request, Said, Wanted
from .job_script import RENDEZVOUS
from .runner import find_program, run

log = logging.getLogger(__name__)

_SUBMIT_DEADLINE = 60.0
_QUERY_DEADLINE = 30.0
_SHORTEST, _LONGEST = 1.0, 30.0
_AT_A_TIME = 2
# Whoever is hung up on goes on to its end: it should be soon.
_LISTEN_AT_MOST = 4.0
_SHORTEST_STEP, _LONGEST_STEP = 0.2, 1.0
_NOTES = f"""\
step=$1 left=$2
shift 2
while :; do
  for name; do [ ! -e "$HOME/{RENDEZVOUS}/$name" ] || found="$found $name"; done
  left=$((left - 1))
  [ -z "$found" ] && [ $left -gt 0 ] || break
  sleep "$step" 2>/dev/null || sleep 1
done
echo $found
"""
# A job that has waited so long is told its place in the queue; that query is larger, and comes less often.
_PLACE_AFTER = 15.0
_PLACE_EVERY = 60.0


class Watch:
    """One job that somebody waits for.  ``answer`` is the last look's, ``error`` why the last look failed."""

    def __init__(self, name: str, job: str) -> None:
        self.name = name
        self.job = job
        self.since = time.monotonic()
        self.answer: list[Job] = []
        self.error: FarkernelError | None = None
        self._looked = asyncio.Event()

    async def next(self) -> list[Job]:
        """All jobs with that name or id, as seen by a look that begins from now on; raises the look's error."""
        self._looked.clear()
        await self._looked.wait()
        if self.error is not None:
            raise self.error
        return self.answer

    def tell(self, answer: list[Job], error: FarkernelError | None) -> None:
        self.answer, self.error = answer, error
        self._looked.set()

    def pause(self) -> float:
        """Until the next look, as far as this job needs one."""
        return min(max((time.monotonic() - self.since) / 6, _SHORTEST), _LONGEST)


class Cluster:
    """See the module.  ``door`` is the route to where the scheduler's commands are."""

    def __init__(self, adapter: Adapter, door: Route) -> None:
        self.adapter = adapter
        self.door = door
        self.preparation = f"{adapter.preparation}\n{find_program(adapter.program)}"
        self.commands = 0  # how many were run, for those who want to know what we cost
        self._watches: set[Watch] = set()
        self._turns = asyncio.Semaphore(_AT_A_TIME)
        self._looking: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._looked = -_LONGEST
        self._noted: set[str] = set()
        self._places: dict[str, tuple[float, Sequence[str]]] = {}

    def __repr__(self) -> str:
        return (
            f"<Cluster {self.adapter.title}, {len(self._watches)} jobs watched, {self.commands} commands run>"
        )

    async def submit(self, request: Request, script: str) -> str:
        """The new job's id.  Raises `Refused`, `RouteError` (nothing was sent), or `CannotTell` and `NoAnswer`: the
        job may be there all the same.
        """
        command = self.adapter.submit(request, script)
        said = await self._run([command], _SUBMIT_DEADLINE)
        return self.adapter.submitted(said[0])

    async def cancel(self, job: str) -> None:
        """Raises when it is not certain that the scheduler took it."""
        said = await self._run([self.adapter.cancel(job)], _QUERY_DEADLINE)
        self.adapter.cancelled(said[0])

    async def look(self, job: Job) -> Job | None:
        """One query for one job; None: it is not there."""
        query = self.adapter.query([Wanted(job.name, job.id)])
        found = self.adapter.jobs(await self._run(query, _QUERY_DEADLINE))
        return next((_dated(each) for each in found if each.id == job.id), None)

    async def details(self, job: Job) -> Job:
        """The job with why it ended, if it has ended."""
        said = await self._run(self.adapter.details(job.id), _QUERY_DEADLINE)
        return self.adapter.ended(job, said)

    async def ask(self, commands: Sequence[Command]) -> list[Said]:
        """Some other question, where the scheduler's commands are."""
        return await self._run(commands, _QUERY_DEADLINE)

    @contextlib.contextmanager
    def watching(self, name: str, job: str) -> Iterator[Watch]:
        """As long as this is open, the job is part of the shared query."""
        watch = Watch(name, job)
        self._watches.add(watch)
        self._wake.set()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look_on(), name=f"queue of {self!r}")
        try:
            yield watch
        finally:
            self._watches.discard(watch)
            self._noted.discard(name)
            self._wake.set()

    async def _look_on(self) -> None:
        """One look after another while somebody waits."""
        while self._watches:
            pause = min(watch.pause() for watch in self._watches) - (time.monotonic() - self._looked)
            if pause > 0:
                await self._wait(pause)
                continue
            await self._look(list(self._watches))
            self._looked = time.monotonic()

    async def _wait(self, pause: float) -> None:
        """For the next look, for somebody who wants one now, or for a job that says itself that it has begun."""
        self._wake.clear()
        loop = asyncio.get_running_loop()
        until = loop.time() + pause
        waking = loop.create_task(self._wake.wait())
        try:
            while not waking.done() and (left := until - loop.time()) > 0:
                listening = loop.create_task(self._listen(left), name=f"notes for {self!r}")
                try:
                    await asyncio.wait([listening, waking], timeout=left, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    listening.cancel()
                if not listening.done() or waking.done():
                    return
                begun = listening.result()
                if begun:
                    self._looked = -_LONGEST
                    return
                if begun is None:
                    await asyncio.wait([waking], timeout=max(until - loop.time(), 0))
        finally:
            waking.cancel()

    async def _listen(self, pause: float) -> bool | None:
        """Whether one of the jobs has left its note in the home (job_script.py) within that time, or some of it.

        That is a look at some files, where the scheduler's commands are, and none at the scheduler.  None: it cannot
        be told.
        """
        names = sorted(watch.name for watch in self._watches if watch.job and watch.name not in self._noted)
        if not names:
            return None
        lasts = min(pause, _LISTEN_AT_MOST)
        step = min(max(lasts / 5, _SHORTEST_STEP), _LONGEST_STEP)
        command = ("sh", "-c", _NOTES, "sh", f"{step:g}", str(max(round(lasts / step), 1)), *names)
        try:
            (said,) = await run(self.door, [Command(command)], lasts + _QUERY_DEADLINE)
        except FarkernelError as error:
            log.debug("notes of jobs: %s", error)
            return None
        found = set(said.out.split()) & set(names)
        self._noted |= found  # the scheduler may be slower than the job
        return bool(found)

    async def _look(self, watches: list[Watch]) -> None:
        queues = sorted({queue for watch in watches if (queue := self._wants_place(watch))})
        query = list(self.adapter.query([Wanted(watch.name, watch.job) for watch in watches]))
        places = [place for queue in queues if (place := self.adapter.place(queue)) is not None]
        try:
            said = await self._run([*query, *places], _QUERY_DEADLINE)
            found = self.adapter.jobs(said[: len(query)])
        except FarkernelError as error:
            log.warning("%s", error)
            for watch in watches:
                watch.tell([], error)
            return
        for queue, answer in zip(queues, said[len(query) :], strict=False):
            self._places[queue] = (time.monotonic(), self.adapter.order(answer))
        for watch in watches:
            mine = [job for job in found if job.name == watch.name or (job.id and job.id == watch.job)]
            watch.tell([self._placed(_dated(job)) for job in mine], None)

    def _wants_place(self, watch: Watch) -> str:
        """The queue in which its place shall be looked for now, or nothing."""
        job = next((job for job in watch.answer if job.state is JobState.QUEUED), None)
        if job is None or not job.queue or time.monotonic() - watch.since < _PLACE_AFTER:
            return ""
        looked, _ = self._places.get(job.queue, (0.0, ()))
        return job.queue if not looked or time.monotonic() - looked > _PLACE_EVERY else ""

    def _placed(self, job: Job) -> Job:
        _, order = self._places.get(job.queue, (0.0, ()))
        if job.state is JobState.QUEUED and job.id in order:
            return replace(job, ahead=list(order).index(job.id))
        return job

    async def _run(self, commands: Sequence[Command], deadline: float) -> list[Said]:
        async with self._turns:
            self.commands += len(commands)
            said = await run(self.door, commands, deadline, self.preparation)
        # The shell's own status for a command that it does not find (POSIX, "Exit Status for Commands").
        if said[0].status == 127:
            raise NoScheduler(self.adapter.title, self.adapter.program)
        return said


def _dated(job: Job) -> Job:
    """With the moment at which it ends, if the scheduler said how long it still has."""
    return job if job.left is None else replace(job, ends=time.time() + job.left)
