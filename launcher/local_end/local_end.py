"""The local end of one kernel: the sockets that clients connect to, and the two-way traffic with the far kernel.

Messages are re-signed in both directions, and those of the kernel get one ``header.session`` for the kernel's whole
life (DESIGN §4: two sessions in one life make JupyterLab deaf).  What is not known to be done is on disk.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ..agent.channels import MessageTooLarge
from ..agent.zmtp import Buffer
from ..messages import Composer, Message, MessageError, Signer
from . import client_links
from .asking import Asking
from .cells import CellLog
from .contract import ConnectionInfo, LocalSockets, Subscriber
from .from_kernel import FromKernel
from .held_shutdown import HeldShutdown
from .link_notice import LinkNotice, outage
from .notes import Notes
from .outgoing import Outgoing
from .positions import PositionFile
from .questions import CellQuestion
from .received import Received
from .request_log import Request, RequestLog
from .sockets import open_sockets
from .starts import Starts
from .unanswered import Unanswered
from .waiting_room import Question, Refusal, WaitingRoom, kernel_ended_refusal

log = logging.getLogger(__name__)


class Far(Protocol):
    """The kernel, as its local end sees it."""

    @property
    def interrupts_by_message(self) -> bool: ...
    @property
    def front_end_says_so(self) -> bool:
        """What a shutdown_request means."""

    def to_kernel(self, channel: str, number: int, frames: Sequence[Buffer]) -> None: ...
    def after_delivery(self, callback: Callable[[], None]) -> None: ...
    def interrupt_soon(self) -> None: ...
    def cell_waits(self) -> None: ...
    def answers_awaited(self, some: bool) -> None: ...
    def info_seen(self, info: dict[str, Any]) -> None: ...


class LocalEnd:
    """See the module; the kernel (`launcher.keeper.kernel`) drives it."""

    def __init__(
        self,
        far: Far,
        connection: dict[str, Any],
        far_key: str,
        directory: Path,
        session: str,
        name: str,
        given: bool,
    ) -> None:
        self.connection = connection
        self.session = session
        self.holding = True
        self._far = far
        self._name = name
        self._given = given
        self._directory = directory
        self._signer = Signer(
            str(connection.get("key", "")).encode(), str(connection.get("signature_scheme") or "hmac-sha256")
        )
        self._far_signer = Signer(far_key.encode(), "hmac-sha256")
        self.composer = Composer(self._signer, session)
        self._room = WaitingRoom(self, name)
        self._question = CellQuestion(self)
        self._notice = LinkNotice(self, name, self.running_cell, lambda: self._question.is_open)
        self._loop = asyncio.get_running_loop()
        self._sockets: LocalSockets | None = None
        self._ended: dict[str, Any] | None = None
        self._active: dict[str, Request] = {}
        self.shutdown = HeldShutdown(self)
        self._last_used = time.time()
        self.starts = Starts(self.is_open)
        self.unanswered = Unanswered(lambda: self._notice.is_down, self._answer_interrupted)
        self.asking = Asking(self._active, self._question, self._room, self.done)
        self.notes = Notes(self, directory.name[:8])

    def __repr__(self) -> str:
        state = "holding" if self.holding else "handed over"
        outgoing = repr(self._out) if self._sockets is not None else "not open"
        return f"<LocalEnd {state}, {len(self._active)} requests active, {outgoing}, {self._room!r}>"

    # life

    async def open(self, info: dict[str, Any] | None) -> None:
        """Bind the endpoints; raises a `FarkernelError` that says which could not be bound."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._room.info = info
        self._log = RequestLog(self._directory / "requests")
        self._received = Received(self._directory / "positions")
        self._cells = CellLog(self._directory / "cells")
        bound = self.connection
        if not self._given:
            client_links.make_place(self.connection)
            bound = client_links.bound_connection(self.connection)
        self._published = PositionFile(self._directory / "published")
        self._sockets = await open_sockets(ConnectionInfo.from_dict(bound), self._published)
        for name in ("shell", "control", "stdin"):
            getattr(self._sockets, name).on_message = partial(self._from_client, name)
        self._sockets.iopub.on_subscribe = self._welcome
        missed = self._directory / "missed"
        self._out = Outgoing(self._sockets, self._published, self._received, missed, self._far.after_delivery)
        self.refresh_endpoints()
        written = self._published.last_written()
        if written is not None:
            self._received["iopub"] = written
        self.from_kernel = FromKernel(self, self._name, self._signer, self._active, self._received, self._out)
        self.from_kernel.iopub_seen = self._received["iopub"]
        self._recall()

    def _recall(self) -> None:
        """What was open when a former keeper was killed."""
        if self._published.waiting:
            # Of a reply it is not known whether a former keeper sent it when it was killed before writing that down.
            doubtful = {name: self._received[name] + 1 for name in ("control", "shell", "stdin")}
            self.from_kernel.doubtful = {**doubtful, "iopub": self._published.doubtful()}
            self._out.wait_for_clients()
        for request in list(self._log.open.values()):
            try:
                self._begin(request)
            except MessageError as error:
                log.error("a request that was written down cannot be read: %s", error)
                self._log.done(request)
                continue
            if request.message.msg_type == "shutdown_request" and not request.number:
                # Nobody had said whether it is meant; who means it says so to us too.
                self.forget_request(request)
                continue
            if request.is_cell:
                self._cells.add_missing(request.message)
            if not request.number:
                request.busy_sent = True
                self._room.hold(request)

    @property
    def _sockets_now(self) -> LocalSockets:
        if self._sockets is None:
            raise RuntimeError("the local end is not open")
        return self._sockets

    @property
    def has_clients(self) -> bool:
        """Somebody would see what is published."""
        return bool(self._sockets_now.iopub.subscribers)

    @property
    def link_is_away(self) -> bool:
        """What a cell shows now is cleared when it runs."""
        return self._notice.is_down

    async def close(self, forget: bool) -> None:
        """Unbind.  With ``forget`` also what was written down goes."""
        self._room.leave()
        self._notice.forget()
        self.shutdown.cancel()
        if self._sockets is not None:
            self._sockets.close()
            self._log.close()
            self._received.close()
            self._cells.close()
            self._out.missed.close()
        if forget:
            if not self._given:
                client_links.remove_place(self.connection)
            for each in ("requests", "positions", "published", "cells", "missed"):
                (self._directory / each).unlink(missing_ok=True)
            self._directory.rmdir()

    def take_up(self, far_key: str, received: dict[str, int]) -> None:
        """The kernel is one that another keeper started: its key, and what that keeper had dealt with."""
        self._far_signer = Signer(far_key.encode(), "hmac-sha256")
        for name in Received.NAMES:
            self._received[name] = max(self._received[name], received.get(name, 0))
        self.from_kernel.iopub_seen = self._received["iopub"]

    def refresh_endpoints(self) -> None:
        """A front end is about to connect (again)."""
        if not self._given:
            client_links.make_links(self.connection)

    def new_life(self) -> str:
        """The kernel is being restarted: hold again; returns the session of the new life."""
        self.session = uuid.uuid4().hex
        self.composer = Composer(self._signer, self.session)
        self.holding = True
        self._ended = None
        for request in list(self._active.values()):
            if request.number:
                self.done(request)
        self._room.begin()
        return self.session

    # what the kernel says of itself

    def show_asked_for(self, text: str) -> None:
        """What its user answered, shown while cells wait."""
        self._room.asked_for = text

    def say_waiting(self, sentence: str) -> None:
        if self.holding:
            self._room.say(sentence)

    def link_is_down(self, why: str, next_try: float | None) -> None:
        """Also whenever there is news about it."""
        clause = outage(why, next_try)
        if self.holding:
            self._room.say(f"cannot be reached now: {clause}")
        else:
            self._notice.down(clause)

    def link_is_up(self) -> None:
        asked, self._question.asked_in = self._question.asked_in, None
        self._notice.up()
        if asked is not None and not self.holding and asked.started is None:
            self.publish(
                self.composer.clear_output(asked.message)
            )  # it runs now: what was asked there is over

    @property
    def awaits(self) -> bool:
        """Some request has no answer yet."""
        return bool(self._active)

    def is_open(self, request: Request) -> bool:
        """It has no answer yet."""
        return self._active.get(request.message.msg_id) is request

    def running_cell(self) -> Request | None:
        """The first one that has no answer yet, held or not."""
        return next((each for each in self._active.values() if each.is_cell), None)

    def idle_since(self) -> float | None:
        """When something was last asked of the kernel, or done by it; None while a cell runs."""
        return None if self.running_cell() is not None else self._last_used

    def received(self) -> dict[str, int]:
        """The last number of each name that has been dealt with, and will not be asked for again."""
        numbers = {name: self._received[name] for name in Received.NAMES}
        if self.has_clients and not self._out.holding:
            numbers["iopub"] = min(numbers["iopub"], self._sockets_now.iopub.written)
        return numbers

    def seen(self) -> dict[str, int]:
        """The last number of each name that has come at all."""
        numbers = {name: self._received[name] for name in Received.NAMES}
        return {**numbers, "iopub": max(numbers["iopub"], self.from_kernel.iopub_seen)}

    def attached(self, taken: dict[str, int]) -> None:
        """The channels are open: what the agent has not taken goes out (again)."""
        self._log.raise_numbers(taken)
        for request in list(self._log.open.values()):
            if request.number > taken.get(request.channel, 0):
                self._send(request)
            elif request.number:
                # It is there, and a former keeper may have passed on what it printed.
                request.started = -math.inf

    def hand_over(self) -> None:
        """The kernel is live: what was held is its own now."""
        if not self.holding:
            return
        self.holding = False
        questions, held = self._room.leave()
        for question in questions:
            self._take(question.channel, question.message, question.frames)
        for request in held:
            self._forward(request)

    def kernel_ended(self, reason: dict[str, Any], wanted: bool) -> None:
        """Nothing will answer any more: say why, in every cell that waits."""
        self.holding = True
        self._ended = reason
        self._question.withdraw()
        self._notice.forget()
        _, held = self._room.leave()
        waiting = [request for request in self._active.values() if request.number] + held
        self.shutdown.end(answer=True)
        if not wanted or held:
            self._room.refuse(
                [each for each in waiting if each.channel != "stdin"],
                kernel_ended_refusal(self._name, reason),
            )
        for request in waiting:
            self.done(request)

    # acts of the user

    def interrupt_held(self) -> None:
        self._question.withdraw()
        for request in self._room.interrupt():
            self.done(request)

    def _answer_interrupted(self, request: Request) -> None:
        if self.is_open(request):
            text = (
                "the interrupt came where the kernel did not expect it; whether the cell has run is not known"
            )
            self._room.refuse([request], Refusal("KeyboardInterrupt", text, [f"KeyboardInterrupt: {text}"]))
            self.done(request)

    # questions to the user

    def can_be_asked(self) -> bool | None:
        return self.asking.can_be_asked()

    def say_once(self, text: str, said: Callable[[], None]) -> None:
        self.notes.say_once(text, said)

    @property
    def waits_for(self) -> str:
        """What cells are told that wait for the kernel; empty when it is there."""
        return self._room.sentence if self.holding and self._ended is None else ""

    def send_interrupt_request(self) -> None:
        """For kernels that are interrupted by message; the answer concerns no client."""
        message = self.composer.request("interrupt_request", {}, [b"farkernel"])
        self.from_kernel.own_requests.add(message.msg_id)
        self._take("control", message, [bytes(frame) for frame in message.frames()])

    # what a held shutdown comes to (`held_shutdown.Owner`)

    @property
    def is_over(self) -> bool:
        return self._ended is not None

    @property
    def front_end_says_so(self) -> bool:
        return self._far.front_end_says_so

    def pass_on_shutdown(self, request: Request) -> None:
        self._log.open[request.serial] = request
        self._forward(request)

    def answer_shutdown(self, request: Request) -> None:
        self.reply("control", self.composer.shutdown_reply(request.message, restart=False))

    def forget_request(self, request: Request) -> None:
        self.done(request)

    def send_shutdown_request(self) -> None:
        message = self.composer.request("shutdown_request", {"restart": False}, [b"farkernel"])
        self.from_kernel.own_requests.add(message.msg_id)
        request = self._log.add("control", [bytes(frame) for frame in message.frames()])
        self._begin(request)
        self._forward(request)

    # from clients

    def _from_client(self, channel: str, identity: bytes, frames: list[bytes]) -> None:
        whole = [identity, *frames]
        try:
            message = Message.split(whole)
            self._signer.verify(message)
            msg_type = message.msg_type
        except MessageError as error:
            log.warning("%s: %s (on %s)", self._name, error, channel)
            return
        if msg_type == "kernel_info_request" and self.holding and self._ended is None:
            self._room.ask(Question(channel, whole, message))
        elif msg_type == "interrupt_request" and channel == "control" and not self._passes_interrupts():
            self._far.interrupt_soon()
            self.reply(channel, self.composer.interrupt_reply(message))
        elif channel == "stdin" and self._question.takes(message):
            self._room.go_on()
        else:
            self._take(channel, message, whole)

    def _passes_interrupts(self) -> bool:
        return not self.holding and self._far.interrupts_by_message

    def _take(self, channel: str, message: Message, frames: list[bytes]) -> None:
        self._last_used = time.time()
        shutdown = channel == "control" and message.msg_type == "shutdown_request"
        at_once = not shutdown and not self.holding and self._ended is None
        request = self._log.add(channel, frames, numbered=at_once)
        request.message = message
        self._begin(request)
        if shutdown:
            self.shutdown.hold(request)
            return
        if self._ended is not None:
            self._room.refuse([request], kernel_ended_refusal(self._name, self._ended))
            self.done(request)
        else:
            if self.holding:
                self._room.hold(request)
            else:
                if self._notice.is_down and request.is_cell:
                    self.publish(self.composer.status("busy", request.message))
                    request.busy_sent = True
                self._forward(request)
            if request.is_cell:
                self._far.cell_waits()
                self._notice.cell_came()
        # It is on its way already: the kernel need not wait for what is only for later.  (See `_recall`.)
        if request.is_cell and self._cells.add(request.message):
            self.notes.say_missed(request, self._out.missed)

    def _forward(self, request: Request) -> None:
        if request.is_cell:
            self.notes.before(request)
        if not request.number:
            self._log.number(request)
        self._send(request)
        if request.channel == "stdin":
            self.done(request)  # an input_reply gets no answer by which its end could be seen
            for each in self._active.values():
                each.input_open = False

    def _send(self, request: Request) -> None:
        try:
            self._far.to_kernel(
                request.channel, request.number, self._far_signer.resign(request.message).frames()
            )
        except MessageTooLarge as error:
            self._room.refuse(
                [request], Refusal("MessageTooLarge", error.what, [f"{error.what}. {error.advice}"])
            )
            self.done(request)

    # from the kernel

    def remember_info(self, info: dict[str, Any]) -> None:
        self._room.info = info
        self._far.info_seen(info)

    # to clients

    def publish(self, message: Message) -> None:
        """A message of ours on iopub."""
        self._out.publish(message)

    def reply(self, channel: str, message: Message) -> None:
        """To the client that the message's first identity names."""
        self._out.reply(channel, message)

    def _welcome(self, subscriber: Subscriber, topic: bytes) -> None:
        message = self.composer.iopub_welcome(topic)
        message.identities = message.identities or [b"iopub_welcome"]
        self._sockets_now.iopub.send_to(subscriber, message.frames())
        self._out.subscriber_came()

    def _begin(self, request: Request) -> None:
        self._active[request.message.msg_id] = request
        if len(self._active) == 1:
            self._far.answers_awaited(True)

    def done(self, request: Request) -> None:
        self._last_used = time.time()
        if self._active.get(request.message.msg_id) is request:
            del self._active[request.message.msg_id]
            self.starts.look()
            if not self._active:
                self._far.answers_awaited(False)
        self._log.done(request)
