"""OpenPBS and PBS Professional: qsub(1B), qstat(1B), qselect(1B), qdel(1B)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ...launcher.text import one_line
from .contract import CannotTell, Command, End, EndKind, Job, JobState, Refused, Request, Said, Wanted, WayIn
from .ends import cancelled_end, failed_end, out_of_memory_end, time_limit_end
from .pbs_text import blocks, first_host, only_gone, seconds, why_waiting

KIB = 1024

# qstat(1B), "job_state".
STATES = {
    "Q": JobState.QUEUED,
    "W": JobState.QUEUED,
    "T": JobState.QUEUED,
    "M": JobState.QUEUED,
    "H": JobState.HELD,
    "R": JobState.RUNNING,
    "S": JobState.RUNNING,
    "U": JobState.RUNNING,
    "B": JobState.RUNNING,
    "E": JobState.ENDING,
    "F": JobState.ENDED,
    "X": JobState.ENDED,
}

# PBS Professional Administrator's Guide, "Job exit status codes": below zero the job was ended by PBS.
KILLED = {
    -29: EndKind.TIME_LIMIT,  # walltime
    -28: EndKind.TIME_LIMIT,  # cput
    -27: EndKind.OUT_OF_MEMORY,  # mem
    -26: EndKind.OUT_OF_MEMORY,  # vmem
}

# "qsub: cannot connect to server", "Connection refused", "Job rejected by all possible destinations" may be over soon;
# everything else that qsub says with a status is about the request.
_NO_ANSWER = re.compile(
    r"connect|timed? ?out|Communication|pbs_connect|socket|busy|Premature end", re.IGNORECASE
)

# A look at the jobs whose ids are known; of the others only the names are, and qselect(1B) finds their ids first.
# Where that is missing (slurm-wlm-torque), all jobs are looked at.
_LOOK = """\
command -v qselect >/dev/null 2>&1 || exec qstat {history} -f
for name; do ids="$ids $(qselect {history} -N "$name")"; done
[ -z "${{ids# }}" ] || qstat {history} -f $ids
"""


class Pbs:
    title = "PBS"
    longest_name = 15  # qsub(1B), -N, before PBS Pro 13
    program = "qsub"
    preparation = ""
    own_tmp = False
    history = "-x"  # qstat(1B): jobs that have ended too
    states: Mapping[str, JobState] = STATES
    killed: Mapping[int, EndKind] = KILLED

    def submit(self, request: Request, script: str) -> Command:
        argv = ["qsub", "-N", request.name, "-j", "oe", "-o", "/dev/null", "-S", "/bin/sh", "-r", "n"]
        if request.queue is not None:
            argv += ["-q", request.queue]
        argv += self.resources(request)
        if request.environment:
            argv += [
                "-v",
                ",".join(request.environment),
            ]  # by name: the values are taken from qsub's own environment
        return Command((*argv, *request.options), script, request.environment)

    def resources(self, request: Request) -> list[str]:
        chunk = [f"ncpus={request.cpus}"] if request.cpus is not None else []
        chunk += [f"mem={-(-request.memory // KIB)}kb"] if request.memory is not None else []
        if request.gpus:
            chunk.append(f"ngpus={request.gpus}")
            chunk += [f"accelerator_model={request.gpu_type}"] if request.gpu_type else []
        argv = []
        if chunk or request.nodes is not None:
            argv += ["-l", "select=" + ":".join([str(request.nodes or 1), *(chunk or ["ncpus=1"])])]
        if (request.nodes or 1) > 1:
            argv += ["-l", "place=scatter"]
        if request.time is not None:
            argv += ["-l", f"walltime={clock(request.time)}"]
        return argv

    def submitted(self, said: Said) -> str:
        # "12.server"; "12[].server" where somebody's options make an array of it: then it can at least be cancelled.
        match = re.search(r"^([0-9]+(?:\[[0-9]*\])?(?:\.[\w.-]+)?)\s*$", said.out, re.MULTILINE | re.ASCII)
        if said.status == 0 and match:
            return match[1]
        if said.status != 0 and not _NO_ANSWER.search(said.err):
            raise Refused(self.title, said.complaint.removeprefix("qsub: "))
        raise CannotTell(self.title, said.complaint)

    def query(self, wanted: Sequence[Wanted]) -> Sequence[Command]:
        known = [each.id for each in wanted if each.id]
        names = [each.name for each in wanted if not each.id]
        commands = [Command(("qstat", *self.history.split(), "-f", *known))] if known else []
        if names:
            commands.append(Command(("sh", "-c", _LOOK.format(history=self.history), "sh", *names)))
        return commands

    def jobs(self, said: Sequence[Said]) -> list[Job]:
        found = []
        for each in said:
            if each.cut or not only_gone(each):
                raise CannotTell(self.title, each.complaint)
            found += [self._job(number, attributes) for number, attributes in blocks(each.out)]
        return found

    def _job(self, number: str, attributes: dict[str, str]) -> Job:
        word = attributes.get("job_state", "")
        limit = seconds(attributes.get("resource_list.walltime", ""))
        used = seconds(attributes.get("resources_used.walltime", "0"))
        state = self.states.get(word, JobState.UNKNOWN)
        runs = state is JobState.RUNNING
        return Job(
            id=number,
            name=attributes.get("job_name", ""),
            state=state,
            word=word,
            reason=_held(attributes) if state is JobState.HELD else why_waiting(attributes),
            node=first_host(attributes.get("exec_host", "")),
            left=max(limit - used, 0) if runs and limit is not None and used is not None else None,
            queue=attributes.get("queue", ""),
        )

    def place(self, queue: str) -> Command | None:
        return None

    def order(self, said: Said) -> Sequence[str]:
        return []

    def details(self, job: str) -> Sequence[Command]:
        return [Command(("qstat", *self.history.split(), "-f", job))]

    def ended(self, job: Job, said: Sequence[Said]) -> Job:
        (shown,) = said
        if not only_gone(shown):
            raise CannotTell(self.title, shown.complaint)
        for number, attributes in blocks(shown.out):
            found = self._job(number, attributes)
            if found.state is not JobState.ENDED:
                return found
            return Job(
                found.id, found.name, JobState.ENDED, node=found.node, end=self._end(found, attributes)
            )
        end = End(EndKind.GONE, f"{self.title} no longer knows it, and keeps no history of it")
        return Job(job.id, job.name, JobState.ENDED, end=end)

    def _end(self, job: Job, attributes: dict[str, str]) -> End:
        comment = one_line(attributes.get("comment", ""))
        status = attributes.get("exit_status", "")
        number = int(status) if re.fullmatch(r"-?[0-9]{1,6}", status, re.ASCII) else None
        if number is not None and number in self.killed:
            if self.killed[number] is EndKind.TIME_LIMIT:
                return time_limit_end(attributes.get("resource_list.walltime", ""), "queue")
            used = attributes.get("resources_used.mem", "")
            return out_of_memory_end(attributes.get("resource_list.mem", ""), used)
        match = re.search(r"terminated by (\S+)", comment)
        if match:
            return cancelled_end(f" by {match[1]}")
        if number is None and job.node:  # slurm-wlm-torque gives no status at all
            return End(EndKind.FAILED, f"{self.title} does not say why", "Start the kernel again")
        if number is None:
            return cancelled_end(" before it ran")
        if number > 256:
            return cancelled_end()  # 256 + the signal: ended from outside (qdel sends TERM, then KILL)
        if number < 0:
            return End(
                EndKind.FAILED, f"{self.title} could not run it (status {number}): {comment}".rstrip(": ")
            )
        return failed_end(number, 0, job.node)

    def cancel(self, job: str) -> Command:
        return Command(("qdel", job))

    def cancelled(self, said: Said) -> None:
        if said.status != 0 and not only_gone(said):
            raise CannotTell(self.title, said.complaint)

    def waiting(self, job: Job) -> str:
        return job.reason or "the scheduler has not looked at it yet"

    def way_in(self, job: Job) -> WayIn | None:
        return None  # pbs_tmrsh and pbs_attach work from inside the job only


_HOLDS = {"u": "you hold it; let it go with: qrls", "o": "an operator holds it", "s": "the system holds it"}


def _held(attributes: dict[str, str]) -> str:
    """Hold_Types: qhold(1B)."""
    kinds = [words for letter, words in _HOLDS.items() if letter in attributes.get("hold_types", "")]
    return "; ".join(kinds) or "it is held"


def clock(total: int) -> str:
    """As PBS takes times: HH:MM:SS."""
    return f"{total // 3600:02d}:{total % 3600 // 60:02d}:{total % 60:02d}"


ADAPTER = Pbs()
