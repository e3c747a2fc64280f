"""Who is asked what, and whose answer counts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from farkernel.backends.contract import NotAnswered, Question
from farkernel.launcher.keeper.user import Asked, KeeperUser, Nobody

CODE = Question("gpu", "Code:")
KEY = Question("gpu", "Is this its key?", hidden=False, terminal=True)


@dataclass
class Person:
    host: str = "gpu"
    at_terminal: bool = False
    kernel: str = ""
    open: list[Asked] = field(default_factory=list)

    def asked(self, asked: Asked) -> None:
        self.open.append(asked)

    def settled(self, asked: Asked) -> None:
        if asked in self.open:
            self.open.remove(asked)


def test_the_first_answer_counts_and_the_others_are_told() -> None:
    async def scenario() -> None:
        user, cell, terminal, elsewhere = KeeperUser(), Person(), Person(at_terminal=True), Person("pi")
        for person in (cell, terminal, elsewhere):
            user.join(person)
        asking = asyncio.ensure_future(user.ask(CODE))
        await asyncio.sleep(0)
        assert len(cell.open) == len(terminal.open) == 1
        assert not elsewhere.open
        asked = cell.open[0]
        assert user.open_question(asked.number) is asked
        terminal.open[0].answer("1")
        cell.open[0].answer("2")
        cell.open[0].decline()
        assert await asking == "1"
        assert not cell.open
        assert not terminal.open
        assert user.open_question(asked.number) is None

    asyncio.run(scenario())


def test_a_question_about_a_kernel_is_for_its_own_cells() -> None:
    async def scenario() -> None:
        user, mine, other, terminal = (
            KeeperUser(),
            Person(kernel="a"),
            Person(kernel="b"),
            Person(at_terminal=True),
        )
        for person in (other, terminal):
            user.join(person)
        with pytest.raises(NotAnswered):
            await user.ask(Question("gpu", "GPUs [1]: ", hidden=False, kernel="a"))
        user.join(mine)
        asking = asyncio.ensure_future(user.ask(Question("gpu", "GPUs [1]: ", hidden=False, kernel="a")))
        await asyncio.sleep(0)
        assert (len(mine.open), len(other.open), len(terminal.open)) == (1, 0, 0)
        mine.open[0].answer("2")
        assert await asking == "2"

    asyncio.run(scenario())


def test_a_question_for_the_terminal_never_reaches_a_cell() -> None:
    async def scenario() -> None:
        user, cell, terminal = KeeperUser(), Person(), Person(at_terminal=True)
        user.join(cell)
        with pytest.raises(NotAnswered, match="farkernel login"):
            await user.ask(KEY)
        assert not cell.open
        user.join(terminal)
        asking = asyncio.ensure_future(user.ask(KEY))
        await asyncio.sleep(0)
        terminal.open[0].answer("yes")
        assert await asking == "yes"

    asyncio.run(scenario())


def test_who_comes_later_is_asked_and_when_all_have_left_nobody_waits() -> None:
    async def scenario() -> None:
        user, first, second = KeeperUser(), Person(), Person()
        user.join(first)
        asking = asyncio.ensure_future(user.ask(CODE))
        await asyncio.sleep(0)
        user.join(second)
        user.join(second)
        assert len(second.open) == 1
        user.leave(first)
        assert not asking.done()
        user.leave(second)
        user.leave(second)
        with pytest.raises(NotAnswered):
            await asking

    asyncio.run(scenario())


def test_a_question_that_is_cancelled_is_settled() -> None:
    async def scenario() -> None:
        user, cell = KeeperUser(), Person()
        user.join(cell)
        asking = asyncio.ensure_future(user.ask(CODE))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not cell.open
        assert "open: []" in repr(user)

    asyncio.run(scenario())


def test_a_query_bothers_nobody() -> None:
    async def scenario() -> None:
        user, cell = KeeperUser(), Person(at_terminal=True)
        user.join(cell)
        user.lent.lend({"DISPLAY": ":7"})
        with pytest.raises(NotAnswered):
            await Nobody(user).ask(CODE)
        assert Nobody(user).environment() == {"DISPLAY": ":7"}
        assert not cell.open

    asyncio.run(scenario())
