"""What an adapter of a scheduler must offer: pure pairs, arguments from a request and state from output.

An adapter runs nothing.  `cluster` runs what it says, over the route to where the scheduler's commands are.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ...launcher.errors import FarkernelError
from ...launcher.text import one_line
from ..contract import AllocationError


class JobState(enum.Enum):
    """Where a job stands, in the same words for every scheduler."""

    QUEUED = "queued"
    HELD = "held"  # it will not start until somebody lets it go
    STARTING = "starting"
    RUNNING = "running"
    ENDING = "ending"
    ENDED = "ended"
    UNKNOWN = "unknown"  # the scheduler used a word that no table has: nothing follows from it


class EndKind(enum.Enum):
    """Why a job is over."""

    TIME_LIMIT = "time-limit"
    OUT_OF_MEMORY = "out-of-memory"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"
    NODE_FAILED = "node-failed"
    REQUEUED = "requeued"
    FAILED = "failed"
    COMPLETED = "completed"
    GONE = "gone"  # the scheduler knows nothing of it any more


@dataclass(frozen=True)
class End:
    """The end of a job: ``text`` is a sentence for people, ``advice`` what to do about it."""

    kind: EndKind
    text: str
    advice: str = ""
    lags: bool = False
    """The scheduler's accounts are behind, and will soon say more."""


@dataclass(frozen=True)
class Job:
    """What a scheduler says of one job.  Times are seconds since 1970; None: it does not say."""

    id: str
    name: str
    state: JobState
    word: str = ""  # the scheduler's own word for the state
    reason: str = ""  # its own word for why it waits
    node: str = ""  # where the job's script runs
    starts: float | None = None  # expected
    ends: float | None = None
    left: float | None = None  # seconds until it ends, for schedulers that say that instead
    ahead: int | None = None  # jobs before it in the queue
    queue: str = ""
    end: End | None = None


@dataclass(frozen=True)
class Request:
    """What one allocation asks for.  All of it is data: an adapter makes arguments of it, one value in one argument."""

    name: str
    queue: str | None = None
    cpus: int | None = None
    memory: int | None = None  # bytes
    time: int | None = None  # seconds
    gpus: int | None = None
    gpu_type: str | None = None
    nodes: int | None = None
    spread: bool = False  # an engine is spread over its nodes: the job goes on when one of the others fails
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)  # for the job's script


class Wanted(NamedTuple):
    """A job that a query asks for; ``id`` is empty as long as it is not known."""

    name: str
    id: str


@dataclass(frozen=True)
class Command:
    """A command of the scheduler.  ``stdin`` None: nothing to read."""

    argv: tuple[str, ...]
    stdin: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Said:
    """What came of a command.  ``cut``: there was more than we take."""

    status: int
    out: str
    err: str
    cut: bool = False

    @property
    def complaint(self) -> str:
        """The last line that it wrote for people."""
        lines = [line for line in (self.err or self.out).splitlines() if line.strip()]
        return one_line(lines[-1])[:300] if lines else f"exit status {self.status}"


class CannotTell(FarkernelError):
    """The scheduler did not answer, or not in a way that can be understood.  Says nothing about any job."""

    kind = "scheduler"

    def __init__(self, scheduler: str, why: str) -> None:
        super().__init__(
            f"{scheduler} does not answer: {one_line(why)[:300]}",
            "Jobs are not affected by that; it is asked again",
        )


class NoScheduler(AllocationError):
    """Its commands are not there."""

    kind = "no-scheduler"

    def __init__(self, scheduler: str, program: str) -> None:
        super().__init__(
            f"{scheduler}'s command {program} is not found where the target's address leads",
            "Is it the right login host? If a login shell there finds it only after `module load`, put it on PATH",
        )


class NoSurvey(FarkernelError):
    """A scheduler that is driven, but of which nothing more is known."""

    kind = "no-survey"

    def __init__(self, scheduler: str, known: Sequence[str]) -> None:
        super().__init__(
            f"what a cluster of {scheduler} has is not known here",
            f"This version asks {', '.join(known)}; kernels run there all the same",
        )


class Refused(AllocationError):
    """The scheduler read the request and will not have it."""

    kind = "refused"

    def __init__(self, scheduler: str, why: str) -> None:
        super().__init__(
            f"{scheduler} refuses the job: {one_line(why)[:300]}",
            "Look at the target's address, resources and options; `farkernel resources` shows what is there",
        )


class JobEnded(AllocationError):
    """The job is over, and its kernels with it."""

    kind = "job-ended"

    def __init__(self, scheduler: str, job: Job, end: End) -> None:
        super().__init__(f"the {scheduler} job {job.id} is over: {end.text}", end.advice)
        self.job = job
        self.end = end


class WayIn(NamedTuple):
    """A command that runs what follows it inside the job, with clean stdin and stdout."""

    command: tuple[str, ...]
    joins_words: bool = False
    """As ssh does: a shell at the other end reads all words as one line."""


class Adapter(Protocol):
    """One scheduler."""

    title: str
    """Its name for people."""
    longest_name: int
    """Characters that a job's name may have."""
    program: str
    """The command that submits: where it is, the others are."""
    preparation: str
    """Shell lines before every command: a constant."""
    own_tmp: bool
    """A job may have a /tmp that nobody else sees, and its agent's sockets with it: only ways into the job itself lead
    there.
    """

    def submit(self, request: Request, script: str) -> Command:
        """The script is the same for all requests."""

    def submitted(self, said: Said) -> str:
        """The job's id.  Raises `Refused` when it is certain that there is no job, else `CannotTell`."""

    def query(self, wanted: Sequence[Wanted]) -> Sequence[Command]:
        """One look at all of these jobs, those included of which only the name is known."""

    def jobs(self, said: Sequence[Said]) -> list[Job]:
        """The jobs that the query found, others among them perhaps.  Raises `CannotTell`."""

    def place(self, queue: str) -> Command | None:
        """Asks for the order of what waits in a queue, where that can be had."""

    def order(self, said: Said) -> Sequence[str]:
        """The ids of what waits there, first the next one; empty when it cannot be told."""

    def details(self, job: str) -> Sequence[Command]:
        """What may be known of a job that has ended."""

    def ended(self, job: Job, said: Sequence[Said]) -> Job:
        """The same job with `Job.end` as well as it can be told; raises `CannotTell`."""

    def cancel(self, job: str) -> Command:
        """End it, in whatever state it is."""

    def cancelled(self, said: Said) -> None:
        """Raises `CannotTell` unless the scheduler took it, or said that there is no such job."""

    def waiting(self, job: Job) -> str:
        """Why it waits, in words."""

    def way_in(self, job: Job) -> WayIn | None:
        """None: the scheduler has no command for it."""
