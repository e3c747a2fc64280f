"""The document about a cluster (docs/resources.md): what its scheduler says is there, and what of it is free.

Made by the readers in ``backends/batch``, sent by the keeper, read by whoever asked.  As in `machine`, what is not
known is None or empty; ``version`` rises when a field changes its meaning, and new fields may come at any time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from .documents import read

VERSION = 1
OURS = "fk-"
"""How the names of jobs begin that a keeper submitted."""


@dataclass(frozen=True)
class Gpus:
    """GPUs of one type; ``type`` is the scheduler's word for it, None where it has none."""

    type: str | None = None
    total: int = 0
    free: int | None = None  # None: the scheduler does not tell


@dataclass(frozen=True)
class Node:
    """``cpus_free`` and the like: what a new job could get now, so nothing on a node that is down."""

    name: str = ""
    state: str = "unknown"  # idle, mixed, allocated, reserved, drained, down, unknown
    word: str | None = None  # the scheduler's own word for it
    queues: tuple[str, ...] = ()  # empty: any
    cpus: int | None = None
    cpus_free: int | None = None
    memory: int | None = None  # all sizes are bytes
    memory_free: int | None = None
    gpus: tuple[Gpus, ...] = ()
    features: tuple[str, ...] = ()


@dataclass(frozen=True)
class Limit:
    """At most so much of something, for one user, one job, one account, or all together; of ``source`` (a QOS …)."""

    whom: str = ""  # user, job, account, group, project, node, all
    what: str = ""  # gpus, cpus, memory, nodes, jobs, waiting, time, or the scheduler's word
    most: float = 0
    source: str | None = None


@dataclass(frozen=True)
class Most:
    """The most that one node has free now."""

    cpus: int | None = None
    memory: int | None = None
    gpus: int | None = None


@dataclass(frozen=True)
class Queue:
    """A partition of Slurm, a queue of the others."""

    name: str = ""
    default: bool | None = None
    open: bool | None = None  # it takes jobs and starts them
    why: str | None = None  # what is wrong with it, or who may use it
    usable: bool | None = None  # by the user who asked, as far as lists of groups and accounts tell
    nodes: int | None = None
    nodes_free: int | None = None  # with something free
    cpus: int | None = None
    cpus_free: int | None = None
    memory: int | None = None
    memory_free: int | None = None
    gpus: tuple[Gpus, ...] = ()
    most: Most = Most()
    time_limit: int | None = None  # seconds
    time_default: int | None = None
    running: int | None = None  # jobs of everybody
    waiting: int | None = None
    groups: tuple[str, ...] = ()  # who may use it; empty: everybody, or not told
    accounts: tuple[str, ...] = ()
    qos: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()


@dataclass(frozen=True)
class Account:
    """What jobs of the user may be charged to."""

    name: str = ""
    queue: str | None = None  # it counts there only
    default: bool | None = None
    qos: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()


@dataclass(frozen=True)
class MyJob:
    """One job of the user who asked."""

    id: str = ""
    name: str = ""
    state: str = "unknown"  # queued, held, starting, running, ending, unknown
    queue: str | None = None
    node: str | None = None
    starts: float | None = None  # expected, seconds since 1970
    ends: float | None = None
    reason: str | None = None  # why it waits, in words
    ours: bool = False  # a keeper submitted it


@dataclass(frozen=True)
class ClusterProblem:
    """Something that could not be found out."""

    part: str = ""
    what: str = ""


@dataclass(frozen=True)
class Cluster:
    """What one scheduler says at one moment."""

    version: int = VERSION
    time: float | None = None  # when it was asked, by our clock
    took: float | None = None  # seconds
    scheduler: str | None = None
    release: str | None = None
    queues: tuple[Queue, ...] = ()
    nodes: tuple[Node, ...] = ()
    accounts: tuple[Account, ...] | None = None  # None: the scheduler keeps none, or does not tell
    jobs: tuple[MyJob, ...] = ()
    problems: tuple[ClusterProblem, ...] = ()

    def queue(self, name: str | None) -> Queue | None:
        """The one of that name; None stands for the default one."""
        found = (each for each in self.queues if (each.default if name is None else each.name == name))
        return next(found, None)


def read_cluster(document: Any) -> Cluster:
    """Never raises: what has the wrong type is absent."""
    return read(Cluster, document)


# -- sums ----------------------------------------------------------------------------------------------------


def with_nodes(queue: Queue, nodes: Iterable[Node]) -> Queue:
    """The queue with the sums of those of the nodes that serve it."""
    mine = [node for node in nodes if not node.queues or queue.name in node.queues]
    if queue.open is False:
        mine = [_closed(node) for node in mine]
    return replace(
        queue,
        nodes=len(mine),
        nodes_free=sum(1 for node in mine if node.cpus_free),
        cpus=_sum(node.cpus for node in mine),
        cpus_free=_sum(node.cpus_free for node in mine),
        memory=_sum(node.memory for node in mine),
        memory_free=_sum(node.memory_free for node in mine),
        gpus=sum_gpus(node.gpus for node in mine),
        most=Most(
            max((node.cpus_free for node in mine if node.cpus_free is not None), default=None),
            max((node.memory_free for node in mine if node.memory_free is not None), default=None),
            max((free for node in mine if (free := free_gpus(node.gpus)) is not None), default=None),
        ),
    )


def _closed(node: Node) -> Node:
    """As a queue sees it that starts nothing."""
    return replace(
        node,
        cpus_free=None if node.cpus_free is None else 0,
        memory_free=None if node.memory_free is None else 0,
        gpus=tuple(replace(each, free=None if each.free is None else 0) for each in node.gpus),
    )


def sum_gpus(many: Iterable[tuple[Gpus, ...]]) -> tuple[Gpus, ...]:
    """By type, in the order in which the types come."""
    totals: dict[str | None, list[Gpus]] = {}
    for gpus in many:
        for each in gpus:
            totals.setdefault(each.type, []).append(each)
    return tuple(
        Gpus(kind, sum(each.total for each in found), _sum(each.free for each in found))
        for kind, found in totals.items()
    )


def free_gpus(gpus: Iterable[Gpus]) -> int | None:
    """Of all types together; None: there are none, or it is not known."""
    return _sum(each.free for each in gpus)


def _sum(values: Iterable[int | None]) -> int | None:
    """Of those that are known; None when none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
