"""What an agent has not got is brought, once, and no more than that."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Any

import pytest

from farkernel.backends.archive import build_nvml, build_probe
from farkernel.launcher.keeper.programs import NeedsTooMuch, with_programs


class Agent:
    """Says that it needs these, one after the other."""

    def __init__(self, *needs: str) -> None:
        self.needs = list(needs)
        self.asked: list[str] = []
        self.held: dict[str, bytes] = {}

    async def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        self.asked.append(do)
        if do == "bring":
            self.held[arguments["program"]] = base64.b64decode(arguments["content"])
            return {}
        return {"need": self.needs.pop(0)} if self.needs else {"seen": arguments}


def run(agent: Agent) -> dict[str, Any]:
    return asyncio.run(with_programs(agent.ask, "probe", deadline=3))


def test_nothing_is_brought_to_who_has_it() -> None:
    agent = Agent()
    seen = run(agent)["seen"]
    assert agent.asked == ["probe"]
    assert seen == {"deadline": 3, "programs": {"probe": build_probe().sha256, "nvml": build_nvml().sha256}}


def test_what_is_needed_is_brought() -> None:
    agent = Agent("probe", "nvml")
    run(agent)
    assert agent.asked == ["probe", "bring", "probe", "bring", "probe"]
    assert agent.held == {one.sha256: one.content for one in (build_probe(), build_nvml())}
    assert all(hashlib.sha256(content).hexdigest() == name for name, content in agent.held.items())


@pytest.mark.parametrize("needs", [("probe", "probe"), ("something",), (7,), ([],)])
def test_no_end_of_needs(needs: tuple[Any, ...]) -> None:
    with pytest.raises(NeedsTooMuch, match="farkernel keeper restart"):
        run(Agent(*needs))
