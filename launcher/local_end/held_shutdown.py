"""A client's shutdown_request is held until the front end has said what it meant by it (DESIGN §4)."""

from __future__ import annotations

import asyncio
from typing import Protocol

from .request_log import Request

# A client that has no front end gets its way.
_PATIENCE = 3.0
# A notebook server that has the kernel says so itself; it may be stopping, with much else to do.
_SAYS_SO = 30.0
# What the front end says to the keeper comes on another way, and may overtake the request that it sent before.
_OVERTAKEN = 0.5
# One that is not meant may come this much later than the word that it is not (a server's socket sends by a thread of
# its own, and machines are busy): to obey it would end a kernel that is to live on.
_STRAGGLES = 10.0


class Owner(Protocol):
    """The local end."""

    @property
    def holding(self) -> bool: ...
    @property
    def is_over(self) -> bool: ...
    @property
    def front_end_says_so(self) -> bool: ...
    def pass_on_shutdown(self, request: Request) -> None: ...
    def answer_shutdown(self, request: Request) -> None: ...
    def forget_request(self, request: Request) -> None: ...
    def send_shutdown_request(self) -> None: ...


class HeldShutdown:
    """At most one request at a time; and whether the front end has spoken before it came."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._held: tuple[Request, asyncio.TimerHandle] | None = None
        self._awaited: asyncio.TimerHandle | None = None
        self._unwanted: asyncio.TimerHandle | None = None

    def hold(self, request: Request) -> None:
        if self._unwanted is not None:
            self._expect_no_more()
            self._owner.forget_request(request)
            return
        self.drop(answer=False)
        patience = _SAYS_SO if self._owner.front_end_says_so else _PATIENCE
        self._held = (request, self._loop.call_later(patience, self._is_meant))
        if self._owner.is_over:
            self.drop(answer=True)
        elif self._awaited is not None:
            self.release()

    def release(self) -> None:
        """The front end means it: the kernel gets the request that was held, or comes now, or else one of ours."""
        self._expect_no_more()
        if self._held is not None:
            request, timer = self._held
            timer.cancel()
            self._held = None
            self._await_no_more()
            self._owner.pass_on_shutdown(request)
        elif self._awaited is None:
            self._awaited = self._loop.call_later(_OVERTAKEN, self._send_ours)

    def renounce(self) -> None:
        """The front end goes away and does not mean it (the server stops), be it here or still on its way."""
        if self._held is not None:
            self.drop(answer=False)
        elif self._unwanted is None:
            self._unwanted = self._loop.call_later(_STRAGGLES, self._expect_no_more)

    def drop(self, answer: bool) -> None:
        """There is no kernel to ask, another request takes its place, or nobody will say what it meant."""
        if self._held is None:
            return
        request, timer = self._held
        timer.cancel()
        self._held = None
        if answer:
            self._owner.answer_shutdown(request)
        self._owner.forget_request(request)

    def end(self, answer: bool) -> None:
        """This life is over: what was meant for it is not meant for the next."""
        self.drop(answer)
        self._await_no_more()
        self._expect_no_more()

    def cancel(self) -> None:
        """Nobody is there to be answered."""
        if self._held is not None:
            self._held[1].cancel()
        self._await_no_more()
        self._expect_no_more()

    def _is_meant(self) -> None:
        if self._owner.holding:
            self.drop(answer=True)
        else:
            self.release()

    def _send_ours(self) -> None:
        """The front end's own got lost with its connection; its wish did not."""
        self._awaited = None
        if not self._owner.holding:
            self._owner.send_shutdown_request()

    def _await_no_more(self) -> None:
        if self._awaited is not None:
            self._awaited.cancel()
            self._awaited = None

    def _expect_no_more(self) -> None:
        if self._unwanted is not None:
            self._unwanted.cancel()
            self._unwanted = None
