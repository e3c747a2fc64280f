"""A cluster as lines for people: what the terminal and the page show."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..discovery.cluster import Account, Cluster, MyJob, Node, Queue, sum_gpus
from ..discovery.cluster_text import about_queue, gpus_text, limit_text
from .machine_lines import Line, level
from .table import duration, size

_MOST_JOBS = 10
_MOST_LIMITS = 6


def title(cluster: Cluster) -> str:
    """One line about the cluster as a whole."""
    name = " ".join(part for part in (cluster.scheduler, cluster.release) if part)
    states = Counter(node.state for node in cluster.nodes)
    count = len(cluster.nodes)
    nodes = f"{count} node{'s' * (count != 1)}" if count else ""
    if nodes:
        nodes += f" ({', '.join(f'{number} {state}' for state, number in states.most_common())})"
    return " · ".join(part for part in (name, nodes) if part)


def lines(cluster: Cluster, targets: Mapping[str | None, Sequence[str]]) -> list[Line]:
    """``targets``: queue (None: the default one) → names of the targets that send their jobs there."""
    names = {queue.name: list(targets.get(queue.name, ())) for queue in cluster.queues}
    default = cluster.queue(None)
    if default is not None:
        names[default.name] += targets.get(None, ())
    return [
        *_gpus(cluster),
        *(_queue(queue, names[queue.name]) for queue in cluster.queues),
        *(Line("account", text=_account(account)) for account in cluster.accounts or ()),
        *_jobs(cluster.jobs),
        *(Line("!", text=f"{problem.part}: {problem.what}", level="bad") for problem in cluster.problems),
    ]


def node_lines(nodes: Iterable[Node]) -> list[Line]:
    """One line for each node, for who wants to know all of them."""
    return [_node(node) for node in nodes]


def _together(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _taken(total: int | None, free: int | None, unit: str = "") -> tuple[float | None, str]:
    """How much is in use, and how much is free in words."""
    counted = f" {unit}" if unit else ""
    if not total:
        return None, ""
    if free is None:
        return None, f"{total}{counted}"
    return 1 - min(max(free / total, 0.0), 1.0), f"{free} of {total}{counted} free"


def _gpus(cluster: Cluster) -> Iterator[Line]:
    for kind in sum_gpus(node.gpus for node in cluster.nodes):
        having = [node for node in cluster.nodes if any(each.type == kind.type for each in node.gpus)]
        where = f"in {having[0].name}" if len(having) == 1 else f"in {len(having)} nodes"
        part, amount = _taken(kind.total, kind.free)
        yield Line("GPUs", part, amount, _together(kind.type or "", where), level(part))


def _queue(queue: Queue, targets: Sequence[str]) -> Line:
    part, amount = _taken(queue.cpus, queue.cpus_free, "CPUs")
    shut = queue.open is False or queue.usable is False
    text = _together(
        queue.why or ("starts no jobs now" if queue.open is False else ""),
        f"target {', '.join(targets)}" if targets else "",
        "the default" if queue.default else "",
        *about_queue(queue),
    )
    return Line(queue.name, part, amount, text, "dim" if shut else level(part))


def _node(node: Node) -> Line:
    part, amount = _taken(node.cpus, node.cpus_free, "CPUs")
    memory = ""
    if node.memory is not None:
        free = "" if node.memory_free is None else f"{size(node.memory_free)} of "
        memory = f"{free}{size(node.memory)} of memory{' free' * bool(free)}"
    where = f"in {', '.join(node.queues)}" if node.queues else ""
    dim = node.state in ("down", "drained", "unknown")
    text = _together(node.word or node.state, gpus_text(node.gpus), memory, where)
    return Line(node.name, part, amount, text, "dim" if dim else level(part))


def _account(account: Account) -> str:
    return _together(
        account.name,
        f"in {account.queue}" if account.queue else "",
        "the default" if account.default else "",
        f"QOS {', '.join(account.qos)}" if account.qos else "",
        *map(limit_text, account.limits[:_MOST_LIMITS]),
    )


def _jobs(jobs: Sequence[MyJob]) -> Iterator[Line]:
    for job in jobs[:_MOST_JOBS]:
        yield Line("your job", text=_job(job))
    if len(jobs) > _MOST_JOBS:
        yield Line("", text=f"and {len(jobs) - _MOST_JOBS} more jobs of yours", level="dim")


def _job(job: MyJob) -> str:
    place = f" on {job.node}" if job.node else f" in {job.queue}" if job.queue else ""
    left = "" if job.ends is None else f"{duration(job.ends - time.time())} left"
    name = f"{job.name} (a kernel's)" if job.ours else job.name
    return _together(f"{job.id} {name} {job.state}{place}", job.reason or "", left)
