"""An allocation keeps what it owes, also when its last kernel has left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from farkernel.backends.boot import Archive
from farkernel.launcher.address import parse_address
from farkernel.launcher.configuration import Target
from farkernel.launcher.keeper import allocations
from farkernel.launcher.keeper.allocations import HeldAllocation

from .far_end import FarEnd


class Place:
    name = "host"

    def __init__(self, far: FarEnd) -> None:
        self._far = far

    async def ready(self, report: Callable[[str], None]) -> FarEnd:
        return self._far

    async def release(self) -> None:
        """Nothing was taken."""


def test_a_stop_asked_for_without_a_link_is_carried_out_when_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(allocations, "LINGER", 0.0)

    async def play() -> None:
        far = FarEnd(lambda request: {"ok": {}})
        over = asyncio.Event()
        paid: list[str] = []
        target = Target("here", parse_address("local:"))
        archive = Archive(b"zip", "0" * 64, 3)
        held = HeldAllocation("local:", Place(far), archive, target, lambda _: over.set(), "me")
        held.owe_stop(
            "k", lambda: paid.append("k")
        )  # the link has not come up yet, and no kernel holds the allocation
        await over.wait()
        assert [(request["do"], request["kernel"]) for request in far.requests] == [
            ("stop", "k"),
            ("forget", "k"),
        ]
        assert paid == ["k"]

    asyncio.run(asyncio.wait_for(play(), 20))
