"""Targets behind a scheduler: ``slurm://login/partition`` and its likes.

One `Engine` for each user of a keeper holds the clusters (one query for all that waits in one), the journal, and what
is still to be cancelled.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
import weakref
from collections.abc import Collection, Sequence
from dataclasses import replace

from ...launcher.address import parse_address
from ...launcher.configuration import Target
from ...launcher.discovery import cluster as documents
from .. import find_backend, steps_to
from ..contract import Allocation, Inquiring, Route, Step, User
from . import (
    htcondor,
    lsf,
    oar,
    pbs,
    pbs_survey,
    sge,
    sge_survey,
    slurm,
    slurm_survey,
    torque,
    torque_survey,
)
from .allocation import BatchAllocation
from .cluster import Cluster
from .contract import Adapter, Job, JobState, NoSurvey, Request
from .job_script import IDLE, TRIED_FIRST
from .journal import Journal, Phase, Record, journal_directory
from .submission import Submission
from .survey import Survey, Surveyor, my_job

log = logging.getLogger(__name__)

ADAPTERS: dict[str, Adapter] = {
    "slurm": slurm.ADAPTER,
    "pbs": pbs.ADAPTER,
    "torque": torque.ADAPTER,
    "sge": sge.ADAPTER,
    "lsf": lsf.ADAPTER,
    "htcondor": htcondor.ADAPTER,
    "oar": oar.ADAPTER,
}
SURVEYORS: dict[str, Surveyor] = {
    "slurm": slurm_survey.SURVEYOR,
    "pbs": pbs_survey.SURVEYOR,
    "torque": torque_survey.SURVEYOR,
    "sge": sge_survey.SURVEYOR,
}
_SETTLE = 8.0
_CENTURY = 100 * 365 * 24 * 3600


def login(target: Target) -> Target:
    """Where the scheduler's commands are: a target of its own, for everything that needs no job."""
    address = target.address
    if address.host is None:
        return replace(target, address=parse_address("local:"))
    user = f"{address.user}@" if address.user else ""
    host = f"[{address.host}]" if ":" in address.host else address.host
    port = f":{address.port}" if address.port else ""
    return replace(target, address=parse_address(f"ssh://{user}{host}{port}"))


class Engine:
    """All jobs of one keeper."""

    def __init__(self, user: User) -> None:
        self.journal = Journal(journal_directory())
        self._user = user
        self._clusters: dict[str, Cluster] = {}
        self._surveys: dict[Cluster, Survey] = {}
        self._debts: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Engine, {list(self._clusters.values())}, {len(self._debts)} jobs to be cancelled>"

    def cluster(self, target: Target) -> Cluster:
        """The one that this target's jobs go to."""
        front = login(target)
        name = f"{target.address.scheme} by {front.address} {target.ssh} {target.ssh_config}"
        if name not in self._clusters:
            door = find_backend(front.address.scheme).door(front, self._user)
            self._clusters[name] = Cluster(ADAPTERS[target.address.scheme], door)
        return self._clusters[name]

    def survey(self, target: Target) -> Survey:
        """Of that cluster, shared by all who ask; raises `NoSurvey`."""
        scheme, cluster = target.address.scheme, self.cluster(target)
        if scheme not in SURVEYORS:
            known = [ADAPTERS[each].title for each in SURVEYORS]
            raise NoSurvey(cluster.adapter.title, known)
        if cluster not in self._surveys:
            self._surveys[cluster] = Survey(cluster, SURVEYORS[scheme])
        return self._surveys[cluster]

    async def strays(self, target: Target) -> list[documents.MyJob]:
        """Jobs of keepers that are not written down here."""
        found = await self.survey(target).mine()
        known = {record.name for record in self.journal.load()}
        over = (JobState.ENDED, JobState.ENDING)
        jobs = [job for job in found if job.name not in known and job.state not in over]
        return [each for each in (my_job(self.cluster(target).adapter, job) for job in jobs) if each.ours]

    def allocation(self, target: Target, key: str, kernel: str) -> BatchAllocation:
        cluster = self.cluster(target)
        found = self.journal.find(key)
        record = found or Record(
            key,
            str(target.address),
            job_name(kernel, cluster.adapter.longest_name),
            ssh=target.ssh,
            ssh_config=target.ssh_config or "",
        )
        submission = Submission(cluster, self.journal, record, request(target, record.name))
        return BatchAllocation(cluster, submission, found is not None, self.owe)

    def take_up(self, keys: Collection[str]) -> None:
        """A keeper has started: jobs of kernels that it does not know are not wanted any more."""
        for record in self.journal.load():
            if record.phase is not Phase.UNWANTED and record.key in keys:
                continue
            address = parse_address(record.address)
            target = Target(name=record.key, address=address)
            target = replace(target, ssh=record.ssh or target.ssh, ssh_config=record.ssh_config or None)
            log.info("job %s is left over from a former keeper: cancelling it", record.name)
            submission = Submission(self.cluster(target), self.journal, record, Request(record.name))
            submission.unwanted()
            self.owe(submission)

    def owe(self, submission: Submission) -> None:
        """See that this job is cancelled, however long it takes."""
        debt = asyncio.get_running_loop().create_task(submission.cancelled(), name=f"cancel {submission!r}")
        self._debts.add(debt)
        debt.add_done_callback(self._debts.discard)

    async def settle(self) -> None:
        """The keeper ends: a moment for what is still to be cancelled; the rest is left to the next keeper."""
        if self._debts:
            await asyncio.wait(self._debts, timeout=_SETTLE)
        for debt in list(self._debts):
            debt.cancel()


