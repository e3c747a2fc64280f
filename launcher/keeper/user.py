"""The person whose keeper this is: what their front ends lend, and who of them can answer a question."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Mapping
from typing import Protocol

from ...backends.contract import NotAnswered, Question
from .environment import LentEnvironment

log = logging.getLogger(__name__)


class Asked:
    """A question that waits for its answer; the first one counts."""

    def __init__(self, number: int, question: Question) -> None:
        self.number = number
        self.question = question
        self.answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<Asked {self.number} for {self.question.host}, {'done' if self.answered.done() else 'open'}>"

    def answer(self, text: str) -> None:
        if not self.answered.done():
            self.answered.set_result(text)

    def decline(self) -> None:
        if not self.answered.done():
            self.answered.set_exception(NotAnswered(self.question))


class Answerer(Protocol):
    """Somebody who can be asked: a held cell, or a command at a terminal."""

    @property
    def host(self) -> str:
        """Only questions about this one are theirs."""

    @property
    def at_terminal(self) -> bool:
        """May be asked what `Question.terminal` marks."""

    @property
    def kernel(self) -> str:
        """Whose cell it is; empty for a command."""

    def asked(self, asked: Asked) -> None:
        """Show it; answer or decline it at any time."""

    def settled(self, asked: Asked) -> None:
        """It has been answered, here or elsewhere, or need not be any more."""


class KeeperUser:
    """See `backends.contract.User`."""

    def __init__(self) -> None:
        self.lent = LentEnvironment()
        self._answerers: list[Answerer] = []
        self._open: dict[int, Asked] = {}
        self._numbers = itertools.count(1)

    def __repr__(self) -> str:
        return f"<KeeperUser, {len(self._answerers)} can be asked, open: {list(self._open.values())}>"

    def environment(self) -> Mapping[str, str]:
        return self.lent.current()

    async def ask(self, question: Question) -> str:
        """Asks all who may be asked, also those who come while it is open."""
        asked = Asked(next(self._numbers), question)
        answerers = [each for each in self._answerers if _suits(each, question)]
        if not answerers:
            raise NotAnswered(question)
        self._open[asked.number] = asked
        try:
            for answerer in answerers:
                answerer.asked(asked)
            return await asked.answered
        finally:
            del self._open[asked.number]
            for answerer in list(self._answerers):
                if _suits(answerer, question):
                    answerer.settled(asked)

    def join(self, answerer: Answerer) -> None:
        """From now on they can be asked; what is open already they are asked at once."""
        if answerer not in self._answerers:
            self._answerers.append(answerer)
            for asked in list(self._open.values()):
                if _suits(answerer, asked.question):
                    answerer.asked(asked)

    def leave(self, answerer: Answerer) -> None:
        """They are gone; a question that nobody is left to answer is declined."""
        if answerer not in self._answerers:
            return
        self._answerers.remove(answerer)
        for asked in list(self._open.values()):
            if not any(_suits(each, asked.question) for each in self._answerers):
                asked.decline()

    def open_question(self, number: int) -> Asked | None:
        return self._open.get(number)


def _suits(answerer: Answerer, question: Question) -> bool:
    if question.kernel and question.kernel != answerer.kernel:
        return False
    return answerer.host == question.host and (answerer.at_terminal or not question.terminal)


class Nobody:
    """For queries that must not bother anybody: what is lent is used, and no question is put."""

    def __init__(self, user: KeeperUser) -> None:
        self._user = user

    def environment(self) -> Mapping[str, str]:
        return self._user.environment()

    async def ask(self, question: Question) -> str:
        raise NotAnswered(question)
