"""Kernels that other keepers of the same user started, on other machines or in former lives of this one.

The truth lives where the kernel lives (DESIGN §2): agents are asked, and what they have can be taken up here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from ..configuration import Target
from ..errors import FarkernelError
from .adopted import Adopted
from .kernel import Kernel
from .server import BadRequest, ClientConnection, Handler
from .visits import Owner, visit

log = logging.getLogger(__name__)

DEADLINE = 15.0

Find = Callable[[str], Target]
Adopt = Callable[[Target, Adopted], Awaitable[Kernel]]


class NotThere(FarkernelError):
    kind = "no-such-kernel"

    def __init__(self, kernel: str, target: str) -> None:
        super().__init__(f"there is no kernel {kernel[:80]} at {target}", "See: farkernel ps --all")


def handlers(
    owner: Owner,
    find: Find,
    targets: Callable[[], Iterable[Target]],
    mine: Callable[[], set[str]],
    adopt: Adopt,
) -> dict[str, Handler]:
    """`elsewhere`: → ``kernels`` that agents have and this keeper has not, ``unreachable`` {target → why}.

    `adopt`: ``target``, ``kernel`` → ``kernel``: it is ours now, and listed.
    """

    async def elsewhere(client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        names = request.get("targets")
        wanted = [find(str(name)) for name in names] if isinstance(names, list) else list(targets())
        found = await asyncio.gather(*(_look(owner, target) for target in wanted))
        rows: dict[str, dict[str, Any]] = {}
        unreachable = {}
        for target, outcome in zip(wanted, found, strict=True):
            if isinstance(outcome, FarkernelError):
                unreachable[target.name] = outcome.as_dict()
                continue
            for row in outcome:
                rows.setdefault(str(row["kernel"]), row)  # several targets may be one host
        known = mine()
        return {
            "kernels": [row for name, row in rows.items() if name not in known],
            "unreachable": unreachable,
        }

    async def take_up(client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        target, name = find(str(request.get("target"))), str(request.get("kernel"))
        async with visit(owner, target) as ask:
            try:
                about = Adopted.from_answer(await ask("adopt", DEADLINE, kernel=name))
            except (KeyError, TypeError, ValueError) as error:
                raise BadRequest(f"the agent's answer makes no sense: {error}") from error
            kernel = await adopt(target, about)
        return {"kernel": kernel.id}

    return {"elsewhere": elsewhere, "adopt": take_up}


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
