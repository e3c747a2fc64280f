"""HTCondor 9 and later: condor_submit(1), condor_q(1), condor_history(1), condor_rm(1)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from ...launcher.text import one_line
from .contract import CannotTell, Command, End, EndKind, Job, JobState, Refused, Request, Said, Wanted, WayIn
from .ends import cancelled_end, failed_end, out_of_memory_end, time_limit_end
from .job_script import RENDEZVOUS

MIB = 1 << 20

# HTCondor manual, "Job ClassAd attributes", JobStatus.
STATES = {
    1: JobState.QUEUED,
    2: JobState.RUNNING,
    3: JobState.ENDED,
    4: JobState.ENDED,
    5: JobState.HELD,
    6: JobState.ENDING,
    7: JobState.RUNNING,
}

# The same, HoldReasonCode: a job that went over a limit is put on hold, and would run all over again.
_LIMITS = {
    34: EndKind.OUT_OF_MEMORY,
    46: EndKind.TIME_LIMIT,  # of the job
    47: EndKind.TIME_LIMIT,  # of one execution
}
_STARTING_AT_MOST = 60
_IS_LIMIT = " || ".join(f"HoldReasonCode =?= {code}" for code in _LIMITS)

_ATTRIBUTES = (
    "ClusterId,JobStatus,JobBatchName,HoldReason,HoldReasonCode,LastHoldReason,LastHoldReasonCode,RemoteHost,LastRemoteHost,"
    "RemoveReason,ExitCode,ExitBySignal,ExitSignal,RequestMemory,MemoryProvisioned,ResidentSetSize,JobCurrentStartDate,"
    "JobCurrentStartExecutingDate,EnteredCurrentStatus,ServerTime,AllowedExecuteDuration,NumJobStarts,LastRejMatchReason"
)
_NO_ANSWER = re.compile(r"connect|schedd|timed? ?out|communication|credd|Failed to queue", re.IGNORECASE)

# The job's script is a file that is transferred; the description comes as arguments, a line in each.
_SUBMIT = f"""\
umask 077
directory=$HOME/{RENDEZVOUS}
file=$directory/$1.sh
shift
mkdir -p "$directory" && cat >"$file" && chmod 700 "$file" || exit 75
printf 'executable = %s\\nqueue\\n' "$file" | condor_submit -terse "$@" -
"""


class HtCondor:
    title = "HTCondor"
    longest_name = 160
    program = "condor_submit"
    preparation = ""
    own_tmp = True  # HTCondor manual, MOUNT_UNDER_SCRATCH

    def submit(self, request: Request, script: str) -> Command:
        environment = {**request.environment, "FARKERNEL_JOB_NAME": request.name}
        pairs = " ".join(f"{name}={_quoted(value)}" for name, value in environment.items())
        lines = [
            "universe = vanilla",
            f"batch_name = {request.name}",
            "should_transfer_files = YES",
            "when_to_transfer_output = ON_EXIT",
            "transfer_output_files =",
            "on_exit_remove = True",
            # The script lets SIGTERM pass (job_script.py), and would be waited for, ten minutes as a rule.
            "kill_sig = SIGKILL",
            f"periodic_remove = JobStatus == 5 && ({_IS_LIMIT})",
            f'environment = "{pairs}"',
        ]
        if request.cpus is not None:
            lines.append(f"request_cpus = {request.cpus}")
        if request.memory is not None:
            lines.append(f"request_memory = {-(-request.memory // MIB)}")
        if request.gpus:
            lines.append(f"request_gpus = {request.gpus}")
            # "NVIDIA A100-SXM4-40GB" is an a100.
            pattern = re.sub("[^A-Za-z0-9]", ".", request.gpu_type or "")
            lines += [f'require_gpus = regexp("{pattern}", DeviceName, "i")'] if pattern else []
        if request.time is not None:
            lines.append(f"allowed_execute_duration = {request.time}")
        if request.queue is not None:
            lines.append(f'+Queue = "{request.queue}"')
        appended = [word for line in (*lines, *request.options) for word in ("-append", line)]
        return Command(("sh", "-c", _SUBMIT, "sh", request.name, *appended), script)

    def submitted(self, said: Said) -> str:
        match = re.search(r"^([0-9]+)\.[0-9]+ - [0-9]+\.[0-9]+", said.out, re.MULTILINE | re.ASCII)
        if said.status == 0 and match:
            return match[1]
        if said.status != 0 and not _NO_ANSWER.search(said.err):
            raise Refused(self.title, _words(said))
        raise CannotTell(self.title, _words(said))

    def query(self, wanted: Sequence[Wanted]) -> Sequence[Command]:
        ours = 'regexp("^fk-", JobBatchName)'
        return [Command(("condor_q", "-json", "-constraint", ours, "-attributes", _ATTRIBUTES))]

    def jobs(self, said: Sequence[Said]) -> list[Job]:
        return [_job(each) for each in self._ads(said[0])]

    def _ads(self, said: Said) -> list[dict[str, Any]]:
        """condor_q prints nothing at all where there is nothing."""
        if said.status != 0 or said.cut:
            raise CannotTell(self.title, _words(said))
        try:
            found = json.loads(said.out) if said.out.strip() else []
        except ValueError:
            raise CannotTell(self.title, _words(said)) from None
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

    def place(self, queue: str) -> Command | None:
        return None

    def order(self, said: Said) -> Sequence[str]:
        return []

    def details(self, job: str) -> Sequence[Command]:
        return [
            Command(("condor_q", "-json", job, "-attributes", _ATTRIBUTES)),
            Command(("condor_history", "-json", "-limit", "1", "-attributes", _ATTRIBUTES, job)),
        ]

    def ended(self, job: Job, said: Sequence[Said]) -> Job:
        for each in (*self._ads(said[0]), *self._ads(said[1])):
            return _job(each)
        return Job(job.id, job.name, JobState.ENDED, end=End(EndKind.GONE, "HTCondor no longer knows it"))

    def cancel(self, job: str) -> Command:
        return Command(("condor_rm", job))

    def cancelled(self, said: Said) -> None:
        if said.status != 0 and not re.search(r"not found|Couldn't find|already", said.out + said.err):
            raise CannotTell(self.title, _words(said))

    def waiting(self, job: Job) -> str:
        if job.state is JobState.HELD:
            return f"{job.reason or 'nobody says why'}; let it go with: condor_release {job.id}"
        return job.reason or "no machine has been found for it yet"

    def way_in(self, job: Job) -> WayIn | None:
        """condor_ssh_to_job(1), which knows the host's key."""
        return WayIn(("condor_ssh_to_job", "-ssh", "ssh -T -q", job.id), joins_words=True)


