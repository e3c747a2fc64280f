"""Keeps one link connected: opens the route, boots the agent, moves bytes, tries again after every cut.

The link itself is sans-I/O (`launcher.agent.link`), the far end's first words are read by `backends.boot`.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ...backends.boot import Archive, Boot, BootError, Greeting
from ...backends.contract import Route, RouteError, Stream
from ..agent.frames import LinkViolation, NoCommonVersion
from ..agent.link import Bye, Connected, Event, HalfOpen, Link, LinkState
from ..errors import FarkernelError
from ..text import one_line

log = logging.getLogger(__name__)

_BOOT_DEADLINE = 60.0
_BUFFERED_ENOUGH = 1024 * 1024
_WRITE_SIZE = 1024 * 1024
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0
# Where a try troubles nobody, output shall flow within 2 s of the network's return (DESIGN §6), for that long.
_UNREACHED_PAUSE, _SOON = 1.0, 20 * 60.0


class DriverState(enum.Enum):
    """Where the connection stands."""

    OPENING = "opening"
    UP = "up"
    PAUSED = "paused"  # between two tries
    ENDED = "ended"


class Displaced(FarkernelError):
    """Another keeper of the same user has taken over."""

    kind = "displaced"

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"another keeper of yours has taken over here ({reason})",
            "Its kernels are there now; to take them back, open the notebook here again",
        )


class FarEndBroke(FarkernelError):
    """What came from the far end is no link."""

    kind = "link"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the far end broke the link's rules: {why}",
            "See the keeper's log; the connection is opened afresh",
        )


class LinkDriver:
    """One link and whatever connection it has at the moment.

    ``on_event`` gets the link's events; ``on_state`` is told of each change with a sentence why.  `run`
    returns only when
    it is cancelled, or raises what makes trying again as it is pointless: `BootError` with ``final``,
    `Displaced`, `FarEndBroke`
    (then it may be run again with another ``link``).
    """

    def __init__(
        self,
        link: Link,
        route: Callable[[], Awaitable[Route]],
        archive: Archive,
        allocation: str,
        on_event: Callable[[Event], None],
        on_state: Callable[[DriverState, str], None],
        pythons: Sequence[str] = (),
    ) -> None:
        self.link = link
        self.state = DriverState.OPENING
        self.why = ""
        self.next_try: float | None = None
        """While PAUSED: when it will be tried again (seconds since 1970); None: when `retry_now` is called."""
        self._route = route
        self._archive = archive
        self._allocation = allocation
        self._pythons = pythons
        self._on_event = on_event
        self._on_state = on_state
        self._loop = asyncio.get_running_loop()
        self._stream: Stream | None = None
        self._greeting: Greeting | None = None
        self._over: asyncio.Future[str] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._pumping = self._delivering = False
        self._delivered: list[Callable[[], None]] = []
        self._was_up = False
        self._unreached = False  # the last try got to nobody
        self._silent = False  # the connection is half-open: what carries it must not be used again
        self._retry = asyncio.Event()
        self.on_pumped: Callable[[], None] = _nothing

    def __repr__(self) -> str:
        return f"<LinkDriver to {self._allocation}: {self.state.value}, {self.link!r}>"

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        pause = _FIRST_PAUSE
        lost = self._loop.time()
        ended = ""
        try:
            while True:
                self._set(DriverState.OPENING, self.why)
                self._was_up = self._silent = self._unreached = False
                self._retry.clear()
                why, needs_user = await self._one_connection()
                pause = _FIRST_PAUSE if self._was_up else min(pause * 2, _LONGEST_PAUSE)
                if self._was_up:
                    lost = self._loop.time()
                limit = _UNREACHED_PAUSE if self._unreached and self._loop.time() - lost < _SOON else pause
                wait = None if needs_user else min(pause, limit) * random.uniform(0.5, 1.0)
                await self._pause(why, wait)
        except FarkernelError as error:
            ended = error.what
            raise
        finally:
            self._drop("keeper ends")
            self._set(DriverState.ENDED, ended or self.why)

    async def _pause(self, why: str, wait: float | None) -> None:
        self.next_try = None if wait is None else time.time() + wait
        self._set(DriverState.PAUSED, why)
        log.info("link to %s is down (%s); next try in %s s", self._allocation, why, wait)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._retry.wait(), wait)

    @property
    def needs_user(self) -> bool:
        """It waits for somebody to do what `why` says, and then to call `retry_now`."""
        return self.state is DriverState.PAUSED and self.next_try is None

    def retry_now(self) -> None:
        """Somebody wants the link: do not wait for the rest of the pause."""
        if self.state is DriverState.PAUSED:
            self._retry.set()

    def pump(self) -> None:
        """Write what the link wants to say.  Called after everything that may have given it something."""
        stream = self._stream
        if (
            stream is None
            or self._greeting is not None
            or self._pumping
            or self._delivering  # once at its end, for all of it
            or self.link.state is not LinkState.UP
        ):
            return
        self._pumping = True
        try:
            while self._stream is stream and stream.buffered < _BUFFERED_ENOUGH and self.link.has_output():
                stream.write(self.link.send_buffers(self._loop.time(), _WRITE_SIZE))
        finally:
            self._pumping = False
        self.on_pumped()
        self._arm()

    def after_delivery(self, callback: Callable[[], None]) -> None:
        """Call back when all that came in together has been delivered; it will not be long."""
        if self._delivering:
            self._delivered.append(callback)
        else:
            self._loop.call_soon(callback)

    # Receiver

    def data_received(self, data: bytes) -> None:
        try:
            if self._greeting is not None:
                data = self._greet(data)
            if self._greeting is None and data:
                self._deliver(self.link.receive(data, self._loop.time()))
        except (LinkViolation, FarkernelError) as error:
            self._judge(error)
        self.pump()

    def writable(self) -> None:
        self.pump()

    def closed(self, said: str) -> None:
        why = one_line(said.splitlines()[-1])[-500:] if said.strip() else "the connection ended"
        if self._greeting is not None:
            self._finish(self._greeting.ended(said))
        elif self._over is not None and not self._over.done():
            self._over.set_result(why)

    # inside

    async def _one_connection(self) -> tuple[str, bool]:
        """From opening to the end of one connection; returns why it ended, and whether that needs the user."""
        try:
            route = await self._route()
            boot = Boot(self._archive, self._allocation, self.link.hello(), self._pythons)
            self._over = self._loop.create_future()
            self._greeting = boot.greeting()
            self._stream = await route.open(boot.command, self)
            self.link.connect(self._loop.time(), hello_sent=True)
            self._stream.write([boot.script])
            try:
                async with asyncio.timeout(_BOOT_DEADLINE):
                    await self._until_up()
            except TimeoutError:
                self._silent = True
                return f"no answer within {_BOOT_DEADLINE:.0f} s", False
            return await self._over, False
        except RouteError as error:
            self._unreached = error.unreached
            return (str(error), True) if error.needs_user else (error.what, False)
        except BootError as error:
            if error.final:
                raise
            return error.what, False
        finally:
            self._drop(self.why)

    async def _until_up(self) -> None:
        while self._greeting is not None and self._over is not None:
            waits: list[asyncio.Future[Any]] = [self._greeting.done, self._over]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if self._over.done():
                return

    def _greet(self, data: bytes) -> bytes:
        """Feed the first words of the far end; returns what follows them."""
        greeting = self._greeting
        if greeting is None:
            return data
        rest, answer = greeting.feed(data)
        if answer and self._stream is not None:  # it answers what was written there
            self._stream.write([answer])
        if greeting.linked:
            self._greeting = None
            if not greeting.done.done():
                greeting.done.set_result(None)
        return rest

    def _deliver(self, events: Sequence[Event]) -> None:
        self._delivering = True
        try:
            self._deliver_each(events)
        finally:
            self._delivering = False
            callbacks, self._delivered = self._delivered, []
            for callback in callbacks:
                callback()

    def _deliver_each(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Connected):
                self._was_up = True
                self._set(DriverState.UP, "")
            if isinstance(event, HalfOpen):
                self._silent = True
                self._finish_quietly(f"nothing heard for {event.silent_for:.0f} s")
            elif isinstance(event, Bye):
                self._finish(Displaced(event.reason))
            else:
                self._on_event(event)

    def _finish(self, error: FarkernelError) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_exception(error)

    def _finish_quietly(self, why: str) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(why)

    def _drop(self, why: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        stream, self._stream, self._greeting = self._stream, None, None
        over, self._over = self._over, None
        if over is not None and over.done() and not over.cancelled():
            over.exception()  # seen, also when nobody waited for it any more
        if stream is not None:
            stream.close(dead=self._silent)
        self.link.disconnect(self._loop.time())

    def _arm(self) -> None:
        deadline = self.link.deadline()
        if deadline is None or self._stream is None:
            return
        if self._timer is not None:
            if self._timer.when() <= deadline:
                return  # it looks again when it fires: cheaper than a new timer with every message
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._stream is not None and self._greeting is None:
            try:
                self._deliver(self.link.tick(self._loop.time()))
            except (LinkViolation, FarkernelError) as error:
                self._judge(error)
            self.pump()

    def _judge(self, error: LinkViolation | FarkernelError) -> None:
        """What is wrong with the far end's bytes ends the connection, and is told by `run`."""
        if isinstance(error, NoCommonVersion):
            self._finish(BootError(error.what, error.advice, final=True))
        elif isinstance(error, LinkViolation):
            log.error("link to %s: %s", self._allocation, error)
            self._finish(FarEndBroke(str(error)))
        else:
            self._finish(error)

    def _set(self, state: DriverState, why: str) -> None:
        if (state, why) != (self.state, self.why):
            self.state, self.why = state, why
            self._on_state(state, why)


def _nothing() -> None:
    """Nobody waits for room in the link."""
