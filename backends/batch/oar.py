"""OAR 2.5: oarsub(1), oarstat(1), oardel(1), oarsh(1)."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

from ...launcher.text import one_line
from .contract import CannotTell, Command, End, EndKind, Job, JobState, Refused, Request, Said, Wanted, WayIn
from .ends import cancelled_end, failed_end, time_limit_end
from .pbs import clock
from .private_file import with_script

# OAR's documentation, "Job states".
STATES = {
    "Waiting": JobState.QUEUED,
    "toAckReservation": JobState.QUEUED,
    "Hold": JobState.HELD,
    "toLaunch": JobState.STARTING,
    "Launching": JobState.STARTING,
    "Running": JobState.RUNNING,
    "Suspended": JobState.RUNNING,
    "Resuming": JobState.RUNNING,
    "Finishing": JobState.ENDING,
    "toError": JobState.ENDING,
    "Terminated": JobState.ENDED,
    "Error": JobState.ENDED,
}


class Oar:
    title = "OAR"
    longest_name = 100
    program = "oarsub"
    preparation = ""
    own_tmp = False

    def submit(self, request: Request, script: str) -> Command:
        argv = ["oarsub", "-n", request.name, "-O", "/dev/null", "-E", "/dev/null", "-d", "/"]
        if request.queue is not None:
            argv += ["-q", request.queue]
        parts = [f"nodes={request.nodes or 1}"]
        # One contains the other, as they stand: so many cores of each GPU.
        parts += [f"gpu={request.gpus}"] if request.gpus else []
        parts += [f"core={-(-request.cpus // (request.gpus or 1))}"] if request.cpus is not None else []
        wanted = "/" + "/".join(parts)
        argv += ["-l", wanted + (f",walltime={clock(request.time)}" if request.time is not None else "")]
        if request.gpu_type:
            argv += ["-p", f"gpu_model='{request.gpu_type}'"]
        # A job has nothing of the environment that it was submitted in; its command is a line for a shell.
        words = [f"{name}={shlex.quote(value)}" for name, value in request.environment.items()]
        before = " ".join(["env", *words, ""]) if words else ""
        return with_script(request.name, [*argv, *request.options], script, {}, before)

    def submitted(self, said: Said) -> str:
        match = re.search(r"OAR_JOB_ID=([0-9]+)", said.out, re.ASCII)
        if match:
            return match[1]
        # oarsub talks to a database; it says so when that does not answer.  The first line says what is wrong.
        why = next((line for line in said.err.splitlines() if line.strip()), said.complaint)
        if said.status != 0 and not re.search(r"connect|database|DBI|timed? ?out", said.err, re.IGNORECASE):
            raise Refused(self.title, why)
        raise CannotTell(self.title, why)

    def query(self, wanted: Sequence[Wanted]) -> Sequence[Command]:
        # Until OAR 2.6 it takes -f to be told when a job begins and ends.
        look = 'oarstat -f -J -u "$(id -un)"; for job; do oarstat -f -J -j "$job" 2>/dev/null; done'
        return [Command(("sh", "-c", look, "sh", *(each.id for each in wanted if each.id)))]

    def jobs(self, said: Sequence[Said]) -> list[Job]:
        (shown,) = said
        if shown.cut:
            raise CannotTell(self.title, "it said too much")
        found: dict[str, Job] = {}
        for number, facts in self._objects(shown):
            found[number] = _job(number, facts)
        return list(found.values())

    def _objects(self, shown: Said) -> list[tuple[str, dict[str, Any]]]:
        """One JSON object after another: number → facts."""
        decoder, text, found = json.JSONDecoder(), shown.out.strip(), []
        while text:
            try:
                value, end = decoder.raw_decode(text)
            except ValueError:
                raise CannotTell(self.title, shown.complaint) from None
            text = text[end:].lstrip()
            if isinstance(value, dict):
                found += [(str(key), each) for key, each in value.items() if isinstance(each, dict)]
        if not found and shown.err.strip():
            raise CannotTell(self.title, shown.complaint)
        return found

    def place(self, queue: str) -> Command | None:
        return None

    def order(self, said: Said) -> Sequence[str]:
        return []

    def details(self, job: str) -> Sequence[Command]:
        return [Command(("oarstat", "-f", "-J", "-j", job))]

    def ended(self, job: Job, said: Sequence[Said]) -> Job:
        for number, facts in self._objects(said[0]):
            if number == job.id:
                return _job(number, facts)
        return Job(job.id, job.name, JobState.ENDED, end=End(EndKind.GONE, "OAR no longer knows it"))

    def cancel(self, job: str) -> Command:
        return Command(("oardel", job))

    def cancelled(self, said: Said) -> None:
        words = said.out + said.err
        if said.status != 0 and not re.search(
            r"REGISTERED|already|not exist|not found|finished|not the right user", words, re.IGNORECASE
        ):
            raise CannotTell(self.title, said.complaint)

    def waiting(self, job: Job) -> str:
        if job.state is JobState.HELD:
            return f"{job.reason or 'nobody says why'}; let it go with: oarresume {job.id}"
        return job.reason or "it waits for free resources"

    def way_in(self, job: Job) -> WayIn | None:
        # oarsh(1): a job from outside by OAR_JOB_ID.
        command = ("env", f"OAR_JOB_ID={job.id}", "oarsh", "-T", "-q", job.node)
        return WayIn(command, joins_words=True) if job.node else None


def _job(number: str, facts: dict[str, Any]) -> Job:
    word = str(facts.get("state", ""))
    state = STATES.get(word, JobState.UNKNOWN)
    nodes = facts.get("assigned_network_address") or [""]
    node = str(nodes[0] if isinstance(nodes, list) else nodes)
    ends = _number(facts.get("startTime")), _number(facts.get("walltime"))
    node = node if re.fullmatch(r"[A-Za-z0-9][\w.-]*", node, re.ASCII) else ""
    begun = ends[0] is not None and ends[1] is not None and state is JobState.RUNNING
    return Job(
        id=number,
        name=str(facts.get("name") or ""),
        state=state,
        word=word,
        reason=_reason(facts),
        node=node,
        starts=_number(facts.get("scheduledStart")),
        ends=(ends[0] or 0) + (ends[1] or 0) if begun else None,
        queue=str(facts.get("queue") or ""),
        end=_end(word, facts, node) if state is JobState.ENDED else None,
    )


def _number(value: object) -> float | None:
    text = str(value)
    return float(text) if re.fullmatch(r"[0-9]{1,12}", text, re.ASCII) and text != "0" else None


def _events(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """OAR's documentation, "Events": what happened to a job, first the oldest."""
    found = facts.get("events")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _reason(facts: dict[str, Any]) -> str:
    """Who holds it, or the scheduler's words: "R=1,W=0:10:0,J=B,N=… (Karma=0.000,quota_ok)" where nothing is wrong."""
    held = [each for each in _events(facts) if "HOLD" in str(each.get("type"))]
    if facts.get("state") == "Hold" and held:
        return one_line(held[-1].get("description") or "")[:200]
    message = one_line(facts.get("message") or "")
    if not re.match(r"R=[0-9]+,W=", message):
        return message[:200]
    inside = message.rpartition("(")[2].rstrip(")").split(",")
    return ", ".join(each for each in inside if each.startswith("quota") and each != "quota_ok")[:200]


def _end(word: str, facts: dict[str, Any], node: str) -> End:
    events = {str(each.get("type")): one_line(each.get("description") or "") for each in _events(facts)}
    if any("WALLTIME" in each for each in events):
        return time_limit_end("", "queue")
    if "FRAG_JOB_REQUEST" in events:
        who = re.match(r"User (\S+) requested", events["FRAG_JOB_REQUEST"])
        return cancelled_end(f" by {who[1]}" if who else "")
    code = str(facts.get("exit_code") or "0")
    number = int(code) if code.isdecimal() else 0
    if word == "Error":
        why = " ".join(events) or facts.get("message") or "error"
        return End(EndKind.FAILED, f"OAR says: {one_line(why)[:200]}")
    return failed_end(number >> 8, number & 0x7F, node)


ADAPTER = Oar()
