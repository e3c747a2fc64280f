"""HTCondor 9 and later: condor_submit(1), condor_q(1), condor_history(1), condor_rm(1)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from ...launcher.text import one_line
from .contract import CannotTell, Command, End, EndKind, Job, JobState, Refused, Request, Said, Wanted, WayIn
from .ends import cancelled_end, failed_end
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

_ATTRIBUTES = (
    "ClusterId,JobStatus,JobBatchName,HoldReason,RemoteHost,LastRemoteHost,RemoveReason,ExitCode,ExitBySignal,ExitSignal,"
    "MemoryUsage,RequestMemory"
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
            f'environment = "{pairs}"',
        ]
        if request.cpus is not None:
            lines.append(f"request_cpus = {request.cpus}")
        if request.memory is not None:
            lines.append(f"request_memory = {-(-request.memory // MIB)}")
        if request.gpus:
            lines.append(f"request_gpus = {request.gpus}")
            lines += [f'require_gpus = DeviceName == "{request.gpu_type}"'] if request.gpu_type else []
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
            raise Refused(self.title, said.complaint.removeprefix("ERROR: "))
        raise CannotTell(self.title, said.complaint)

    def query(self, wanted: Sequence[Wanted]) -> Sequence[Command]:
        ours = 'regexp("^fk-", JobBatchName)'
        return [Command(("condor_q", "-json", "-constraint", ours, "-attributes", _ATTRIBUTES))]

    def jobs(self, said: Sequence[Said]) -> list[Job]:
        return [_job(each) for each in self._ads(said[0])]

    def _ads(self, said: Said) -> list[dict[str, Any]]:
        """condor_q prints nothing at all where there is nothing."""
        if said.status != 0 or said.cut:
            raise CannotTell(self.title, said.complaint)
        try:
            found = json.loads(said.out) if said.out.strip() else []
        except ValueError:
            raise CannotTell(self.title, said.complaint) from None
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
            raise CannotTell(self.title, said.complaint)

    def waiting(self, job: Job) -> str:
        return job.reason or "no machine has been found for it yet"

    def way_in(self, job: Job) -> WayIn | None:
        return None


def _quoted(value: str) -> str:
    """condor_submit(1), "environment", new syntax: single quotes around, both kinds of quotes doubled."""
    return "'" + value.replace("'", "''").replace('"', '""') + "'"


def _job(ad: dict[str, Any]) -> Job:
    status = ad.get("JobStatus")
    state = STATES.get(status, JobState.UNKNOWN) if isinstance(status, int) else JobState.UNKNOWN
    host = str(ad.get("RemoteHost") or ad.get("LastRemoteHost") or "").rpartition("@")[2]
    node = host if re.fullmatch(r"[A-Za-z0-9][\w.-]*", host, re.ASCII) else ""
    return Job(
        id=str(ad.get("ClusterId", "")),
        name=str(ad.get("JobBatchName", "")),
        state=state,
        word=str(status),
        reason=one_line(ad.get("HoldReason") or "")[:300],
        node=node,
        end=_end(ad, node) if state is JobState.ENDED else None,
    )


def _end(ad: dict[str, Any], node: str) -> End:
    removed = one_line(ad.get("RemoveReason") or "")
    if ad.get("JobStatus") == 3:
        return cancelled_end(f" ({removed[:200]})" if removed else "")
    status, number = ad.get("ExitCode"), ad.get("ExitSignal")
    killed = bool(ad.get("ExitBySignal")) and isinstance(number, int)
    return failed_end(status if isinstance(status, int) else 0, int(number or 0) if killed else 0, node)


ADAPTER = HtCondor()
