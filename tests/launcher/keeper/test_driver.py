"""The connection of a link: what a far end says that ends before it can be spoken to."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

from farkernel.backends.archive import Archive
from farkernel.backends.contract import Buffer, Receiver, Stream
from farkernel.launcher.agent.link import Link, Role
from farkernel.launcher.keeper.driver import DriverState, LinkDriver


class Ended:
    """A stream on which nothing can be written any more."""

    buffered = 0

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Nobody is there."""

    def close(self, dead: bool = False) -> None:
        """It is."""


class Brief:
    """What it says, and its end, come before whoever opened it has it in hand."""

    async def open(self, command: Sequence[str], receiver: Receiver) -> Stream:
        receiver.data_received(b"This account is currently not available.\r\n")
        receiver.closed("")
        return Ended()


def test_words_that_come_with_the_end() -> None:
    """A login shell like nologin on a busy machine: it is through before the channel is said to be open."""

    async def act() -> str:
        why: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def changed(state: DriverState, text: str) -> None:
            if state is DriverState.PAUSED and not why.done():
                why.set_result(text)

        async def route() -> Brief:
            return Brief()

        link = Link(Role.KEEPER, uuid.uuid4().hex, {})
        driver = LinkDriver(link, route, Archive(b"", "0" * 64, 0), "a", lambda _: None, changed)
        running = asyncio.create_task(driver.run())
        try:
            return await asyncio.wait_for(why, 10)
        finally:
            running.cancel()
            await asyncio.wait([running])

    assert asyncio.run(act()).endswith(": This account is currently not available.")
