"""What a keeper finds out before it enters its kernels' allocations."""

from __future__ import annotations

import asyncio

from farkernel.launcher.address import parse_address
from farkernel.launcher.configuration import Target
from farkernel.launcher.keeper.inquiries import Inquiries

QUICK, SLOW = (Target(name, parse_address(f"ssh://{name}")) for name in ("quick", "slow"))


def test_who_is_known_does_not_wait_for_who_is_not() -> None:
    async def act() -> None:
        answer = asyncio.Event()
        asked: list[str] = []

        async def inquire(target: Target) -> None:
            asked.append(target.name)
            if target is SLOW:
                await answer.wait()

        inquiries = Inquiries(inquire)
        await inquiries.ask([QUICK, SLOW, QUICK, SLOW], patience=0.05)
        assert asked == ["quick", "slow"]
        assert repr(inquiries) == "<Inquiries, 1 open>"
        done: list[str] = []
        never_asked = Target("other", parse_address("ssh://slow"), ssh_config="/another")
        for target in (QUICK, SLOW, never_asked):
            inquiries.when_known(target, lambda name=target.name: done.append(name))  # type: ignore[misc]
        assert done == ["quick", "other"]
        answer.set()
        await inquiries.ask([])
        await asyncio.sleep(0)  # for what is called when it is done
        assert done == ["quick", "other", "slow"]

    asyncio.run(asyncio.wait_for(act(), 10))


def test_a_keeper_that_ends_acts_no_more() -> None:
    async def act() -> None:
        async def for_ever(target: Target) -> None:
            await asyncio.get_running_loop().create_future()

        inquiries = Inquiries(for_ever)
        await inquiries.ask([SLOW], patience=0.01)
        done: list[str] = []
        inquiries.when_known(SLOW, lambda: done.append("slow"))
        inquiries.close()
        await asyncio.sleep(0.01)
        assert done == []

    asyncio.run(asyncio.wait_for(act(), 10))