def _words(said: Said) -> str:
    """Its first paragraph; the others explain what may be the cause."""
    first = said.err.strip().partition("\n\n")[0]
    return one_line(first).removeprefix("ERROR: ").removeprefix("Error: ") or said.complaint


def _quoted(value: str) -> str:
    """condor_submit(1), "environment", new syntax: single quotes around, both kinds of quotes doubled."""
    return "'" + value.replace("'", "''").replace('"', '""') + "'"


def _job(ad: dict[str, Any]) -> Job:
    status = ad.get("JobStatus")
    state = STATES.get(status, JobState.UNKNOWN) if isinstance(status, int) else JobState.UNKNOWN
    begun, limit = _number(ad, "JobCurrentStartExecutingDate"), _number(ad, "AllowedExecuteDuration")
    if state is JobState.HELD and ad.get("HoldReasonCode") in _LIMITS:
        state = JobState.ENDED
    elif status == 2 and _still_starting(ad, begun):
        state = JobState.STARTING
    host = str(ad.get("RemoteHost") or ad.get("LastRemoteHost") or "").rpartition("@")[2]
    node = host if re.fullmatch(r"[A-Za-z0-9][\w.-]*", host, re.ASCII) else ""
    runs = state is JobState.RUNNING
    return Job(
        id=str(ad.get("ClusterId", "")),
        name=str(ad.get("JobBatchName", "")),
        state=state,
        word=str(status),
        reason=one_line(ad.get("HoldReason") or _unmatched(ad))[:300],
        node=node,
        starts=_number(ad, "JobCurrentStartDate") if runs else None,
        ends=begun + limit if runs and begun is not None and limit is not None else None,
        end=_end(ad, node) if state is JobState.ENDED else None,
    )


def _number(ad: dict[str, Any], name: str) -> float | None:
    """What is no number is an expression, or not there."""
    value = ad.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _still_starting(ad: dict[str, Any], begun: float | None) -> bool:
    """It has a machine, to which its script is being brought.  Whether that is done may be told late."""
    entered, now = _number(ad, "EnteredCurrentStatus") or 0, _number(ad, "ServerTime") or 0
    return (begun or 0) < entered and now - entered < _STARTING_AT_MOST


def _unmatched(ad: dict[str, Any]) -> str:
    """The negotiator's own words, where it has looked: "no match found "."""
    words = one_line(ad.get("LastRejMatchReason") or "").strip()
    again = "it ran before, and was put back into the queue; " if _number(ad, "NumJobStarts") else ""
    return again + ("no free machine has what it asks for" if words == "no match found" else words)


def _end(ad: dict[str, Any], node: str) -> End:
    code, why = (
        ("HoldReasonCode", "HoldReason")
        if ad.get("JobStatus") == 5
        else ("LastHoldReasonCode", "LastHoldReason")
    )
    kind = _LIMITS.get(ad.get(code, 0))
    if kind is EndKind.TIME_LIMIT:
        return time_limit_end(one_line(ad.get(why) or "")[:200], "pool")
    if kind is EndKind.OUT_OF_MEMORY:
        had, used = _number(ad, "MemoryProvisioned"), _number(ad, "ResidentSetSize")
        return out_of_memory_end(f"{had:g} MB" if had else "", f"{used / 1024:.0f} MB" if used else "")
    removed = one_line(ad.get("RemoveReason") or "")
    if ad.get("JobStatus") == 3:
        return cancelled_end(f" ({removed[:200]})" if removed else "")
    status, number = ad.get("ExitCode"), ad.get("ExitSignal")
    killed = bool(ad.get("ExitBySignal")) and isinstance(number, int)
    return failed_end(status if isinstance(status, int) else 0, int(number or 0) if killed else 0, node)


ADAPTER = HtCondor()
