"""The keeper's side of an agent, against a far end in this process that cuts, forgets, lies and refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from farkernel.backends.boot import Archive, BootError
from farkernel.launcher.errors import RemoteError
from farkernel.launcher.keeper.driver import Displaced, DriverState
from farkernel.launcher.keeper.far_agent import FarAgent, SessionLost

from .far_end import FarEnd


class Site:
    """A far agent that runs, what it reported, and the far end that it talks to."""

    def __init__(self, answer: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
        self.far = FarEnd(answer)
        self.fresh = 0
        self.events: list[dict[str, Any]] = []
        self.states: list[tuple[DriverState, str]] = []
        self.changed = asyncio.Event()
        archive = Archive(b"zip", "0" * 64, 3)
        self.agent = FarAgent({}, self.far.route, archive, "host", self._fresh, self._event, self._state)
        self.task = asyncio.create_task(self.agent.run())

    def _fresh(self) -> None:
        self.fresh += 1
        self.changed.set()

    def _event(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        self.changed.set()

    def _state(self, state: DriverState, why: str) -> None:
        self.states.append((state, why))
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()


def scenario(
    play: Callable[[Site], Awaitable[None]],
    answer: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda request: {
        "ok": {"did": request["do"]}
    },
) -> None:
    async def run() -> None:
        site = Site(answer)
        try:
            async with asyncio.timeout(20):
                await play(site)
        finally:
            site.task.cancel()
            await asyncio.gather(site.task, return_exceptions=True)

    asyncio.run(run())


def test_requests_are_answered_and_errors_keep_their_words() -> None:
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "fly":
            return {"error": {"kind": "wings", "what": "it has no wings", "advice": "Walk"}}
        return {"ok": {"did": request["do"], "far": request["far"]}}

    async def play(site: Site) -> None:
        assert await site.agent.request("walk", far=3) == {"did": "walk", "far": 3}
        with pytest.raises(RemoteError, match=r"it has no wings\. Walk"):
            await site.agent.request("fly")
        assert site.fresh == 1

    scenario(play, answer)


def test_an_answer_that_a_cut_took_comes_after_it() -> None:
    async def play(site: Site) -> None:
        await site.agent.request("first")
        asking = asyncio.create_task(site.agent.request("second"))
        await asyncio.sleep(0)
        site.far.stream.cut("Connection reset by peer")
        assert await asking == {"did": "second"}
        assert [request["do"] for request in site.far.requests] == [
            "first",
            "second",
        ]  # once, although it was cut
        assert site.fresh == 1
        assert (DriverState.PAUSED, "Connection reset by peer") in site.states

    scenario(play)


def test_an_agent_that_forgot_is_asked_again_and_what_named_channels_is_not() -> None:
    silent = True

    def answer(request: dict[str, Any]) -> dict[str, Any] | None:
        return None if silent else {"ok": {}}

    async def play(site: Site) -> None:
        nonlocal silent
        await site.until(lambda: site.fresh == 1)
        start = asyncio.create_task(site.agent.request("start", kernel="k", life=1))
        attach = asyncio.create_task(site.agent.request("attach", kernel="k"))
        await site.far.has_taken(2)
        silent = False
        site.far.forget()
        site.far.stream.cut()
        with pytest.raises(SessionLost):
            await attach
        assert await start == {}
        assert [request["do"] for request in site.far.requests] == ["start", "attach", "start"]
        assert site.fresh == 2

    scenario(play, answer)


def test_events_reach_the_owner_and_nonsense_hurts_nobody() -> None:
    async def play(site: Site) -> None:
        await site.agent.request("hello")
        assert site.far.link is not None
        for junk in (b"{", b"[]", b'{"id": 77, "ok": 1}', b"\xff", b"[" * 100_000):
            site.far.link.send(0, [junk])
        site.far.tell({"event": "kernel", "kernel": "k"})
        site.far.flush(site.far.stream)
        await site.until(lambda: bool(site.events))
        assert site.events == [{"event": "kernel", "kernel": "k"}]

    scenario(play)


def test_a_far_end_that_breaks_the_rules_gets_a_new_session() -> None:
    async def play(site: Site) -> None:
        await site.agent.request("hello")
        session = site.agent.link.session
        site.far.stream.say(b"this is no frame at all, but it is long enough to be one")
        await site.until(lambda: site.fresh == 2)
        assert site.agent.link.session != session
        assert await site.agent.request("again") == {"did": "again"}

    scenario(play)


def test_a_keeper_that_was_displaced_does_not_come_back_by_itself() -> None:
    async def play(site: Site) -> None:
        await site.agent.request("hello")
        assert site.far.link is not None
        site.far.link.bye("taken over by office:4711")
        site.far.flush(site.far.stream)
        with pytest.raises(Displaced, match=r"has taken over here \(taken over by office:4711\)"):
            await site.task
        assert len(site.far.streams) == 1

    scenario(play)


def test_an_error_that_trying_again_cannot_mend_ends_it() -> None:
    async def play(site: Site) -> None:
        site.far.instead = b'NONCE error {"what": "no space left", "advice": "Free some", "final": true}\n'
        with pytest.raises(BootError, match=r"no space left\. Free some"):
            await site.task

    scenario(play)


def test_other_errors_are_tried_again() -> None:
    async def play(site: Site) -> None:
        site.far.instead = b'NONCE error {"what": "not now", "advice": "", "final": false}\n'
        await site.until(lambda: (DriverState.PAUSED, "not now") in site.states)
        site.far.instead = None
        assert await site.agent.request("hello") == {"did": "hello"}

    scenario(play)
