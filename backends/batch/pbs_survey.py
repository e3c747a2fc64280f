"""OpenPBS, PBS Pro and Torque: pbsnodes(8B), qstat(1B), qselect(1B).

Text and not ``-F json``: the text says the same, and cannot be invalid (DESIGN §4); Torque has no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ...launcher.discovery.cluster import Cluster, ClusterProblem, Gpus, Limit, Node, Queue, with_nodes
from ...launcher.text import one_line
from .contract import CannotTell, Command, Job, Said
from .pbs import ADAPTER, Pbs
from .pbs_text import queue_blocks, seconds
from .survey import my_job

# qselect(1B) finds the ids; without any, qstat would show everybody's jobs.
_MINE = 'ids=$(qselect -u "$(id -un)") || exit; [ -z "$ids" ] || qstat -f $ids'

# pbs_node_attributes(7B), "state"; several words may stand there.  What is not here may not be used now.
_STATES = {
    "free": "idle",
    "job-busy": "allocated",
    "job-exclusive": "allocated",
    "resv-exclusive": "reserved",
    "busy": "allocated",
    "reserve": "reserved",
    "time-shared": "mixed",
    "sleep": "idle",
    "offline": "drained",
    "maintenance": "drained",
    "provisioning": "down",
    "stale": "down",
    "down": "down",
}
_WORST = ("down", "drained", "reserved", "allocated", "mixed", "idle")
_FREE = frozenset({"idle", "mixed"})


class PbsSurveyor:
    """See `survey.Surveyor`."""

    adapter: Pbs = ADAPTER
    vnodes: tuple[str, ...] = ("pbsnodes", "-av")

    def commands(self) -> Sequence[Command]:
        return [
            Command(self.vnodes),
            Command(("qstat", "-Qf")),
            *self.mine(),
            Command(("id", "-un")),
            Command(("id", "-Gn")),
        ]

    def mine(self) -> Sequence[Command]:
        return [Command(("sh", "-c", _MINE))]

    def my_jobs(self, said: Sequence[Said]) -> list[Job]:
        return self.adapter.jobs(said)

    def read(self, said: Sequence[Said]) -> Cluster:
        listed, queues, mine, user, groups = said
        if listed.cut or (listed.status and not listed.out.strip()):
            why = "it says more than 4 MiB" if listed.cut else listed.complaint
            raise CannotTell(self.adapter.title, why)
        problems = [
            ClusterProblem(part, answer.complaint)
            for part, answer in (("queues", queues), ("jobs", mine))
            if answer.status
        ]
        found = [(name, attributes) for name, attributes in node_blocks(listed.out)]
        nodes = [self.node(name, attributes) for name, attributes in found]
        shown = []
        for name, attributes in queue_blocks(queues.out):
            queue = read_queue(name, attributes, one_line(user.out), groups.out.split())
            if queue is not None:
                served = [
                    each
                    for each, (_, about) in zip(nodes, found, strict=True)
                    if serves(name, attributes, about)
                ]
                shown.append(with_nodes(queue, [replace(each, queues=()) for each in served]))
        if len(shown) == 1:
            shown = [replace(shown[0], default=True)]
        return Cluster(
            scheduler=self.adapter.title,
            queues=tuple(shown),
            nodes=tuple(nodes),
            jobs=tuple(my_job(self.adapter, job) for job in ([] if mine.status else self.my_jobs([mine]))),
            problems=tuple(problems),
        )

    def node(self, name: str, facts: Mapping[str, str]) -> Node:
        """resources_available less resources_assigned."""

        def amount(resource: str) -> tuple[int | None, int | None]:
            total = number(facts.get(f"resources_available.{resource}", ""))
            used = number(facts.get(f"resources_assigned.{resource}", "")) or 0
            return total, None if total is None else max(total - used, 0)

        state, (cpus, left), (memory, unused) = (
            node_state(facts.get("state", "")),
            amount("ncpus"),
            amount("mem"),
        )
        if state == "idle" and left is not None and cpus is not None and left < cpus:
            state = "mixed" if left else "allocated"
        gpus, idle = amount("ngpus")
        kind = one_line(facts.get("resources_available.accelerator_model", "")) or None
        return fitted(
            Node(
                name=one_line(name),
                state=state,
                word=one_line(facts.get("state", "")) or None,
                queues=tuple(map(one_line, filter(None, [facts.get("queue")]))),
                cpus=cpus,
                cpus_free=left,
                memory=memory,
                memory_free=unused,
                gpus=(Gpus(kind, gpus, idle),) if gpus else (),
            )
        )


# -- nodes -------------------------------------------------------------------------------------------------


def node_blocks(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Node → attributes, names in lower case; a block begins with a line that is not indented."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line and not line[0].isspace():
            if name:
                yield name, found
            name, found = line.strip(), {}
        elif name and (match := re.match(r"\s+([\w.]+) = (.*)", line)):
            found[match[1].lower()] = match[2].strip()
    if name:
        yield name, found


def node_state(text: str) -> str:
    """The worst of "state"'s words."""
    words = [one_line(word).lower() for word in text.split(",") if word.strip()]
    found = {
        _STATES.get(word, "down" if "unknown" in word or "down" in word else "unknown") for word in words
    }
    return next((state for state in _WORST if state in found), "unknown")


