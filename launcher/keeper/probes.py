"""What the targets have and what of it is free (`farkernel resources`): asks their agents, starts no kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from ...backends import find_backend, kernel_of
from ...backends.contract import Surveyed, User
from ...backends.serial import host_of
from ..configuration import Target
from ..errors import FarkernelError
from .programs import with_programs
from .server import BadRequest, ClientConnection, Handler
from .visits import Find, Owner, visit

DEADLINE = 15.0
#: Of the deadline, for the machine itself; the rest is for the way there and back.
_SHARE = 0.8
#: Connections that are opened side by side; a host that does not answer holds up one of them, for its deadline.
_AT_A_TIME = 100


class NoMachine(FarkernelError):
    """A target that is no machine to be looked at."""

    kind = "no-machine"

    def __init__(self, target: Target) -> None:
        super().__init__(
            f"{target.name} ({target.address}) is no machine of its own",
            "This version shows local: and ssh:// targets, machines with boards (serial://), and clusters",
        )


def handlers(owner: Owner, user: User, configured: Callable[[], Find]) -> dict[str, Handler]:
    """`probe`: ``targets``, ``deadline``, ``wanted`` → ``targets``: each one's ``machine`` or ``cluster``, or what went
    wrong.
    """
    turns = asyncio.Semaphore(_AT_A_TIME)

    async def handle(client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        names, wanted = request.get("targets"), request.get("wanted")
        deadline = request.get("deadline") or DEADLINE
        if not isinstance(names, list) or not isinstance(deadline, int | float) or deadline <= 0:
            raise BadRequest("targets must be a list of names, deadline a number of seconds")
        if wanted is not None and not isinstance(wanted, list):
            raise BadRequest("wanted must be a list of parts")
        # Targets on one machine, with one kernel's environment, are one question.
        asked: dict[object, asyncio.Task[dict[str, Any]]] = {}
        find = configured()

        async def ask(name: str) -> dict[str, Any]:
            async with turns:
                try:
                    target = find(name)
                    if target.address.scheme == "serial":
                        target = host_of(target)
                    backend, kernel = find_backend(target.address.scheme), target.python or target.kernel
                    if not isinstance(backend, Surveyed):
                        machine_of(target)
                    await owner.inquire(target)
                    same = (target.address.scheme, backend.key(target, None), kernel)
                except FarkernelError as error:
                    return _failed(error)
                if same not in asked:
                    look = cluster(backend, target) if isinstance(backend, Surveyed) else machine(target)
                    asked[same] = asyncio.create_task(_ask(look, target, deadline))
                return await asyncio.shield(asked[same])

        async def machine(target: Target) -> dict[str, Any]:
            return {"machine": await probe(owner, target, deadline * _SHARE, wanted)}

        async def cluster(backend: Surveyed, target: Target) -> dict[str, Any]:
            return {"cluster": asdict(await backend.survey(target, user))}

        names = [str(name) for name in names]
        try:
            found = await asyncio.gather(*map(ask, names))
        finally:
            for task in asked.values():
                task.cancel()
        return {"targets": dict(zip(names, found, strict=True))}

    return {"probe": handle}


def machine_of(target: Target) -> Target:
    if not target.address.is_host:
        raise NoMachine(target)
    return target


async def _ask(look: Awaitable[dict[str, Any]], target: Target, deadline: float) -> dict[str, Any]:
    try:
        async with asyncio.timeout(deadline):
            return {"ok": True, **await look}
    except TimeoutError:
        return {
            "ok": False,
            "what": f"no answer within {deadline:g} s",
            "advice": f"See what is in the way: farkernel doctor {target.name}",
        }
    except FarkernelError as error:
        return _failed(error)


def _failed(error: FarkernelError) -> dict[str, Any]:
    return {"ok": False, "what": error.what, "advice": error.advice}


async def probe(owner: Owner, target: Target, deadline: float, wanted: list[str] | None) -> dict[str, Any]:
    """The document (docs/resources.md), as it came."""
    async with visit(owner, target, patient=False) as ask:
        answer = await with_programs(ask, "probe", deadline=deadline, wanted=wanted, **kernel_of(target))
    machine = answer.get("machine")
    return machine if isinstance(machine, dict) else {}
