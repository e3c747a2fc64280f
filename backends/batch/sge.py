"""Grid Engine (Son of Grid Engine, Univa, Altair): qsub(1), qstat(1), qdel(1), qacct(1)."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from .contract import CannotTell, Command, End, EndKind, Job, JobState, Refused, Request, Said, Wanted, WayIn
from .ends import cancelled_end, failed_end

MIB = 1 << 20
_NO_ANSWER = re.compile(
    r"unable to (?:contact|send message to) qmaster|commlib error|got no response|timed? ?out|connect",
    re.IGNORECASE,
)
# accounting(5) and sge_status(5), "failed".
_FAILED = {
    37: (EndKind.TIME_LIMIT, "its time limit was reached (h_rt)"),
    25: (EndKind.REQUEUED, "it was rescheduled"),
    24: (EndKind.REQUEUED, "it was moved to another node"),
    21: (EndKind.NODE_FAILED, "its node could not recognise the job"),
}


class GridEngine:
    title = "Grid Engine"
    longest_name = 160
    program = "qsub"
    # settings.sh sets SGE_ROOT; without it nothing works.
    own_tmp = False
    preparation = (
        '[ -n "$SGE_ROOT" ] || for file in /etc/profile.d/*sge*.sh /etc/profile.d/*gridengine*.sh '
        "/opt/sge/default/common/settings.sh /usr/share/gridengine/default/common/settings.sh; do\n"
        '  [ ! -r "$file" ] || . "$file" >/dev/null 2>&1\n'
        "done"
    )

    def submit(self, request: Request, script: str) -> Command:
        argv = [
            "qsub",
            "-terse",
            "-N",
            request.name,
            "-j",
            "y",
            "-o",
            "/dev/null",
            "-S",
            "/bin/sh",
            "-r",
            "n",
        ]
        # A prefix that no line has: nothing in the script is an option.
        argv += ["-C", "#farkernel-has-none", "-wd", "/"]
        if request.queue is not None:
            argv += ["-q", request.queue]
        slots = (request.cpus or 1) * (request.nodes or 1)
        if slots > 1:
            argv += ["-pe", "smp" if (request.nodes or 1) == 1 else "mpi", str(slots)]
        wanted = (
            [f"h_vmem={-(-request.memory // (MIB * (request.cpus or 1)))}M"]
            if request.memory is not None
            else []
        )
        wanted += [f"h_rt={request.time}"] if request.time is not None else []
        wanted += [f"gpu={request.gpus}"] if request.gpus else []
        wanted += [f"gpu_type={request.gpu_type}"] if request.gpus and request.gpu_type else []
        if wanted:
            argv += ["-l", ",".join(wanted)]
        if request.environment:
            argv += [
                "-v",
                ",".join(request.environment),
            ]  # by name: the values are taken from qsub's own environment
        return Command((*argv, *request.options), script, request.environment)

    def submitted(self, said: Said) -> str:
        match = re.search(r"^([0-9]+)\s*$|Your job ([0-9]+) ", said.out, re.MULTILINE | re.ASCII)
        if said.status == 0 and match:
            return match[1] or match[2]
        if said.status != 0 and not _NO_ANSWER.search(said.err + said.out):
            lines = (said.err or said.out).strip().splitlines()
            reasons = [line for line in lines if line != "Exiting."] or [said.complaint]
            raise Refused(self.title, "; ".join(reasons).removeprefix("Unable to run job: "))
        raise CannotTell(self.title, said.complaint)

    def query(self, wanted: Sequence[Wanted]) -> Sequence[Command]:
        return [Command(("sh", "-c", 'qstat -xml -u "$(id -un)"'))]

    def jobs(self, said: Sequence[Said]) -> list[Job]:
        (shown,) = said
        if shown.status != 0 or shown.cut or "</job_info>" not in shown.out:
            raise CannotTell(self.title, shown.complaint)
        return [_job(block) for block in re.findall(r"<job_list\b.*?</job_list>", shown.out, re.DOTALL)]

    def place(self, queue: str) -> Command | None:
        return None

    def order(self, said: Said) -> Sequence[str]:
        return []

    def details(self, job: str) -> Sequence[Command]:
        return [*self.query([]), Command(("qacct", "-j", job))]

    def ended(self, job: Job, said: Sequence[Said]) -> Job:
        shown, accounted = said
        for found in self.jobs([shown]):
            if found.id == job.id:
                return found
        facts = dict(re.findall(r"^(\w+)[ \t]+(.*?)[ \t]*$", accounted.out, re.MULTILINE))
        if accounted.status != 0 or "exit_status" not in facts:
            end = End(
                EndKind.GONE, "Grid Engine no longer knows it, and its accounts (qacct) do not have it (yet)"
            )
        else:
            end = _end(facts)
        return Job(job.id, job.name, JobState.ENDED, node=facts.get("hostname", ""), end=end)

    def cancel(self, job: str) -> Command:
        return Command(("qdel", job))

    def cancelled(self, said: Said) -> None:
        words = said.out + said.err
        if said.status != 0 and not re.search(r"does not exist|already in deletion|has deleted job", words):
            raise CannotTell(self.title, said.complaint)

    def waiting(self, job: Job) -> str:
        if "E" in job.word:
            return f"it is in an error state, and will not start; see: qstat -j {job.id}"
        return "it is held; let it go with: qrls" if job.state is JobState.HELD else "it waits for free slots"

    def way_in(self, job: Job) -> WayIn | None:
        return None  # qrsh -inherit works from inside a parallel job only


def _state(word: str) -> JobState:
    """qstat(1), "state": several letters at once."""
    for letters, state in _LETTERS:
        if any(letter in word for letter in letters):
            return state
    return JobState.UNKNOWN


_LETTERS = (
    ("d", JobState.ENDING),
    ("E", JobState.HELD),
    ("h", JobState.HELD),
    ("w", JobState.QUEUED),
    ("t", JobState.STARTING),
    ("rsSTRP", JobState.RUNNING),
)


def _job(block: str) -> Job:
    def value(name: str) -> str:
        match = re.search(rf"<{name}>(.*?)</{name}>", block, re.DOTALL)
        return html.unescape(match[1]).strip() if match else ""

    queue, _, node = value("queue_name").partition("@")
    word = value("state")
    return Job(
        id=value("JB_job_number"),
        name=value("JB_name"),
        state=_state(word),
        word=word,
        node=node if re.fullmatch(r"[A-Za-z0-9][\w.-]*", node, re.ASCII) else "",
        queue=queue,
    )


def _end(facts: dict[str, str]) -> End:
    """accounting(5): failed, exit_status (128 + the signal), maxvmem, deleted_by."""
    number = re.match(r"[0-9]+", facts.get("failed", ""), re.ASCII)
    code = int(number[0]) if number else 0
    if code in _FAILED:
        kind, text = _FAILED[code]
        return End(kind, text, _ADVICE.get(kind, "Start the kernel again"))
    who = facts.get("deleted_by", "NONE")
    if who not in ("NONE", "", "UNKNOWN"):
        return cancelled_end(f" by {who}")
    found = re.match(r"[0-9]+", facts["exit_status"], re.ASCII)  # "137   (Killed)"
    status = int(found[0]) if found else 0
    if code == 100 or status > 128:
        used = f"; it had used {facts['maxvmem']} of memory" if facts.get("maxvmem") else ""
        return End(
            EndKind.CANCELLED,
            f"it was killed by signal {status - 128 if status > 128 else status}{used}",
            "It was cancelled, or over a limit (h_rt, h_vmem): see qacct -j",
        )
    return failed_end(status, 0, facts.get("hostname", ""))


_ADVICE = {EndKind.TIME_LIMIT: 'Ask for more: resources = { time = "…" }, as far as the queue allows'}

ADAPTER = GridEngine()
