"""IBM Spectrum LSF 10: bsub(1), bjobs(1), bkill(1).  By its documentation: there is no LSF to try it on."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...launcher.text import one_line
from .contract import CannotTell, Command, End, EndKind, Job, JobState, Refused, Request, Said, Wanted, WayIn
from .ends import failed_end

MIB = 1 << 20

# bjobs(1), "STAT".
STATES = {
    "PEND": JobState.QUEUED,
    "WAIT": JobState.QUEUED,
    "FWD_PEND": JobState.QUEUED,
    "PROV": JobState.STARTING,
    "PSUSP": JobState.HELD,
    "RUN": JobState.RUNNING,
    "USUSP": JobState.RUNNING,
    "SSUSP": JobState.RUNNING,
    "DONE": JobState.ENDED,
    "EXIT": JobState.ENDED,
    "ZOMBI": JobState.ENDED,
    "UNKWN": JobState.UNKNOWN,
}

# bjobs(1), "Termination reasons displayed by bacct, bhist and bjobs".
ENDS = {
    "TERM_RUNLIMIT": (EndKind.TIME_LIMIT, "its time limit was reached"),
    "TERM_CPULIMIT": (EndKind.TIME_LIMIT, "its limit of CPU time was reached"),
    "TERM_DEADLINE": (EndKind.TIME_LIMIT, "its deadline was reached"),
    "TERM_WINDOW": (EndKind.TIME_LIMIT, "the queue's run window closed"),
    "TERM_MEMLIMIT": (EndKind.OUT_OF_MEMORY, "it ran out of memory"),
    "TERM_SWAP": (EndKind.OUT_OF_MEMORY, "it ran out of swap space"),
    "TERM_PREEMPT": (EndKind.PREEMPTED, "a job of higher priority took its place (preempted)"),
    "TERM_OWNER": (EndKind.CANCELLED, "it was cancelled by its owner"),
    "TERM_ADMIN": (EndKind.CANCELLED, "it was cancelled by an administrator"),
    "TERM_FORCE_OWNER": (EndKind.CANCELLED, "it was cancelled by its owner"),
    "TERM_FORCE_ADMIN": (EndKind.CANCELLED, "it was cancelled by an administrator"),
    "TERM_REQUEUE_OWNER": (EndKind.REQUEUED, "it was requeued by its owner"),
    "TERM_REQUEUE_ADMIN": (EndKind.REQUEUED, "it was requeued by an administrator"),
    "TERM_BUCKET_KILL": (EndKind.CANCELLED, "it was cancelled"),
    "TERM_REMOVE_HUNG_JOB": (EndKind.NODE_FAILED, "its node did not answer any more"),
}

_FIELDS = "jobid job_name stat queue exec_host time_left exit_code exit_reason pend_reason delimiter='|'"
_NO_ANSWER = re.compile(
    r"LIM|master|mbatchd|daemon not responding|timed? ?out|connection|try later", re.IGNORECASE
)


class Lsf:
    title = "LSF"
    longest_name = 160
    program = "bsub"
    preparation = ""
    own_tmp = False

    def submit(self, request: Request, script: str) -> Command:
        argv = ["bsub", "-J", request.name, "-o", "/dev/null", "-e", "/dev/null", "-rn", "-cwd", "/"]
        if request.queue is not None:
            argv += ["-q", request.queue]
        if request.cpus is not None:
            argv += ["-n", str(request.cpus * (request.nodes or 1)), "-R", f"span[ptile={request.cpus}]"]
        elif request.nodes is not None:
            argv += ["-n", str(request.nodes), "-R", "span[ptile=1]"]
        if request.memory is not None:
            megabytes = -(-request.memory // MIB)
            argv += ["-M", f"{megabytes}MB", "-R", f"rusage[mem={megabytes}MB]"]
        if request.time is not None:
            minutes = max(-(-request.time // 60), 1)
            argv += ["-W", f"{minutes // 60}:{minutes % 60:02d}"]
        if request.gpus:
            kind = f":gmodel={request.gpu_type}" if request.gpu_type else ""
            argv += ["-gpu", f"num={request.gpus}{kind}"]
        # The environment goes along as a whole (bsub(1), -env).
        return Command((*argv, *request.options), script, request.environment)

    def submitted(self, said: Said) -> str:
        match = re.search(r"Job <([0-9]+)> is submitted", said.out, re.ASCII)
        if match:
            return match[1]
        if said.status != 0 and not _NO_ANSWER.search(said.err):
            raise Refused(self.title, said.complaint)
        raise CannotTell(self.title, said.complaint)

    def query(self, wanted: Sequence[Wanted]) -> Sequence[Command]:
        # -J takes one name, which may end with a star: all of ours at once.
        return [Command(("bjobs", "-a", "-noheader", "-J", "fk-*", "-o", _FIELDS))]

    def jobs(self, said: Sequence[Said]) -> list[Job]:
        (shown,) = said
        # "No job found" is an answer: bjobs(1) says it on stderr, with status 0 or 255.
        none = re.search(r"No (?:unfinished )?job found|is not found", shown.err)
        if shown.cut or (shown.status != 0 and not none):
            raise CannotTell(self.title, shown.complaint)
        return [job for line in shown.out.splitlines() if (job := _job(line)) is not None]

    def place(self, queue: str) -> Command | None:
        return None

    def order(self, said: Said) -> Sequence[str]:
        return []

    def details(self, job: str) -> Sequence[Command]:
        return [Command(("bjobs", "-a", "-noheader", "-o", _FIELDS, job))]

    def ended(self, job: Job, said: Sequence[Said]) -> Job:
        for found in self.jobs(said):
            return found
        return Job(job.id, job.name, JobState.ENDED, end=End(EndKind.GONE, "LSF no longer knows it"))

    def cancel(self, job: str) -> Command:
        return Command(("bkill", job))

    def cancelled(self, said: Said) -> None:
        if said.status != 0 and not re.search(
            r"already finished|No matching job|is not found", said.err + said.out
        ):
            raise CannotTell(self.title, said.complaint)

    def waiting(self, job: Job) -> str:
        return one_line(job.reason) or "the scheduler has not looked at it yet"

    def way_in(self, job: Job) -> WayIn | None:
        return None  # blaunch works from inside the job only


def _job(line: str) -> Job | None:
    fields = line.split("|", 8)
    if len(fields) != 9 or not fields[0].strip().isdecimal():
        return None
    number, name, word, queue, hosts, left, status, why, reason = (each.strip() for each in fields)
    state = STATES.get(word, JobState.UNKNOWN)
    node = re.sub(r"^[0-9]+\*", "", hosts.partition(":")[0])  # "4*c1:2*c2"
    return Job(
        id=number,
        name=name,
        state=state,
        word=word,
        reason="" if reason == "-" else reason,
        node=node if re.fullmatch(r"[A-Za-z0-9][\w.-]*", node, re.ASCII) else "",
        left=_left(left) if state is JobState.RUNNING else None,
        queue=queue,
        end=_end(status, why, node) if state is JobState.ENDED else None,
    )


def _left(text: str) -> float | None:
    """bjobs(1): "2:15 L": hours and minutes, and a letter for what kind of limit it is."""
    match = re.match(r"([0-9]{1,5}):([0-9]{2})\b", text, re.ASCII)
    return int(match[1]) * 3600.0 + int(match[2]) * 60 if match else None


def _end(status: str, why: str, node: str) -> End:
    word = why.partition(":")[0]
    if word in ENDS:
        kind, text = ENDS[word]
        return End(kind, text, _ADVICE.get(kind, "Start the kernel again"))
    return failed_end(int(status) if status.isdecimal() else 0, 0, "" if node == "-" else node)


_ADVICE = {
    EndKind.TIME_LIMIT: 'Ask for more: resources = { time = "…" }, as far as the queue allows',
    EndKind.OUT_OF_MEMORY: 'Ask for more: resources = { memory = "…" }',
    EndKind.CANCELLED: "Start the kernel again if that was not meant",
}

ADAPTER = Lsf()
