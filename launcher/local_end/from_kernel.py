"""The kernel's messages on their way to clients: one session for its whole life, each request followed to its end."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..agent.zmtp import Buffer
from ..messages import Message, MessageError, Signer
from .outgoing import Consumed, Outgoing
from .received import Received
from .request_log import Request
from .starts import Starts
from .unanswered import Unanswered

log = logging.getLogger(__name__)

_SHOWN = frozenset({"stream", "display_data", "execute_result", "error", "update_display_data"})


class Owner(Protocol):
    """The local end."""

    @property
    def session(self) -> str: ...
    def reply(self, channel: str, message: Message) -> None: ...
    @property
    def starts(self) -> Starts: ...
    @property
    def unanswered(self) -> Unanswered: ...
    def done(self, request: Request) -> None: ...
    def remember_info(self, info: dict[str, Any]) -> None: ...


class FromKernel:
    """Of one local end.  ``active``: the requests that have no answer yet, by `msg_id`."""

    def __init__(
        self,
        owner: Owner,
        name: str,
        signer: Signer,
        active: Mapping[str, Request],
        received: Received,
        out: Outgoing,
    ) -> None:
        self.iopub_seen = 0
        """the last number that has come, written to clients or not"""
        self.doubtful: dict[str, int] = {}
        """up to there a killed keeper may have passed a message on without having come to note it"""
        self.own_requests: set[str] = set()
        """ours: their answers concern no client"""
        self._owner = owner
        self._name = name
        self._signer = signer
        self._active = active
        self._received = received
        self._out = out
        self._newest_parent = b"", ""

    def take(self, name: str, number: int, when: float, frames: Sequence[Any], consumed: Consumed) -> None:
        """One message; ``consumed`` is called when it has been handed to the system."""
        seen = self.iopub_seen if name == "iopub" else self._received[name]
        if number <= seen:
            consumed()
            return
        try:
            message = Message.split(frames)
            parent_id = self._parent_of(message)
            changed = self._signer.with_session(
                message, self._owner.session, number <= self.doubtful.get(name, 0)
            )
        except MessageError as error:
            log.error("%s: the kernel sent on %s: %s", self._name, name, error)
            self._received[name] = number
            consumed()
            return
        if name == "iopub":
            self.iopub_seen = number
            self._from_iopub(number, changed, parent_id, consumed)
        else:
            self._answer(name, changed, parent_id)
            self._received[name] = number
            consumed()

    def _parent_of(self, message: Message) -> str:
        """The `msg_id` of its parent, whose bytes are the same in all that one request causes.  Raises MessageError."""
        header = message.parts[1]
        if header != self._newest_parent[0]:
            self._newest_parent = header, str(message.parent.get("msg_id", ""))
        return self._newest_parent[1]

    def _answer(self, name: str, message: Message, parent_id: str) -> None:
        request = self._active.get(parent_id)
        if not message.identities and request is not None:
            message.identities = request.message.identities  # a kernel that does not echo routing frames
        if parent_id in self.own_requests:
            self.own_requests.discard(parent_id)
        elif message.identities:
            self._owner.reply(name, message)
        if message.msg_type == "kernel_info_reply":
            self._remember_info(message)
        if request is not None and name == "stdin":
            request.input_open = True
        elif request is not None:
            request.replied = True
            if request.idle_sent:
                self._owner.done(request)

    def _remember_info(self, message: Message) -> None:
        try:
            info = message.content
        except MessageError:
            return
        if info.get("language_info"):
            self._owner.remember_info(info)

    def _from_iopub(self, number: int, message: Message, parent_id: str, consumed: Consumed) -> None:
        frames: list[Buffer] = message.frames()
        request = self._active.get(parent_id)
        if request is not None:
            request.heard = number
            if request.started is None:
                self._owner.starts.note(request, message)
        # What a kernel prints of itself when it starts belongs under no cell.
        shown = bool(parent_id) and message.msg_type in _SHOWN
        # The welcome is for the agent's subscription; clients get theirs from us.
        if message.msg_type == "iopub_welcome" or (
            message.msg_type == "status" and self._is_second_busy(message, parent_id)
        ):
            frames = []
        self._out.output(number, frames, shown, consumed)

    def _is_second_busy(self, message: Message, parent_id: str) -> bool:
        """Follow a request's busy and idle; a second busy is not passed on (front ends count them, DESIGN §4)."""
        request = self._active.get(parent_id)
        if request is None:
            return False
        try:
            state = message.content.get("execution_state")
        except MessageError:
            return False
        if state == "busy":
            second, request.busy_sent = request.busy_sent, True
            return second
        if state == "idle":
            request.idle_sent = True
            self._owner.unanswered.note_idle(request)
            if request.replied or not request.expects_reply:
                self._owner.done(request)
        return False
