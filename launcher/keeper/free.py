"""What is free at a target now, in a line: for who is asked what a kernel shall have."""

from __future__ import annotations

from collections.abc import Iterable

from ...backends import find_backend
from ...backends.contract import Surveyed, User
from ..configuration import Target
from ..discovery.cluster import Cluster, Gpus, sum_gpus
from ..discovery.cluster_text import free_in, gpus_text
from ..discovery.machine import Gpu, Machine, read_machine
from .pool_choice import is_idle
from .probes import probe
from .visits import Owner

DEADLINE = 15.0
PARTS = ("host", "nvidia", "graphics")


async def free_there(owner: Owner, user: User, target: Target) -> str:
    """Empty where there is nothing to tell; raises a `FarkernelError`."""
    backend = find_backend(target.address.scheme)
    if isinstance(backend, Surveyed):
        return free_in_cluster(await backend.survey(target, user), target.address.partition)
    if target.address.is_host:
        return free_on(read_machine(await probe(owner, target, DEADLINE, list(PARTS))))
    return ""


def free_in_cluster(cluster: Cluster, name: str | None) -> str:
    """In the queue of that name, or where jobs go that name none."""
    queue = cluster.queue(name)
    if queue is not None:
        found = free_in(queue)
        return f"in {queue.name}, {found}" if found else ""
    if name is not None and cluster.queues:
        return f"{cluster.scheduler} knows no queue {name!r}"
    return gpus_text(sum_gpus(node.gpus for node in cluster.nodes))


def free_on(machine: Machine) -> str:
    """GPUs that nobody uses or has leased."""
    return gpus_text(sum_gpus(_counted(machine.gpus))) or "no GPUs"


def _counted(gpus: Iterable[Gpu]) -> Iterable[tuple[Gpus, ...]]:
    for gpu in gpus:
        if not gpu.mig:  # a card that is parted is used by its parts
            yield (Gpus(gpu.name, 1, int(is_idle(gpu, 0))),)
