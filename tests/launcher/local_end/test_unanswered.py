"""Cells whose kernel was hit by an interrupt, said `idle`, and never answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from farkernel.launcher.local_end import unanswered
from farkernel.launcher.local_end.request_log import Request
from farkernel.launcher.local_end.unanswered import Unanswered
from farkernel.launcher.messages import pack


class Site:
    def __init__(self) -> None:
        self.answered: list[Request] = []
        self.link_is_away = False
        self.looks = 0
        self._happened = asyncio.Event()
        self.unanswered = Unanswered(self._is_away, self._answer)

    def _is_away(self) -> bool:
        self.looks += 1
        self._happened.set()
        return self.link_is_away

    def _answer(self, request: Request) -> None:
        request.replied = True
        self.answered.append(request)
        self._happened.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self._happened.clear()
                await self._happened.wait()


def cell() -> Request:
    header = {"msg_id": "m", "msg_type": "execute_request", "session": "s"}
    return Request(1, "shell", [b"client", b"<IDS|MSG>", b"", pack(header), b"{}", b"{}", b"{}"], 1)


def played(story: Callable[[Site, Request], Coroutine[None, None, None]]) -> int:
    async def act() -> int:
        site = Site()
        await story(site, cell())
        return len(site.answered)

    return asyncio.run(act())


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unanswered, "_FOLLOWS", 0.01)


@pytest.mark.parametrize("idle_first", [False, True])
def test_idle_and_no_answer(idle_first: bool) -> None:
    """The signal's own answer may come after the kernel's `idle`."""

    async def story(site: Site, request: Request) -> None:
        if not idle_first:
            site.unanswered.interrupted(request)
        request.idle_sent = True
        site.unanswered.note_idle(request)
        if idle_first:
            assert site.looks == 0
            site.unanswered.interrupted(request)
        await site.until(lambda: bool(site.answered))

    assert played(story) == 1


def test_nothing_is_answered_for_one_that_was_not_interrupted() -> None:
    async def story(site: Site, request: Request) -> None:
        request.idle_sent = True
        site.unanswered.note_idle(request)
        await asyncio.sleep(0.05)

    assert played(story) == 0


def test_the_kernels_own_answer_comes_a_little_later() -> None:
    async def story(site: Site, request: Request) -> None:
        site.unanswered.interrupted(request)
        request.idle_sent = True
        site.unanswered.note_idle(request)
        request.replied = True
        await asyncio.sleep(0.05)

    assert played(story) == 0


def test_while_the_link_is_away_its_answer_may_be_on_the_way() -> None:
    async def story(site: Site, request: Request) -> None:
        site.link_is_away = True
        site.unanswered.interrupted(request)
        request.idle_sent = True
        site.unanswered.note_idle(request)
        await site.until(lambda: site.looks > 2)
        assert not site.answered
        site.link_is_away = False
        await site.until(lambda: bool(site.answered))

    assert played(story) == 1
