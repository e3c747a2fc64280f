"""A cluster in words: for the lines of `farkernel resources`, and for who is asked what a kernel shall have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..settings import duration_text
from ..text import size
from .cluster import Gpus, Limit, Queue, free_gpus

_MOST_LIMITS = 6


def about_queue(queue: Queue) -> Iterator[str]:
    """GPUs, memory, limits and how busy it is."""
    if gpus := gpus_text(queue.gpus):
        yield gpus
    if most := _most(queue):
        yield most
    if queue.time_limit is not None:
        usual = queue.time_default if queue.time_default != queue.time_limit else None
        said = "" if usual is None else f" ({duration_text(usual)} if not said)"
        yield f"up to {duration_text(queue.time_limit)}{said}"
    if queue.waiting:
        yield f"{queue.waiting} job{'s' * (queue.waiting != 1)} waiting"
    yield from map(limit_text, queue.limits[:_MOST_LIMITS])


def free_in(queue: Queue) -> str:
    """What is free in it now, in a line: for who is about to send a job there."""
    cpus = "" if queue.cpus_free is None else f"{queue.cpus_free} of {queue.cpus} CPUs free"
    shut = queue.why or ("it starts no jobs now" if queue.open is False else "")
    return "; ".join(filter(None, (shut, cpus, *about_queue(queue))))


def _most(queue: Queue) -> str:
    """What one job on one node could have now."""
    parts = [f"{queue.most.cpus} CPUs"] if queue.most.cpus and queue.nodes != 1 else []
    if queue.most.gpus and queue.nodes != 1:
        parts.append(f"{queue.most.gpus} GPU{'s' * (queue.most.gpus != 1)}")
    if queue.most.memory:
        parts.append(size(queue.most.memory))
    if queue.nodes == 1:
        return f"{parts[0]} of memory free" if parts else ""
    return f"{' and '.join(parts)} free on one node" if parts else ""


def gpus_text(gpus: Sequence[Gpus]) -> str:
    """ "1 of 2 GPUs free (a100)", by type where there are several."""
    total = sum(each.total for each in gpus)
    if not total:
        return ""
    free = free_gpus(gpus)
    unit = f"GPU{'s' * (total != 1)}"
    head = f"{total} {unit}" if free is None else f"{free} of {total} {unit} free"
    if len(gpus) == 1:
        return f"{head} ({gpus[0].type})" if gpus[0].type else head
    return f"{head} ({', '.join(map(_kind, gpus))})"


def _kind(gpus: Gpus) -> str:
    return f"{gpus.type or 'others'} {gpus.total if gpus.free is None else f'{gpus.free} of {gpus.total}'}"


_UNITS = {
    "gpus": "GPUs",
    "cpus": "CPUs",
    "nodes": "nodes",
    "jobs": "jobs",
    "waiting": "jobs queued or running",
}
_WHOM = {"user": "for you", "all": "for all users together"}


def limit_text(limit: Limit) -> str:
    """ "at most 2 GPUs for you (QOS normal)"."""
    if limit.what == "time":
        amount = duration_text(round(limit.most))
    elif limit.what == "memory":
        amount = f"{size(limit.most)} of memory"
    else:
        unit = _UNITS.get(limit.what, limit.what)
        amount = (
            f"{limit.most:g} {unit.removesuffix('s') if limit.most == 1 and limit.what in _UNITS else unit}"
        )
    whom = _WHOM.get(limit.whom, f"in each {limit.whom}" if limit.whom else "")
    return " ".join(filter(None, ("at most", amount, whom, f"({limit.source})" if limit.source else "")))