_engines: weakref.WeakKeyDictionary[User, Engine] = weakref.WeakKeyDictionary()


def engine(user: User) -> Engine:
    if user not in _engines:
        _engines[user] = Engine(user)
    return _engines[user]


def request(target: Target, name: str) -> Request:
    resources = target.resources
    wait = target.keep if target.keep is not None else _CENTURY
    environment = {IDLE: str(max(wait, 60))}
    if target.agent_python:
        environment[TRIED_FIRST] = ":".join(target.agent_python)
    return Request(
        name=name,
        queue=target.address.partition,
        cpus=resources.cpus,
        memory=resources.memory,
        time=resources.time,
        gpus=resources.gpus,
        gpu_type=resources.gpu_type,
        nodes=resources.nodes,
        spread=target.cluster is not None and (resources.nodes or 1) > 1,
        options=target.options,
        environment=environment,
    )


def job_name(kernel: str, longest: int) -> str:
    """Carries the kernel's id, so that a keeper on another machine finds its job; never the same name twice."""
    nonce = secrets.token_hex(3)
    room = longest - len("fk--") - len(nonce)
    plain = re.sub(r"[^A-Za-z0-9-]", "", kernel)
    if len(plain) > room or plain != kernel:
        plain = hashlib.sha256(kernel.encode()).hexdigest()[:room]
    return f"fk-{plain}-{nonce}"


class BatchBackend:
    """See `backends.contract.Backend`."""

    async def inquire(self, target: Target) -> None:
        front = login(target)
        backend = find_backend(front.address.scheme)
        if isinstance(backend, Inquiring):
            await backend.inquire(front)

    def key(self, target: Target, kernel: str | None) -> str:
        if kernel is None:
            front = login(target)
            return find_backend(front.address.scheme).key(front, None)
        if target.share:
            asked = repr((target.resources, target.options, target.agent_python, target.cluster))
            return f"{target.address}#{hashlib.sha256(asked.encode()).hexdigest()[:8]}"
        return f"{target.address}#{kernel}"

    def allocate(self, target: Target, kernel: str | None, user: User) -> Allocation:
        if kernel is None:
            front = login(target)
            return find_backend(front.address.scheme).allocate(front, None, user)
        key = self.key(target, kernel)
        return engine(user).allocation(target, key, key.rpartition("#")[2])

    async def steps(self, target: Target, user: User) -> Sequence[Step]:
        """Those to the door, and the scheduler there."""
        front = login(target)

        async def check() -> str:
            cluster = engine(user).cluster(target)
            await cluster.look(Job("", "fk-doctor", JobState.UNKNOWN))
            way = engine(user).journal.ways().get(str(target.address))
            return f"{cluster.adapter.title} answers" + (f"; jobs were last entered by: {way}" if way else "")

        return [*await steps_to(front, user), Step("scheduler", check)]

    async def survey(self, target: Target, user: User) -> documents.Cluster:
        return await engine(user).survey(target).look()

    async def strays(self, target: Target, user: User) -> Sequence[documents.MyJob]:
        return await engine(user).strays(target) if target.address.scheme in SURVEYORS else ()

    async def cancel(self, target: Target, user: User, job: str) -> None:
        await engine(user).cluster(target).cancel(job)

    def take_up(self, user: User, wanted: Collection[str]) -> None:
        engine(user).take_up(wanted)

    def holds(self, user: User, key: str) -> bool:
        return engine(user).journal.find(key) is not None

    async def settle(self, user: User) -> None:
        if user in _engines:
            await _engines[user].settle()

    def door(self, target: Target, user: User) -> Route:
        front = login(target)
        return find_backend(front.address.scheme).door(front, user)


BACKEND = BatchBackend()
