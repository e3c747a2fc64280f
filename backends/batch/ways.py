"""Ways into a running job: routes that lead to where its agent is, tried in order, and the one that worked first.

| way | what it needs |
| --- | --- |
| step | the scheduler's own command that runs something in a job (`Adapter.way_in`: srun, oarsh, condor_ssh_to_job) |
| here | the job runs on the machine where the scheduler's commands are |
| ssh | from there, an ssh to the job's node that asks for nothing |
| door | from there, a TCP connection to the job's own door (doorway.py), which has keys for this job only |

Where a job runs is told by a small file that its script leaves in the home, if scheduler and node share one; else
the scheduler's name for the node is taken.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from ...launcher.errors import FarkernelError
from ...launcher.text import one_line
from ..contract import Receiver, Route, RouteError, Stream
from .cluster import Cluster
from .command_route import CommandRoute
from .contract import Command, Job, WayIn
from .door_keys import DoorKeys
from .door_route import DoorRoute
from .job_script import RENDEZVOUS

log = logging.getLogger(__name__)

# Nothing is asked, and a host key that is not known is refused (DESIGN §3, promise 5).
_SSH = (
    "ssh",
    "-T",
    "-q",
    "-o",
    "BatchMode=yes",
    "-o",
    "StrictHostKeyChecking=yes",
    "-o",
    "ConnectTimeout=15",
)


class Entrance(NamedTuple):
    """What is known of ways into the jobs of one target."""

    keys: DoorKeys | None = None
    last: str = ""
    """By which the last one was entered."""
    remember: Callable[[str], None] = lambda way: None


class JobRoute:
    """Into one running job."""

    def __init__(self, cluster: Cluster, job: Job, entrance: Entrance) -> None:
        self._cluster = cluster
        self._job = job
        self._entrance = entrance

    def __repr__(self) -> str:
        return f"<JobRoute into {self._place}, last by {self._entrance.last or 'no way yet'}>"

    @property
    def _place(self) -> str:
        return f"{self._cluster.adapter.title} job {self._job.id}"

    async def open(self, command: Sequence[str], receiver: Receiver) -> Stream:
        failures: list[str] = []
        for name in sorted(WAYS, key=lambda name: name != self._entrance.last):
            try:
                route = await WAYS[name](self._cluster, self._job, self._entrance)
                if route is None:
                    continue
                stream = await route.open(command, receiver)
            except FarkernelError as error:
                log.info("way %s into %s: %s", name, self._place, error)
                failures.append(error.what)
                continue
            self._entrance.remember(name)
            return stream
        raise NoWay(self._place, self._job.node, failures)


class NoWay(RouteError):
    """The job runs, and nothing leads into it (now)."""

    def __init__(self, place: str, node: str, failures: Sequence[str]) -> None:
        why = "; ".join(one_line(each) for each in failures) or "the scheduler has no command for it"
        super().__init__(
            f"no way leads into {place} on {node or 'its node'}: {why}",
            "The scheduler's own command, an ssh to the node that asks for nothing, or a connection from the login "
            "host to a port of the node would be one: ask who runs the site",
        )


async def _step(cluster: Cluster, job: Job, entrance: Entrance) -> Route | None:
    way = cluster.adapter.way_in(job)
    return None if way is None else CommandRoute(cluster.door, cluster.preparation, way, f"job {job.id}")


async def _here(cluster: Cluster, job: Job, entrance: Entrance) -> Route | None:
    if cluster.adapter.own_tmp:
        return None
    node, _, machine = await _where(cluster, job)
    return cluster.door if node and _short(node) == _short(machine) else None


async def _ssh(cluster: Cluster, job: Job, entrance: Entrance) -> Route | None:
    if cluster.adapter.own_tmp:
        return None
    node, _, machine = await _where(cluster, job)
    if not node or _short(node) == _short(machine):
        return None
    return CommandRoute(cluster.door, "", WayIn((*_SSH, "--", node), joins_words=True), f"{node} by ssh")


async def _door(cluster: Cluster, job: Job, entrance: Entrance) -> Route | None:
    node, known, _ = await _where(cluster, job)
    if not node or entrance.keys is None:
        return None
    place = f"{cluster.adapter.title} job {job.id}"
    route = DoorRoute(cluster.door, entrance.keys, node, known, place)
    # The door gives a shell, and the command is run by that.
    return CommandRoute(route, "", WayIn(("env",)), f"job {job.id} by its door")


WAYS: dict[str, Callable[[Cluster, Job, Entrance], Awaitable[Route | None]]] = {
    "step": _step,
    "here": _here,
    "ssh": _ssh,
    "door": _door,
}


def _short(machine: str) -> str:
    return machine.partition(".")[0].lower()


async def _where(cluster: Cluster, job: Job) -> tuple[str, list[int], str]:
    """The node that the job's script wrote down, or else the scheduler's name for it, or nothing; the port of its door,
    if that was written down; and the machine where we look.
    """
    # The shell puts the home in; the job's name is ours, and safe.
    look = f'uname -n; cat "$HOME/{RENDEZVOUS}/$1" 2>/dev/null'
    (said,) = await cluster.ask([Command(("sh", "-c", look, "sh", job.name))])
    machine, _, note = said.out.partition("\n")
    name, _, rest = note.strip().partition("\n")
    if not name:
        return job.node, [], machine.strip()
    if not re.fullmatch(r"[A-Za-z0-9_.][\w.-]*", name, re.ASCII):
        return "", [], machine.strip()
    known = [int(port) for port in rest.split() if re.fullmatch("[0-9]{1,5}", port, re.ASCII)]
    return name, known[-1:], machine.strip()
