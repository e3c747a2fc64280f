"""What becomes of a client's shutdown_request: the front end says what it meant, sooner or later than it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from farkernel.launcher.local_end import held_shutdown
from farkernel.launcher.local_end.held_shutdown import HeldShutdown
from farkernel.launcher.local_end.request_log import Request
from farkernel.launcher.messages import pack


class Owner:
    """Notes what it is told."""

    holding = False
    is_over = False
    front_end_says_so = False

    def __init__(self) -> None:
        self.said: list[str] = []
        self.heard = asyncio.Event()

    def _note(self, what: str) -> None:
        self.said.append(what)
        self.heard.set()

    def pass_on_shutdown(self, request: Request) -> None:
        self._note("passed on")

    def answer_shutdown(self, request: Request) -> None:
        self._note("answered")

    def forget_request(self, request: Request) -> None:
        self._note("forgotten")

    def send_shutdown_request(self) -> None:
        self._note("ours")


def request() -> Request:
    header = {"msg_id": "m", "msg_type": "shutdown_request", "session": "s"}
    return Request(1, "control", [b"client", b"<IDS|MSG>", b"", pack(header), b"{}", b"{}", b"{}"])


Story = Callable[[HeldShutdown, Owner], Coroutine[None, None, None]]


def outcome(story: Story) -> list[str]:
    async def act() -> list[str]:
        owner = Owner()
        await story(HeldShutdown(owner), owner)
        return owner.said

    return asyncio.run(act())


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_shutdown, "_PATIENCE", 0.02)
    monkeypatch.setattr(held_shutdown, "_OVERTAKEN", 0.01)


async def rest(owner: Owner) -> None:
    """Until more is said, or it would have been."""
    owner.heard.clear()
    try:
        await asyncio.wait_for(owner.heard.wait(), 0.2)
    except TimeoutError:
        pass


def test_a_client_without_a_front_end_gets_its_way() -> None:
    async def story(held: HeldShutdown, owner: Owner) -> None:
        held.hold(request())
        assert owner.said == []
        await rest(owner)

    assert outcome(story) == ["passed on"]


@pytest.mark.parametrize("first", ["request", "word"])
def test_meant(first: str) -> None:
    async def story(held: HeldShutdown, owner: Owner) -> None:
        for each in (held.release, lambda: held.hold(request()))[:: 1 if first == "word" else -1]:
            each()
        await rest(owner)

    assert outcome(story) == ["passed on"]


def test_a_front_end_that_says_what_it_means_has_longer() -> None:
    async def story(held: HeldShutdown, owner: Owner) -> None:
        owner.front_end_says_so = True
        held.hold(request())
        await rest(owner)
        assert owner.said == []
        held.renounce()

    assert outcome(story) == ["forgotten"]


def test_meant_and_the_request_got_lost() -> None:
    async def story(held: HeldShutdown, owner: Owner) -> None:
        held.release()
        await rest(owner)

    assert outcome(story) == ["ours"]


@pytest.mark.parametrize("first", ["request", "word"])
def test_not_meant(first: str) -> None:
    """A server that stops: its request may come after its word that the kernel is to live on."""

    async def story(held: HeldShutdown, owner: Owner) -> None:
        for each in (held.renounce, lambda: held.hold(request()))[:: 1 if first == "word" else -1]:
            each()
        await rest(owner)

    assert outcome(story) == ["forgotten"]


def test_not_meant_concerns_one_request_only() -> None:
    async def story(held: HeldShutdown, owner: Owner) -> None:
        held.renounce()
        held.hold(request())
        held.hold(request())
        await rest(owner)

    assert outcome(story) == ["forgotten", "passed on"]


def test_not_meant_concerns_no_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_shutdown, "_STRAGGLES", 0.01)

    async def story(held: HeldShutdown, owner: Owner) -> None:
        held.renounce()
        await rest(owner)
        held.hold(request())
        await rest(owner)

    assert outcome(story) == ["passed on"]


def test_the_next_front_ends_wish_counts() -> None:
    """It comes back at once, and its user ends the kernel: whichever comes first of the two."""

    async def word_first(held: HeldShutdown, owner: Owner) -> None:
        held.renounce()
        held.release()
        held.hold(request())
        await rest(owner)

    async def request_first(held: HeldShutdown, owner: Owner) -> None:
        held.renounce()
        held.hold(request())
        held.release()
        await rest(owner)

    assert outcome(word_first) == ["passed on"]
    assert outcome(request_first) == ["forgotten", "ours"]


def test_the_end_of_a_life_answers_and_settles_all() -> None:
    async def story(held: HeldShutdown, owner: Owner) -> None:
        held.hold(request())
        held.end(answer=True)
        held.release()
        held.end(answer=True)
        held.renounce()
        held.end(answer=True)
        held.hold(request())
        await rest(owner)

    assert outcome(story) == ["answered", "forgotten", "passed on"]
