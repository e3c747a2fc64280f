"""Kernels and jobs that other keepers of the same user started, on other machines or in former lives of this one.

The truth lives where the kernel lives (DESIGN §2): agents are asked, and what they have can be taken up here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from ...backends import find_backend
from ...backends.contract import Queueing, User
from ..configuration import Target
from ..discovery.cluster import MyJob
from ..errors import FarkernelError
from .adopted import Adopted
from .kernel import Kernel
from .server import BadRequest, ClientConnection, Handler
from .visits import NoAnswer, Owner, visit

log = logging.getLogger(__name__)

DEADLINE = 15.0

Find = Callable[[str], Target]
Adopt = Callable[[Target, Adopted], Awaitable[Kernel]]


class NoSuchJob(FarkernelError):
    kind = "no-such-allocation"

    def __init__(self, job: str, target: str) -> None:
        super().__init__(
            f"there is no job {job[:80]} of another keeper of yours at {target}", "See: farkernel ps --all"
        )


class NotThere(FarkernelError):
    kind = "no-such-kernel"

    def __init__(self, kernel: str, target: str) -> None:
        super().__init__(f"there is no kernel {kernel[:80]} at {target}", "See: farkernel ps --all")


def handlers(
    owner: Owner,
    user: User,
    find: Find,
    targets: Callable[[], Iterable[Target]],
    mine: Callable[[], set[str]],
    adopt: Adopt,
) -> dict[str, Handler]:
    """`elsewhere`: → ``kernels`` that agents have and this keeper has not, ``allocations``: jobs that other keepers
    submitted, ``unreachable`` {target → why}.

    `cancel`: ``target``, ``job`` (the name of one that was listed so).

    `adopt`: ``target``, ``kernel`` → ``kernel``: it is ours now, and listed.
    """

    async def elsewhere(client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        names = request.get("targets")
        wanted = [find(str(name)) for name in names] if isinstance(names, list) else list(targets())
        found, (allocations, silent) = await asyncio.gather(
            asyncio.gather(*(_look(owner, target) for target in wanted)), _jobs(owner, user, wanted)
        )
        rows: dict[str, dict[str, Any]] = {}
        unreachable = dict(silent)
        for target, outcome in zip(wanted, found, strict=True):
            if isinstance(outcome, FarkernelError):
                unreachable[target.name] = outcome.as_dict()
                continue
            for row in outcome:
                rows.setdefault(str(row["kernel"]), row)  # several targets may be one host
        known = mine()
        return {
            "kernels": [row for name, row in rows.items() if name not in known],
            "allocations": allocations,
            "unreachable": unreachable,
        }

    async def cancel(client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        target, name = find(str(request.get("target"))), str(request.get("job"))
        await owner.inquire(target)
        backend = find_backend(target.address.scheme)
        strays = await backend.strays(target, user) if isinstance(backend, Queueing) else ()
        job = next((each for each in strays if each.name == name), None)
        if job is None or not isinstance(backend, Queueing):
            raise NoSuchJob(name, target.name)
        await backend.cancel(target, user, job.id)
        return {"job": job.id}

    async def take_up(client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        target, name = find(str(request.get("target"))), str(request.get("kernel"))
        async with visit(owner, target) as ask:
            try:
                about = Adopted.from_answer(await ask("adopt", DEADLINE, kernel=name))
            except (KeyError, TypeError, ValueError) as error:
                raise BadRequest(f"the agent's answer makes no sense: {error}") from error
            kernel = await adopt(target, about)
        return {"kernel": kernel.id}

    return {"elsewhere": elsewhere, "adopt": take_up, "cancel": cancel}


async def _jobs(
    owner: Owner, user: User, targets: Iterable[Target]
) -> tuple[list[dict[str, Any]], dict[str, dict[str, str]]]:
    """Jobs of other keepers, each cluster asked once; and which targets could not be asked."""
    clusters: dict[object, list[Target]] = {}
    for target in targets:
        with contextlib.suppress(FarkernelError):  # a kind of target that is not known is said by `_look`
            backend = find_backend(target.address.scheme)
            if isinstance(backend, Queueing):
                await owner.inquire(target)
                clusters.setdefault((target.address.scheme, backend.key(target, None)), []).append(target)

    async def ask(members: list[Target]) -> list[dict[str, Any]] | FarkernelError:
        backend = find_backend(members[0].address.scheme)
        assert isinstance(backend, Queueing)
        try:
            async with asyncio.timeout(DEADLINE):
                return [_job_row(job, members) for job in await backend.strays(members[0], user)]
        except FarkernelError as error:
            return error
        except TimeoutError:
            return NoAnswer(members[0].name, DEADLINE, "")

    rows: list[dict[str, Any]] = []
    silent = {}
    for members, outcome in zip(
        clusters.values(), await asyncio.gather(*map(ask, clusters.values())), strict=True
    ):
        if isinstance(outcome, FarkernelError):
            silent[members[0].name] = outcome.as_dict()
        else:
            rows += outcome
    return rows, silent


def _job_row(job: MyJob, targets: list[Target]) -> dict[str, Any]:
    """In the shape of the keeper's own listing of allocations."""
    target = next((each for each in targets if each.address.partition == job.queue), targets[0])
    place = f" on {job.node}" if job.node else f" in {job.queue}" if job.queue else ""
    why = f"job {job.id} of another keeper of yours, {job.state}{place}{f': {job.reason}' if job.reason else ''}"
    return {
        "allocation": f"{target.address}#{job.name}",
        "target": target.name,
        "link": "",
        "state": job.state,
        "job": job.id,
        "name": job.name,
        "where": job.node or "",
        "ends": job.ends,
        "left": None if job.ends is None else max(job.ends - time.time(), 0.0),
        "why": why,
        "kernels": [],
    }


async def _look(owner: Owner, target: Target) -> list[dict[str, Any]] | FarkernelError:
    try:
        async with visit(owner, target) as ask:
            answer = await ask("list", DEADLINE)
            key = owner.allocation_for(target, None).key
    except FarkernelError as error:
        return error
    rows = [row for row in answer.get("kernels") or [] if isinstance(row, dict) and row.get("kernel")]
    return [_row(row, target, key) for row in rows if row.get("state") != "ended"]


def _row(row: dict[str, Any], target: Target, allocation: str) -> dict[str, Any]:
    """In the shape of the keeper's own listing."""
    label = row.get("label") if isinstance(row.get("label"), dict) else {}
    assert isinstance(label, dict)
    started = row.get("started")
    return {
        "kernel": str(row["kernel"]),
        "entry": str(label.get("entry") or ""),
        "target": target.name,
        "allocation": allocation,
        "state": str(row.get("state")),
        "reason": None,
        "life": row.get("life"),
        "notebook": str(label.get("notebook") or ""),
        "host": str(label.get("host") or ""),
        "created": started,
        "since": started,
        "fronts": 0,
        "usage": row.get("usage"),
        "attended": bool(row.get("attended")),
        "spare": bool(label.get("spare")),
    }
