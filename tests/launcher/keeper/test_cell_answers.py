"""A cell has one question open at a time; the others wait for their turn."""

from __future__ import annotations

import asyncio
from typing import cast

from farkernel.backends.contract import NotAnswered, Question
from farkernel.launcher.keeper.allocations import HeldAllocation
from farkernel.launcher.keeper.cell_answers import CellAnswerer
from farkernel.launcher.keeper.user import KeeperUser
from farkernel.launcher.local_end.questions import Answered


class Cell:
    def __init__(self) -> None:
        self.there = True
        self.shown: list[str] = []
        self.open: Answered | None = None

    def cell_to_ask(self) -> object | None:
        return self if self.there else None

    def ask(self, prompt: str, hidden: bool, answered: Answered) -> bool:
        if self.there:
            self.shown.append(prompt)
            self.open = answered
        return self.there

    def withdraw_question(self) -> None:
        self.open = None

    def refuse_held(self, ename: str, text: str) -> None:
        """No cell is refused here."""


class Link:
    """A link that is down, or waits for somebody."""

    def __init__(self, up: bool = False, needs_user: bool = False) -> None:
        self.up, self.needs_user, self.why, self.tries = up, needs_user, "the gate is shut", 0

    def retry(self) -> None:
        self.tries += 1


def as_held(link: Link) -> HeldAllocation:
    return cast(HeldAllocation, link)


CODE, GPUS = Question("gpu", "Code: "), Question("gpu", "GPUs [1]: ", hidden=False, kernel="k")


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_the_second_question_comes_when_the_first_is_answered() -> None:
    async def scenario() -> None:
        user, cell = KeeperUser(), Cell()
        answerer = CellAnswerer(user, cell, "gpu", "k")
        answerer.interviewed = True
        answerer.cell_waits(None)
        gpus, code = asyncio.ensure_future(user.ask(GPUS)), asyncio.ensure_future(user.ask(CODE))
        await turn()
        assert cell.shown == ["GPUs [1]: "]
        assert cell.open is not None
        cell.open("2")
        await turn()
        assert cell.shown == ["GPUs [1]: ", "Code: "]
        assert await gpus == "2"
        assert cell.open is not None
        cell.open("123")
        assert await code == "123"
        await turn()
        assert cell.open is None
        assert not answerer.is_asked

    asyncio.run(scenario())


def test_a_question_that_was_answered_elsewhere_makes_room_too() -> None:
    async def scenario() -> None:
        user, cell, other = KeeperUser(), Cell(), Cell()
        answerer, second = CellAnswerer(user, cell, "gpu", "k"), CellAnswerer(user, other, "gpu", "x")
        for each in (answerer, second):
            each.cell_waits(as_held(Link()))
        code, gpus = asyncio.ensure_future(user.ask(CODE)), asyncio.ensure_future(user.ask(GPUS))
        await turn()
        assert (cell.shown, other.shown) == (["Code: "], ["Code: "])
        assert other.open is not None
        other.open("123")
        await turn()
        assert await code == "123"
        assert (cell.shown, other.shown) == (["Code: ", "GPUs [1]: "], ["Code: "])
        answerer.leave()
        assert cell.open is None
        await turn()
        assert isinstance(gpus.exception(), NotAnswered)

    asyncio.run(scenario())


def test_the_offer_to_try_again_goes_when_the_link_is_back_and_what_is_asked_stays() -> None:
    async def scenario() -> None:
        user, cell, link = KeeperUser(), Cell(), Link(needs_user=True)
        answerer = CellAnswerer(user, cell, "gpu", "k")
        answerer.interviewed = True
        answerer.link_changed(as_held(link))
        assert cell.shown == ["the gate is shut\nPress Enter to try again: "]
        link.up, link.needs_user = True, False
        answerer.link_changed(as_held(link))
        assert cell.open is None
        asking = asyncio.ensure_future(user.ask(GPUS))
        await turn()
        answerer.link_changed(as_held(link))  # a cell that is interviewed stays when the link is up
        assert cell.open is not None
        cell.open("1")
        assert await asking == "1"
        answerer.interviewed = False
        answerer.link_changed(as_held(link))
        assert "0 can be asked" in repr(user)

    asyncio.run(scenario())
