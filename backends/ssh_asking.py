"""Those who wait for one connection, and who can therefore be asked for what it takes to make it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from .contract import NotAnswered, Question, User

Pause = Callable[[], AbstractAsyncContextManager[None]]


class Asker:
    """Puts a question to each of those who wait, until one of them answers.

    While a question is open, no deadline runs, and ``pause`` is entered (the place among the parallel logins is free
    for others).
    """

    def __init__(self, pause: Pause = nullcontext) -> None:
        self._pause = pause
        self._waiting: dict[tuple[User, str], int] = {}
        self._deadline: asyncio.Timeout | None = None
        self.asked: set[User] = set()
        self.declined: NotAnswered | None = None

    def __repr__(self) -> str:
        return f"<Asker, {len(self._waiting)} wait>"

    def join(self, user: User, host: str) -> None:
        self._waiting[user, host] = self._waiting.get((user, host), 0) + 1

    def leave(self, user: User, host: str) -> int:
        """Returns how many still wait."""
        left = self._waiting[user, host] - 1
        if left:
            self._waiting[user, host] = left
        else:
            del self._waiting[user, host]
        return sum(self._waiting.values())

    def environment(self) -> Mapping[str, str]:
        """What their front ends lent."""
        found: dict[str, str] = {}
        for user, _ in self._waiting:
            found = {**user.environment(), **found}
        return found

    def aside(self) -> AbstractAsyncContextManager[None]:
        """The login waits for something, and its place among the parallel logins is free for others meanwhile."""
        return self._pause()

    @asynccontextmanager
    async def limit(self, seconds: float) -> AsyncIterator[None]:
        """A deadline that stands still while somebody is asked; raises TimeoutError."""
        async with asyncio.timeout(seconds) as self._deadline:
            try:
                yield
            finally:
                self._deadline = None

    async def ask(self, text: str, hidden: bool = True, terminal: bool = False) -> str:
        """Raises `NotAnswered`."""
        loop = asyncio.get_running_loop()
        deadline = self._deadline
        left = None if deadline is None or deadline.when() is None else (deadline.when() or 0.0) - loop.time()
        if deadline is not None:
            deadline.reschedule(None)
        try:
            async with self.aside():
                return await self._ask_each(text, hidden, terminal)
        finally:
            if deadline is not None and left is not None and not deadline.expired():
                deadline.reschedule(loop.time() + left)

    async def _ask_each(self, text: str, hidden: bool, terminal: bool) -> str:
        refusal: NotAnswered | None = None
        for user, host in list(self._waiting):
            self.asked.add(user)
            try:
                return await user.ask(Question(host, text, hidden, terminal))
            except NotAnswered as error:
                refusal = error
        self.declined = refusal or NotAnswered(Question("the host", text, hidden, terminal))
        raise self.declined


class Through:
    """Those who wait for a connection, as the user of the jump host on the way to it."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    def environment(self) -> Mapping[str, str]:
        return self._asker.environment()

    async def ask(self, question: Question) -> str:
        return await self._asker.ask(question.text, question.hidden, question.terminal)
