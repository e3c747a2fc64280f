"""The keeper's `probe`: what makes no sense is refused, and one bad target spoils no other."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from farkernel.launcher.address import parse_address
from farkernel.launcher.configuration import Target, UnknownTarget
from farkernel.launcher.keeper import probes
from farkernel.launcher.keeper.allocations import HeldAllocation
from farkernel.launcher.keeper.programs import devices
from farkernel.launcher.keeper.server import BadRequest, ClientConnection
from farkernel.launcher.keeper.user import KeeperUser
from farkernel.launcher.settings import Resources


class Owner:
    async def inquire(self, target: Target) -> None:
        """All is known."""

    def allocation_for(self, target: Target, kernel: str | None) -> HeldAllocation:
        raise probes.NoMachine(target)  # any error of ours


TARGETS = {
    "q": Target("q", parse_address("webrepl://board")),
    "pool": Target("pool", parse_address("pool:here")),
    "here": Target("here", parse_address("local:")),
}


def find(name: str) -> Target:
    if name not in TARGETS:
        raise UnknownTarget(name, TARGETS)
    return TARGETS[name]


def ask(**request: Any) -> dict[str, Any]:
    handle = probes.handlers(Owner(), KeeperUser(), lambda: find)["probe"]

    async def act() -> dict[str, Any]:
        return await handle(cast(ClientConnection, None), request)

    return asyncio.run(act())["targets"]  # type: ignore[no-any-return]


def test_each_target_has_its_own_answer() -> None:
    found = ask(targets=["q", "pool", "nope", "here"], deadline=5)
    assert {name: row["ok"] for name, row in found.items()} == dict.fromkeys(
        ["q", "pool", "nope", "here"], False
    )
    assert found["q"]["what"] == "q (webrepl://board) is no machine of its own"
    assert "there is no target 'nope'" in found["nope"]["what"]


@pytest.mark.parametrize(
    "request_", [{"targets": "here"}, {"targets": ["here"], "deadline": "soon"}, {"targets": [], "wanted": "cpu"},
                 {"targets": [], "deadline": -1}],
)  # fmt: skip
def test_what_makes_no_sense(request_: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        ask(**request_)


@pytest.mark.parametrize(
    ("address", "resources", "expected"),
    [
        ("local:", Resources(), {}),
        ("local:", Resources(gpus=0, gpu_memory=5), {}),
        ("local:", Resources(gpus=2), {"devices": {"gpus": 2, "gpu_memory": 0}}),
        ("ssh://lab", Resources(gpu_memory=5), {"devices": {"gpus": 1, "gpu_memory": 5}}),
        ("slurm:///gpu", Resources(gpus=1), {}),
    ],
)
def test_who_is_given_gpus_by_the_agent(address: str, resources: Resources, expected: dict[str, Any]) -> None:
    assert devices(Target("t", parse_address(address), resources=resources)) == expected
