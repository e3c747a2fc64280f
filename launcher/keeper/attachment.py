"""A kernel's four channels on the link: opened, attached, and the messages that go over them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, Protocol

from ..agent.channels import Priority
from ..agent.zmtp import Buffer, decode_message, encode_message
from ..errors import FarkernelError, RemoteError
from ..local_end.local_end import LocalEnd
from .allocations import HeldAllocation
from .bringing_up import host_of
from .facts import Facts, KernelGone, reason_from_error
from .far_agent import AgentGone, SessionLost
from .wire import pack_request, unpack_message

log = logging.getLogger(__name__)

_PRIORITIES = {
    "control": Priority.CONTROL,
    "shell": Priority.SHELL,
    "stdin": Priority.STDIN,
    "iopub": Priority.OUTPUT,
}
_ACKNOWLEDGE_EVERY = 0.5
NO_KERNEL = "no-kernel"
"""The agent's kind of error (`launcher.agent.problems`)."""


class Attached(Protocol):
    """The kernel."""

    id: str
    facts: Facts
    local: LocalEnd
    allocation: HeldAllocation | None

    @property
    def far(self) -> str: ...
    def far_state(self, state: str, reason: Any) -> None: ...
    def end(self, reason: dict[str, Any]) -> None: ...
    def chore(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]: ...


class Attachment:
    """Of one kernel.  Without open channels nothing is sent, and nothing comes."""

    def __init__(self, kernel: Attached) -> None:
        self._kernel = kernel
        self._loop = asyncio.get_running_loop()
        self._channels: dict[str, int] = {}
        self._attaching: asyncio.Task[None] | None = None
        self._acknowledge: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        return bool(self._channels)

    def forget(self) -> None:
        """The session is gone, or another keeper has the kernel: there is nothing to be closed."""
        self._channels = {}

    def stop(self) -> None:
        """Nothing will be acknowledged any more."""
        if self._acknowledge is not None:
            self._acknowledge.cancel()

    def begin(self) -> None:
        """Open the channels, afresh; what the agent says then comes by `far_state` or `end`."""
        if self._attaching is not None:
            self._attaching.cancel()
        self._attaching = self._kernel.chore(self._attach(), "attach")

    async def _attach(self) -> None:
        held = self._kernel.allocation
        if held is None:
            return
        self.close(held)
        self._channels = {
            name: held.agent.open_channel(priority, partial(self._from_kernel, name))
            for name, priority in _PRIORITIES.items()
        }
        try:
            received = self._received()
            answer = await held.agent.request(
                "attach", kernel=self._kernel.far, channels=self._channels, received=received
            )
        except (SessionLost, AgentGone):
            return  # the next fresh session attaches again
        except FarkernelError as error:
            held.agent.forget_channels(self._channels.values())
            self._channels = {}
            if isinstance(error, RemoteError) and error.remote_kind == NO_KERNEL:
                error = KernelGone(host_of(held) or self._kernel.facts.target)
            self._kernel.end(reason_from_error(error.as_dict()))
            return
        first = answer.get("first") or {}
        for name, number in received.items():
            if isinstance(first.get(name), int) and first[name] > number + 1:
                self._kernel.local.notes.say_dropped(name, None, number + 1, first[name] - 1)
        self._kernel.local.attached(
            {name: int(number) for name, number in (answer.get("taken") or {}).items()}
        )
        self._kernel.far_state(str(answer.get("state")), answer.get("reason"))

    def _received(self) -> dict[str, int]:
        """As its present agent counts."""
        return {
            name: max(number - self._kernel.facts.base.get(name, 0), 0)
            for name, number in self._kernel.local.received().items()
        }

    def _from_kernel(self, name: str, data: Buffer) -> None:
        """One message of the kernel; an empty one is the end of the channel."""
        if not data:
            return
        try:
            number, when, body = unpack_message(data)
            frames = decode_message(body)
        except ValueError as error:
            log.error("kernel %s: unreadable message on %s: %s", self._kernel.id, name, error)
            return
        channel, size = self._channels.get(name, 0), len(data)
        number += self._kernel.facts.base.get(name, 0)
        self._kernel.local.from_kernel.take(
            name, number, when, frames, partial(self._consumed, channel, size)
        )

    def _consumed(self, channel: int, size: int) -> None:
        if self._kernel.allocation is not None:
            self._kernel.allocation.agent.consumed(channel, size)
            self._kernel.allocation.agent.driver.pump()
        if self._acknowledge is None:
            self._acknowledge = self._loop.call_later(_ACKNOWLEDGE_EVERY, self._tell_received)

    def _tell_received(self) -> None:
        self._acknowledge = None
        if self._kernel.allocation is not None and self._channels:
            self._kernel.allocation.agent.tell("received", kernel=self._kernel.far, numbers=self._received())

    def send(self, channel: str, number: int, frames: Sequence[Buffer]) -> None:
        """Called by the local end, in order of numbers.  Raises `MessageTooLarge`."""
        if self._kernel.allocation is not None and channel in self._channels:
            self._kernel.allocation.agent.send(
                self._channels[channel], pack_request(number, encode_message(frames))
            )

    def close(self, held: HeldAllocation | None) -> None:
        """Those that are open in that allocation."""
        if held is not None:
            for channel in self._channels.values():
                held.agent.close_channel(channel)
        self._channels = {}