def fitted(node: Node) -> Node:
    """A node that starts nothing has nothing free."""
    if node.state in _FREE:
        return node
    return replace(
        node,
        cpus_free=None if node.cpus_free is None else 0,
        memory_free=None if node.memory_free is None else 0,
        gpus=tuple(replace(each, free=None if each.free is None else 0) for each in node.gpus),
    )


_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}


def number(text: str) -> int | None:
    """A count, or a size: ``24684096kb``, ``4gb``, ``512mw`` (words of 8 bytes)."""
    match = re.fullmatch(r"\s*([0-9]{1,15})(?:([kmgtp]?)([bw]))?\s*", text, re.ASCII | re.IGNORECASE)
    if match is None:
        return None
    return (int(match[1]) << _UNITS[(match[2] or "").lower()]) * (8 if (match[3] or "").lower() == "w" else 1)


# -- queues ------------------------------------------------------------------------------------------------

_WHAT = {"ncpus": "cpus", "mem": "memory", "ngpus": "gpus", "gpus": "gpus", "nodect": "nodes"}
_WHOM = {"u": "user", "g": "group", "p": "project", "o": "all"}


def read_queue(name: str, facts: Mapping[str, str], user: str, groups: Sequence[str]) -> Queue | None:
    """pbs_queue_attributes(7B); None: a queue that only passes jobs on."""
    if facts.get("queue_type", "Execution").lower().startswith("r"):
        return None
    enabled, started = _is_true(facts.get("enabled", "")), _is_true(facts.get("started", ""))
    counts = dict(re.findall(r"(\w+):([0-9]{1,9})", facts.get("state_count", "")))
    why = None if enabled is not False else "it takes no jobs now"
    queue = Queue(
        name=one_line(name),
        open=None if enabled is None and started is None else enabled is not False and started is not False,
        why=why or ("it starts no jobs now" if started is False else None),
        usable=True,
        time_limit=seconds(facts.get("resources_max.walltime", "")),
        time_default=seconds(facts.get("resources_default.walltime", "")),
        running=int(counts["Running"]) if "Running" in counts else None,
        waiting=int(counts.get("Queued", 0)) + int(counts.get("Waiting", 0)) if counts else None,
        groups=_listed(facts, "group"),
        limits=tuple(_limits(facts)),
    )
    if queue.groups and groups and not set(queue.groups) & set(groups):
        queue = replace(queue, usable=False, why=f"only for the groups {', '.join(queue.groups)}")
    people = {each.partition("@")[0] for each in _listed(facts, "user")}
    if people and user and not people & {user, "+"}:
        queue = replace(queue, usable=False, why="only for some users")
    return queue


def _is_true(word: str) -> bool | None:
    return None if not word else word.lower() in ("true", "1", "yes", "t", "y")


def _listed(facts: Mapping[str, str], kind: str) -> tuple[str, ...]:
    """Who may use a queue (acl_groups, acl_users), where the list is in force."""
    if not _is_true(facts.get(f"acl_{kind}_enable", "")):
        return ()
    return tuple(one_line(each) for each in facts.get(f"acl_{kind}s", "").split(",") if each.strip())


def _limits(facts: Mapping[str, str]) -> Iterator[Limit]:
    """``resources_max.ngpus = 99``, ``max_user_run = 4``, ``max_run_res.ncpus = [u:PBS_GENERIC=200]``."""
    for key, value in facts.items():
        kind, _, resource = key.partition(".")
        if kind == "resources_max" and resource in _WHAT:
            if (most := number(value)) is not None:
                yield Limit("job", _WHAT[resource], most)
        elif key in ("max_user_run", "max_user_queuable") and (most := number(value)) is not None:
            yield Limit("user", "jobs" if key == "max_user_run" else "waiting", most)
        elif kind in ("max_run", "max_queued", "max_run_res", "max_queued_res"):
            what = _WHAT.get(resource, resource) or ("jobs" if kind == "max_run" else "waiting")
            for whom, most_ in re.findall(r"\b([ugpo]):PBS_(?:GENERIC|ALL)=(\w{1,20})", value):
                if (most := number(most_)) is not None:
                    yield Limit(_WHOM[whom], one_line(what), most)


def serves(queue: str, facts: Mapping[str, str], node: Mapping[str, str]) -> bool:
    """Whether jobs of the queue may run on the node: one belongs to a queue, or has what the queue's chunks ask for."""
    if node.get("queue"):
        return node["queue"] == queue
    wanted = {
        key.removeprefix("default_chunk."): value
        for key, value in facts.items()
        if key.startswith("default_chunk.")
    }
    for resource, value in wanted.items():
        offered = node.get(f"resources_available.{resource}")
        if resource not in _AMOUNTS and value not in [each.strip() for each in (offered or "").split(",")]:
            return False
    return True


_AMOUNTS = frozenset(
    {"ncpus", "mem", "ngpus", "vmem", "mpiprocs", "ompthreads", "walltime", "nodect", "pmem"}
)

SURVEYOR = PbsSurveyor()
