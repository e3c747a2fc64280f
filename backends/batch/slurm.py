"""Slurm, 20.11 and later: sbatch(1), squeue(1), scontrol(1), sacct(1), scancel(1), srun(1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from ...launcher.text import one_line
from .contract import CannotTell, Command, End, EndKind, Job, JobState, Refused, Request, Said, Wanted, WayIn
from .ends import cancelled_end, failed_end, out_of_memory_end, time_limit_end
from .slurm_words import HOLDING, STATES, explain

MIB = 1 << 20
FIELDS = "%i|%j|%T|%B|%S|%e|%P|%r"
# Times as seconds since 1970: the login host's time zone need not be ours (squeue(1), ENVIRONMENT VARIABLES).
EPOCH = {"SLURM_TIME_FORMAT": "%s"}
# The user's name is not known where we are.
_ACCOUNTS = """\
rows=$(sacct --noheader --parsable2 --jobs "$1" --format State,ExitCode,MaxRSS,ReqMem,NodeList) || exit
printf '%s\\n' "$rows"
number=$(printf '%s\\n' "$rows" | sed -n 's/^CANCELLED by \\([0-9][0-9]*\\)|.*/\\1/p' | head -n 1)
[ -z "$number" ] || printf 'who|%s\\n' "$(id -un "$number" 2>/dev/null)"
"""
# Words of the controller that the accounts make more of.
_WORTH_WAITING = ("CANCELLED", "OUT_OF_MEMORY")
# sbatch(1), --array, with the shortest form that getopt takes for it.
_ARRAY = re.compile(r"-a|--ar(r(ay?)?)?(=|\Z)")
_MOST_TASKS = 100_000
_REFUSALS = re.compile(
    r"Batch job submission failed: (?!.*(Socket timed out|Unable to contact|Zero Bytes|Transport|Communication|"
    r"Slurm temporarily unable|timed out|Slurm backup controller|Protocol authentication))"
    r"|invalid|unrecognized option|unknown option|ambiguous|Unable to open file|Invalid",
    re.IGNORECASE,
)


class Slurm:
    title = "Slurm"
    longest_name = 160
    program = "sbatch"
    # Who sits in a job already has its variables, and sbatch and srun would take them as options.
    own_tmp = False
    preparation = (
        "for name in $(env | sed -n 's/^\\(SLURM_[A-Z0-9_]*\\)=.*/\\1/p'); do\n"
        '  [ "$name" = SLURM_CONF ] || unset "$name"\n'
        "done\n"
        "unset SBATCH_ARRAY_INX"  # a kernel is one job
    )

    def submit(self, request: Request, script: str) -> Command:
        array = next((option for option in request.options if _ARRAY.match(option)), None)
        if array is not None:
            raise Refused(self.title, f"a kernel is one job, and the option {array} asks for a job array")
        argv = [
            "sbatch",
            "--parsable",
            f"--job-name={request.name}",
            "--output=/dev/null",
            "--error=/dev/null",
            "--chdir=/",
            "--no-requeue",
        ]
        if request.queue is not None:
            argv.append(f"--partition={request.queue}")
        if request.nodes is not None:
            argv += [f"--nodes={request.nodes}", "--ntasks-per-node=1"]
        if request.spread:
            argv.append("--no-kill")
        if request.cpus is not None:
            argv.append(f"--cpus-per-task={request.cpus}")
        if request.memory is not None:
            argv.append(f"--mem={-(-request.memory // MIB)}M")
        if request.time is not None:
            argv.append(f"--time={_clock(request.time)}")
        if request.gpus:
            kind = f":{request.gpu_type}" if request.gpu_type else ""
            argv.append(f"--gres=gpu{kind}:{request.gpus}")
        return Command((*argv, *request.options), script, request.environment)

    def submitted(self, said: Said) -> str:
        # "id", or "id;cluster" with --clusters; warnings go to stderr.
        match = re.search(r"^([0-9]+)(?:;[\w.-]*)?$", said.out, re.MULTILINE | re.ASCII)
        if said.status == 0 and match:
            return match[1]
        if said.status != 0 and _REFUSALS.search(said.err):
            raise Refused(self.title, _without_prefix(said.err))
        raise CannotTell(self.title, said.complaint)

    def query(self, wanted: Sequence[Wanted]) -> Sequence[Command]:
        names = ",".join(each.name for each in wanted)
        argv = ("squeue", "--noheader", "--me", "--states=all", f"--name={names}")
        return [Command((*argv, f"--format={FIELDS}"), environment=EPOCH)]

    def jobs(self, said: Sequence[Said]) -> list[Job]:
        if said[0].status != 0 or said[0].cut:
            raise CannotTell(self.title, said[0].complaint)
        return [job for line in said[0].out.splitlines() if (job := _job(line)) is not None]

    def place(self, queue: str) -> Command:
        return Command(
            ("squeue", "--noheader", "--states=PENDING", f"--partition={queue}", "--sort=-p,i", "--format=%i")
        )

    def order(self, said: Said) -> Sequence[str]:
        """A job array that waits is one line: its id stands as often as it has tasks."""
        words = [] if said.status or said.cut else said.out.split()
        return [word for word in words for _ in range(_tasks(word))]

    def details(self, job: str) -> Sequence[Command]:
        return [
            Command(("scontrol", "--oneliner", "show", "job", job)),
            Command(("sh", "-c", _ACCOUNTS, "sh", job)),
        ]

    def ended(self, job: Job, said: Sequence[Said]) -> Job:
        shown, accounted = said
        facts = dict(re.findall(r"(?:^|\s)([A-Za-z:/]+)=(\S*)", shown.out)) if shown.status == 0 else {}
        rows, who = _accounts(accounted)
        word = facts.get("JobState") or (rows[0][0] if rows else "")
        if not word:
            if shown.status and "Invalid job id" not in shown.err:
                raise CannotTell(self.title, shown.complaint)
            return _with(
                job,
                JobState.ENDED,
                End(EndKind.GONE, "Slurm no longer knows it, and keeps no accounts of it"),
            )
        state = STATES.get(word.split()[0], JobState.UNKNOWN)
        if state is not JobState.ENDED:
            return _with(job, state, None)
        # The controller knows at once how a job ended, the accounts by whom and with how much memory: seconds later.
        lags = bool(rows) and word in _WORTH_WAITING and rows[0][0].split()[0] != word.split()[0]
        return _with(job, state, replace(_end(word, facts, [] if lags else rows, who), lags=lags))

    def cancel(self, job: str) -> Command:
        return Command(("scancel", job))

    def cancelled(self, said: Said) -> None:
        gone = re.search(r"Invalid job id|already completing or completed", said.err)
        if said.status != 0 and not gone:
            raise CannotTell(self.title, said.complaint)

    def waiting(self, job: Job) -> str:
        return explain(one_line(job.reason))

    def way_in(self, job: Job) -> WayIn:
        # --unbuffered: without it slurmstepd passes on whole lines only (and on some releases uses a terminal for
        # stdout, with output processing off, so that all bytes come through).  --overlap: the job's own resources.
        command = (
            "srun",
            f"--jobid={job.id}",
            "--overlap",
            "--unbuffered",
            "--nodes=1",
            "--ntasks=1",
            f"--nodelist={job.node}",
            "--chdir=/",
            "--mpi=none",
            "--quiet",
        )
        return WayIn(command)


def _job(line: str) -> Job | None:
    fields = line.split("|", 7)
    if len(fields) != 8:
        return None
    number, name, word, node, starts, ends, queue, reason = fields
    state = STATES.get(word, JobState.UNKNOWN)
    if state is JobState.QUEUED and reason in HOLDING:
        state = JobState.HELD
    pending = state in (JobState.QUEUED, JobState.HELD)
    return Job(
        id=number,
        name=name,
        state=state,
        word=word,
        reason="" if reason in ("None", "(null)") else reason,
        node=node if re.fullmatch(r"[A-Za-z0-9][\w.-]*", node, re.ASCII) and not pending else "",
        starts=_time(starts),
        ends=None if pending else _time(ends),
        queue=queue,
    )


def _tasks(job: str) -> int:
    """How many an id of squeue's stands for: ``7``, ``7_2``, or ``7_[1-9:2,12%3]``, of which the end may be cut off."""
    _, bracket, inside = job.partition("_[")
    if not bracket:
        return 1
    count = 0
    for part in re.split(r"[%\]]", inside)[0].split(","):
        span = re.fullmatch(r"([0-9]{1,8})(?:-([0-9]{1,8})(?::([1-9][0-9]{0,7}))?)?", part, re.ASCII)
        if span:
            first, last = int(span[1]), int(span[2] or span[1])
            count += max(last - first, 0) // int(span[3] or 1) + 1
    return min(max(count, 1), _MOST_TASKS)


