"""The keeper's view of one agent: requests and answers on channel 0, channels for kernels (docs/architecture.md §4)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

from ...backends.boot import Archive
from ...backends.contract import Buffer, Route
from ..agent.channels import ChannelError, Priority
from ..agent.link import ChannelClosed, Connected, Event, Link, Message, Role, StreamData
from ..errors import FarkernelError, RemoteError
from .driver import DriverState, FarEndBroke, LinkDriver

log = logging.getLogger(__name__)

# These name channels of the session in which they were asked.
_TIED_TO_SESSION = frozenset({"attach", "journal", "connect", "run", "serial", "signals"})

_LONGEST_PAUSE = 30.0

Reader = Callable[[Buffer], None]
Lost = Callable[[], None]


class AgentGone(FarkernelError):
    """The link has been given up while an answer was awaited."""

    kind = "link"

    def __init__(self) -> None:
        super().__init__("the link to the agent has ended", "Try again; the keeper connects afresh")


class SessionLost(FarkernelError):
    """The agent does not know our session any more: what was tied to it must be done again."""

    kind = "link"

    def __init__(self) -> None:
        super().__init__("the agent was started again", "Its kernels are attached afresh")


class FarAgent:
    """One agent at the far end of one link.

    ``on_fresh`` is called whenever the agent does not know our session (the first time, or when it was itself
    again): channels must be opened and kernels attached anew.  ``on_event`` gets the events of the agent.
    """

    def __init__(
        self,
        about: dict[str, Any],
        route: Callable[[], Awaitable[Route]],
        archive: Archive,
        allocation: str,
        on_fresh: Callable[[], None],
        on_event: Callable[[dict[str, Any]], None],
        on_state: Callable[[DriverState, str], None],
        pythons: Sequence[str] = (),
    ) -> None:
        self._about = about
        self.driver = LinkDriver(self._new_link(), route, archive, allocation, self._event, on_state, pythons)
        self._on_fresh = on_fresh
        self._on_event = on_event
        self._readers: dict[int, Reader] = {}
        self._lost: dict[int, Lost] = {}
        self._ran: dict[int, Callable[[dict[str, Any]], None]] = {}
        self._waiting: set[Callable[[], None]] = set()
        self.driver.on_pumped = self._pumped
        self._pending: dict[int, tuple[dict[str, Any], asyncio.Future[dict[str, Any]]]] = {}
        self._next_request = 1
        self._expected = False
        self._up = False

    def __repr__(self) -> str:
        return (
            f"<FarAgent, {len(self._pending)} requests open, {len(self._readers)} channels, {self.driver!r}>"
        )

    @property
    def link(self) -> Link:
        """The present session's."""
        return self.driver.link

    def _new_link(self) -> Link:
        return Link(Role.KEEPER, secrets.token_hex(16), self._about)

    async def run(self) -> None:
        """Stay connected until cancelled, or until it is pointless (raises)."""
        try:
            for failures in itertools.count():
                try:
                    await self.driver.run()
                except FarEndBroke as error:
                    # The session cannot be trusted any more; kernels are attached afresh in another one.
                    log.error("%s", error)
                    self._up = False
                    self._lose_channels()
                    self.driver.link = self._new_link()
                    self._note_awaiting()
                    await asyncio.sleep(min(0.5 * 2**failures, _LONGEST_PAUSE))
        finally:
            self._lose_channels()
            pending, self._pending = self._pending, {}
            for _, future in pending.values():
                if not future.done():
                    future.set_exception(AgentGone())
                    future.exception()  # whoever still waits gets it; whoever went away need not

    async def request(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Ask the agent; raises `RemoteError` with its words, `AgentGone` when the link was given up.

        A request may be sent again with the same effect (§4), so one whose answer was lost with a session is
        repeated; those that name channels raise `SessionLost` instead.
        """
        number = self._next_request
        self._next_request += 1
        request = {"id": number, "do": do, **arguments}
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[number] = (request, future)
        self._note_awaiting()
        if self._up:
            self._tell(request)
        try:
            return await future
        finally:
            self._pending.pop(number, None)
            self._note_awaiting()

    def expect(self, something: bool) -> None:
        """Whether a kernel owes somebody an answer: then silence is noticed sooner (docs/architecture.md §2)."""
        self._expected = something
        self._note_awaiting()

    def _note_awaiting(self) -> None:
        self.link.awaiting = self._expected or bool(self._pending)

    def tell(self, do: str, **arguments: Any) -> None:
        """Say something that has no answer; lost when the session is (the next attach makes up for it)."""
        if self._up:
            self._tell({"do": do, **arguments})

    def open_channel(
        self, priority: Priority, reader: Reader, stream: bool = False, lost: Lost | None = None
    ) -> int:
        """A fresh channel; ``reader`` gets whole messages (or a stream's bytes), and ``b""`` when the agent closes it.

        ``lost`` is called instead of that when the session ends, or the connection behind a stream is cut.
        """
        channel = self.link.unused_channel()
        self._readers[channel] = reader
        if lost is not None:
            self._lost[channel] = lost
        self.link.open(channel, priority, stream)
        return channel

    def close_channel(self, channel: int) -> None:
        if self._readers.pop(channel, None) is not None:
            self.link.close(channel)
            self.driver.pump()

    def half_close(self, channel: int) -> None:
        """We send no more on it; what the agent still sends is read on."""
        self.link.close(channel)
        self.driver.pump()

    def forget_channels(self, channels: Iterable[int]) -> None:
        """The agent refused to open these: there is nothing to be closed at its end."""
        for channel in channels:
            self._readers.pop(channel, None)
            self._lost.pop(channel, None)

    def ignore_rest(self, channel: int) -> None:
        """Nobody wants what the agent still sends on it; it is taken off the link all the same."""
        self._lost.pop(channel, None)
        if channel in self._readers:
            self._readers[channel] = partial(self._ignore, channel)

    def _ignore(self, channel: int, data: Buffer) -> None:
        self.consumed(channel, len(data))
        self.driver.pump()

    def when_ran(self, channel: int, callback: Callable[[dict[str, Any]], None]) -> None:
        """Call back, once, when the command behind that channel has ended, with how it ended."""
        self._ran[channel] = callback

    def when_pumped(self, callback: Callable[[], None]) -> None:
        """Call back, once, when the link has given out some of what waits in it."""
        self._waiting.add(callback)

    def _pumped(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, set()
            for callback in waiting:
                callback()

    def _reset(self, channel: Any) -> None:
        """The connection behind a stream was cut at the far end."""
        lost = self._lost.get(channel)
        if lost is not None:
            self.ignore_rest(channel)
            lost()
            with contextlib.suppress(ChannelError):  # it was closed already
                self.half_close(channel)

    def _lose_channels(self) -> None:
        lost, self._lost = self._lost, {}
        self._readers.clear()
        self._ran.clear()
        for callback in lost.values():
            callback()

    def send(self, channel: int, buffers: Sequence[Buffer]) -> None:
        self.link.send(channel, buffers)
        self.driver.pump()

    def consumed(self, channel: int, size: int) -> None:
        if channel in self._readers:
            self.link.consumed(channel, size)

    def _tell(self, message: dict[str, Any]) -> None:
        self.link.send(0, [json.dumps(message, separators=(",", ":")).encode()])
        self.driver.pump()

    def _event(self, event: Event) -> None:
        if isinstance(event, Message):
            if event.channel == 0:
                self.link.consumed(0, len(event.data))
                self._control(bytes(event.data))
            elif event.channel in self._readers:
                self._readers[event.channel](event.data)
        elif isinstance(event, StreamData):
            if event.channel in self._readers:
                self._readers[event.channel](event.data)
        elif isinstance(event, ChannelClosed):
            self._lost.pop(event.channel, None)
            reader = self._readers.pop(event.channel, None)
            if reader is not None:
                reader(b"")
        elif isinstance(event, Connected) and not event.resumed:
            self._fresh()

    def _fresh(self) -> None:
        self._up = True
        self._lose_channels()
        for request, future in list(self._pending.values()):
            if request["do"] in _TIED_TO_SESSION:
                future.set_exception(SessionLost())
            else:
                self._tell(request)
        self._on_fresh()

    def _control(self, data: bytes) -> None:
        try:
            message = json.loads(data)
        except (ValueError, RecursionError):
            log.warning("the agent sent no JSON on channel 0: %r", data[:200])
            return
        if not isinstance(message, dict):
            log.warning("the agent sent no object on channel 0: %r", data[:200])
        elif message.get("event") == "reset":
            self._reset(message.get("channel"))
        elif message.get("event") == "ran":
            self._ran.pop(int(message.get("channel") or 0), _nobody)(message)
        elif "event" in message:
            self._on_event(message)
        elif isinstance(message.get("id"), int) and message["id"] in self._pending:
            _, future = self._pending[message["id"]]
            if future.done():
                return
            answer = message.get("ok")
            if isinstance(answer, dict):
                future.set_result(answer)
            else:
                future.set_exception(RemoteError.from_dict(message.get("error")))


def _nobody(event: dict[str, Any]) -> None:
    """Whoever wanted to know has gone."""
