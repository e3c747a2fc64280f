"""Warm spares: kernels that an agent has started before anybody asks for them (the target's ``warm``).

The agent's list is all the memory there is: a spare carries in its label what it was started as, whoever starts the
same takes it, and the label's exchange at the agent decides between two who want it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Mapping
from typing import Any, Protocol

from ..errors import FarkernelError, RemoteError
from .adopted import Adopted
from .programs import start

log = logging.getLogger(__name__)

KEPT = 3600.0
"""Seconds that a spare waits for somebody, at most: it costs memory there."""

# What differs between two notebooks without making their kernels different ones.
_OF_THE_NOTEBOOK = frozenset({"JPY_SESSION_NAME", "JPY_PARENT_PID", "KERNEL_ID"})
_OF_THE_KERNEL = frozenset({"kernel", "life", "key", "label", "keep"})


class Agent(Protocol):
    async def request(self, do: str, **arguments: Any) -> dict[str, Any]: ...


def neutral(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `start` without what only one notebook has."""
    kept = {name: value for name, value in arguments.items() if name not in _OF_THE_KERNEL}
    environment = {name: value for name, value in kept["env"].items() if name not in _OF_THE_NOTEBOOK}
    return {**kept, "env": environment}


def fingerprint(arguments: Mapping[str, Any]) -> str:
    """Equal for kernels that may stand in for each other."""
    notebook = arguments.get("notebook") or {}
    same = {**neutral(arguments), "notebook": notebook.get("path")}
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:32]


async def claim(agent: Agent, arguments: Mapping[str, Any]) -> Adopted | None:
    """A spare that is live and from now on ours, under `arguments`' label; None when there is none."""
    print_ = fingerprint(arguments)
    for row in await _spares(agent, print_):
        if row.get("state") != "live":
            continue
        try:
            answer = await agent.request(
                "adopt", kernel=row["kernel"], spare=print_, label=arguments["label"]
            )
            return Adopted.from_answer(answer)
        except (RemoteError, KeyError, TypeError, ValueError) as error:
            log.info("the spare %s is not to be had: %s", row.get("kernel"), error)
    return None


async def replenish(agent: Agent, arguments: Mapping[str, Any], wanted: int) -> None:
    """See to it that so many wait; what has ended is cleared away."""
    print_ = fingerprint(arguments)
    waiting = 0
    for row in await _spares(agent, print_):
        if row.get("state") == "ended":
            await agent.request("forget", kernel=row["kernel"])
        else:
            waiting += 1
    for _ in range(wanted - waiting):
        name = f"spare-{secrets.token_hex(8)}"
        try:
            own = {
                "kernel": name,
                "life": 1,
                "key": secrets.token_hex(32),
                "keep": KEPT,
                "label": {**arguments["label"], "notebook": "", "spare": print_},
            }
            await start(agent.request, {**neutral(arguments), **own})
        except FarkernelError as error:
            log.warning("no warm spare could be started: %s", error)
            return


async def end_all(agent: Agent) -> None:
    """The allocation is given back: what was kept in it for nobody in particular ends."""
    for row in await _spares(agent):
        await agent.request("stop", kernel=row["kernel"], grace=0)
        await agent.request("forget", kernel=row["kernel"])


async def _spares(agent: Agent, print_: str = "") -> list[dict[str, Any]]:
    rows = (await agent.request("list")).get("kernels") or []
    labelled = [row for row in rows if isinstance(row, dict) and isinstance(row.get("label"), dict)]
    found = [row for row in labelled if row["label"].get("spare")]
    return [row for row in found if print_ in ("", row["label"]["spare"])]