def _time(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[0-9]{1,12}", text, re.ASCII) else None


def _with(job: Job, state: JobState, end: End | None) -> Job:
    return Job(job.id, job.name, state, node=job.node, queue=job.queue, end=end)


def _clock(seconds: int) -> str:
    """As sbatch takes it: minutes:seconds."""
    return f"{seconds // 60}:{seconds % 60:02d}"


def _without_prefix(text: str) -> str:
    """The lines that say why, without the program's own words before them."""
    lines = [one_line(line) for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line] or lines[:1]
    return "; ".join(
        re.sub(r"^sbatch: (?:error: )?|Batch job submission failed: ", "", each) for each in errors
    )


def _accounts(said: Said) -> tuple[list[list[str]], str]:
    """What sacct knows of the job and its steps, and who cancelled it."""
    if said.status != 0:
        return [], ""
    lines = [line.split("|") for line in said.out.splitlines() if line]
    who = next((one_line(line[1])[:60] for line in lines if line[0] == "who"), "")
    return [line for line in lines if line[0] != "who" and len(line) == 5], who


def _end(word: str, facts: dict[str, str], rows: list[list[str]], who: str) -> End:
    state = word.partition(" ")[0]
    node = facts.get("BatchHost") or (rows[0][4] if rows else "")
    if state == "TIMEOUT":
        return time_limit_end(facts.get("TimeLimit", ""), "partition")
    if state == "OUT_OF_MEMORY":
        allocated = re.search(r"mem=([^,]+)", facts.get("AllocTRES") or facts.get("TRES") or "")
        asked = (
            facts.get("MinMemoryNode") or (allocated[1] if allocated else "") or (rows[0][3] if rows else "")
        )
        used = max((_size(row[2]) for row in rows), default=0.0)
        return out_of_memory_end(_readable(_size(asked)), _readable(used))
    if state == "PREEMPTED":
        return End(
            EndKind.PREEMPTED, "a job of higher priority took its place (preempted)", "Start the kernel again"
        )
    if state in ("NODE_FAIL", "BOOT_FAIL"):
        return End(
            EndKind.NODE_FAILED, f"its node {node} failed".replace("  ", " "), "Start the kernel again"
        )
    if state == "DEADLINE":
        return End(EndKind.TIME_LIMIT, "its deadline was reached")
    if state == "CANCELLED":
        # sacct(1): "CANCELLED by UID".
        by = re.fullmatch(r"CANCELLED by ([0-9]+)", rows[0][0], re.ASCII) if rows else None
        return cancelled_end(f" by {who or f'user {by[1]}'}" if by else "")
    status, _, signal = (facts.get("ExitCode") or (rows[0][1] if rows else "0:0")).partition(":")
    return failed_end(int(status or 0), int(signal or 0), node)


def _readable(size: float) -> str:
    return f"{size / (1 << 30):.1f}G" if size >= 10 << 30 else f"{size / MIB:.0f}M" if size else ""


def _size(text: str) -> float:
    """sacct(1): "1234K", "1.5G"; before 21.08 with "n" or "c" behind it, for a node or a CPU."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMGT]?)[nc]?", text, re.ASCII)
    return float(match[1]) * 1024.0 ** " KMGT".index(match[2] or " ") if match else 0.0


ADAPTER = Slurm()
