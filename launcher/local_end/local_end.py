"""The local end of one kernel: the sockets that clients connect to, and the two-way traffic with the far kernel.

Messages are re-signed in both directions, and those of the kernel get one ``header.session`` for the kernel's whole
life (DESIGN §4: two sessions in one life make JupyterLab deaf).  What is not known to be done is on disk.
"""

from __future__ import annotations

import asyncio
import logging
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
from .cells import CellLog, describe, missed_text
from .contract import ConnectionInfo, LocalSockets, Subscriber
from .held_shutdown import HeldShutdown
from .link_notice import LinkNotice, outage
from .outgoing import Consumed, Outgoing
from .positions import PositionFile
from .questions import Answered, CellQuestion, is_background, is_silent, may_ask
from .received import Received
from .request_log import Request, RequestLog
from .sockets import open_sockets
from .waiting_room import Question, Refusal, WaitingRoom, kernel_ended_refusal

log = logging.getLogger(__name__)

# ipykernel publishes a cell's code some steps before it runs it; an interrupt between the two gets lost in itself.
# On a busy machine 0.3 s were not enough; whoever typed ahead over a broken link has waited for longer than this.
_GETS_GOING = 1.0
_SHOWN = frozenset({"stream", "display_data", "execute_result", "error", "update_display_data"})


class Far(Protocol):
    """The kernel, as its local end sees it."""

    @property
    def interrupts_by_message(self) -> bool: ...
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
        self._iopub_seen = 0
        self._newest_parent = b"", ""
        self._shutdown = HeldShutdown(self)
        self._own_requests: set[str] = set()
        self._last_used = time.time()
        self._wait_for_start: list[Callable[[], None]] = []
        self._doubtful: dict[str, int] = {}
        self._notes: dict[str, Callable[[], None]] = {}

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
        self._iopub_seen = self._received["iopub"] if written is None else written
        self._received["iopub"] = self._iopub_seen
        self._recall()

    def _recall(self) -> None:
        """What was open when a former keeper was killed."""
        if self._published.waiting:
            # Of a reply it is not known whether a former keeper sent it when it was killed before writing that down.
            self._doubtful = {name: self._received[name] + 1 for name in ("control", "shell", "stdin")}
            self._doubtful["iopub"] = self._published.doubtful()
            self._out.wait_for_clients()
        for request in list(self._log.open.values()):
            try:
                self._begin(request)
            except MessageError as error:
                log.error("a request that was written down cannot be read: %s", error)
                self._log.done(request)
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

    async def close(self, forget: bool) -> None:
        """Unbind.  With ``forget`` also what was written down goes."""
        self._room.leave()
        self._notice.forget()
        self._shutdown.cancel()
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
        self._iopub_seen = self._received["iopub"]

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
                self._done(request)
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
        if asked is not None and not self.holding and not asked.started:
            self.publish(
                self.composer.clear_output(asked.message)
            )  # it runs now: what was asked there is over

    @property
    def awaits(self) -> bool:
        """Some request has no answer yet."""
        return bool(self._active)

    def running_cell(self) -> Request | None:
        """The first one that has no answer yet, held or not."""
        return next((each for each in self._active.values() if each.is_cell), None)

    def idle_since(self) -> float | None:
        """When something was last asked of the kernel, or done by it; None while a cell runs."""
        return None if self.running_cell() is not None else self._last_used

    def say_once(self, text: str, said: Callable[[], None]) -> None:
        """In the next cell that goes to the kernel."""
        self._notes[text] = said

    def _say_notes(self, cell: Request) -> None:
        if not self._notes or describe(cell.message) is None or not self._sockets_now.iopub.subscribers:
            return
        if self._notice.is_down:
            return  # what a cell shows now is cleared when it runs
        notes, self._notes = self._notes, {}
        for text, said in notes.items():
            self.publish(self.composer.stream(text, cell.message, "stderr"))
            said()

    def say_notice(self, sentence: str) -> None:
        """In the cell that runs, or in the next one: what belongs to no cell is shown by no notebook (DESIGN §4)."""
        cell, text = self.running_cell(), f"[farkernel] {sentence}\n"
        if cell is None or (self._notice.is_down and not cell.started):
            self.say_once(text, _nothing)
        else:
            self.publish(self.composer.stream(text, cell.message, "stderr"))

    def say_dropped(self, name: str, size: Any, first: Any, last: Any) -> None:
        """Output that no limit could keep is never dropped in silence (DESIGN §3, promise 1)."""
        count = last - first + 1 if isinstance(first, int) and isinstance(last, int) else None
        amount = f"{count} messages" if count else "some messages"
        if isinstance(size, int):
            amount += f" ({size / 1e6:.1f} MB)"
        why = "they were over the journal's limit, or came while no agent was there to read them"
        text = f"[farkernel] {amount} of this kernel's {name} were dropped: {why}\n"
        cell = self.running_cell()
        self.publish(self.composer.stream(text, cell.message if cell else None, "stderr"))

    def received(self) -> dict[str, int]:
        """The last number of each name that has been dealt with, and will not be asked for again."""
        numbers = {name: self._received[name] for name in Received.NAMES}
        if self._sockets_now.iopub.subscribers and not self._out.holding:
            numbers["iopub"] = min(numbers["iopub"], self._sockets_now.iopub.written)
        return numbers

    def seen(self) -> dict[str, int]:
        """The last number of each name that has come at all."""
        numbers = {name: self._received[name] for name in Received.NAMES}
        return {**numbers, "iopub": max(numbers["iopub"], self._iopub_seen)}

    def attached(self, taken: dict[str, int]) -> None:
        """The channels are open: what the agent has not taken goes out (again)."""
        self._log.raise_numbers(taken)
        for request in list(self._log.open.values()):
            if request.number > taken.get(request.channel, 0):
                self._send(request)
            elif request.number:
                request.started = True  # it is there, and a former keeper may have passed on what it printed

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
        self._shutdown.end(answer=True)
        if not wanted or held:
            self._room.refuse(
                [each for each in waiting if each.channel != "stdin"],
                kernel_ended_refusal(self._name, reason),
            )
        for request in waiting:
            self._done(request)

    # acts of the user

    def interrupt_held(self) -> None:
        self._question.withdraw()
        for request in self._room.interrupt():
            self._done(request)

    def when_running(self, callback: Callable[[], None]) -> None:
        """Call back, once, when the first cell has reached the kernel; at once if there is none that has not.

        Not at all if it ends at once.
        """
        self._wait_for_start.append(callback)
        self._call_those_who_wait()

    def _note_start(self, request: Request, message: Message) -> None:
        """A cell runs when its code is published: `busy` comes before the kernel can be interrupted."""
        if message.msg_type != "status" or is_silent(request):
            request.started = True
            self._call_those_who_wait(_GETS_GOING)

    def _call_those_who_wait(self, pause: float = 0.0) -> None:
        cell = self.running_cell() if self._wait_for_start else None
        if cell is None or cell.started:
            waiting, self._wait_for_start = self._wait_for_start, []
            for callback in waiting:
                if cell is None or not pause:
                    callback()
                else:
                    self._loop.call_later(pause, self._if_it_still_runs, cell, callback)

    def _if_it_still_runs(self, cell: Request, callback: Callable[[], None]) -> None:
        if self.running_cell() is cell:
            callback()

    # questions to the user

    def cell_to_ask(self) -> Request | None:
        """A cell that has no answer yet, whose front end can ask its user something, now."""
        if any(request.input_open for request in self._active.values()):
            return None  # the kernel asks something itself: the answer could not be told from ours
        return next((each for each in self._active.values() if may_ask(each)), None)

    def ask(self, prompt: str, hidden: bool, answered: Answered) -> bool:
        """Put a question into the cell that waits; False when there is none that can."""
        cell = self.cell_to_ask()
        if cell is None:
            return False
        self._room.hush(cell)
        self._question.put(cell, prompt, hidden, answered)
        return True

    def withdraw_question(self) -> None:
        self._question.withdraw()
        self._room.go_on()

    def can_be_asked(self) -> bool | None:
        """Whether the first cell that somebody ran can ask them something; None: there is none yet."""
        cell = next(
            (each for each in self._active.values() if each.is_cell and not is_background(each)), None
        )
        return None if cell is None else may_ask(cell)

    @property
    def waits_for(self) -> str:
        """What cells are told that wait for the kernel; empty when it is there."""
        return self._room.sentence if self.holding and self._ended is None else ""

    def refuse_held(self, ename: str, text: str) -> None:
        """The held cells of front ends that cannot ask anybody get an error: waiting would be for ever."""
        refused = self._room.take_back(lambda request: request.is_cell and not may_ask(request))
        self._room.refuse(refused, Refusal(ename, text, [f"{ename}: {text}"]))
        for request in refused:
            self._done(request)

    def send_interrupt_request(self) -> None:
        """For kernels that are interrupted by message; the answer concerns no client."""
        message = self.composer.request("interrupt_request", {}, [b"farkernel"])
        self._own_requests.add(message.msg_id)
        self._take("control", message, [bytes(frame) for frame in message.frames()])

    def release_shutdown(self) -> None:
        """The front end means it."""
        self._shutdown.release()

    def drop_shutdown(self, answer: bool) -> None:
        """The front end does not mean it (the server stops), or there is no kernel to ask."""
        self._shutdown.drop(answer)

    # what a held shutdown comes to (`held_shutdown.Owner`)

    @property
    def is_over(self) -> bool:
        return self._ended is not None

    def pass_on_shutdown(self, request: Request) -> None:
        self._log.open[request.serial] = request
        self._forward(request)

    def answer_shutdown(self, request: Request) -> None:
        self.reply("control", self.composer.shutdown_reply(request.message, restart=False))

    def forget_request(self, request: Request) -> None:
        self._done(request)

    def send_shutdown_request(self) -> None:
        message = self.composer.request("shutdown_request", {"restart": False}, [b"farkernel"])
        self._own_requests.add(message.msg_id)
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
            self._shutdown.hold(request)
            return
        if self._ended is not None:
            self._room.refuse([request], kernel_ended_refusal(self._name, self._ended))
            self._done(request)
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
            self._say_missed(request)

    def _say_missed(self, request: Request) -> None:
        """The first cell after somebody came back says what came meanwhile."""
        if self._out.missed.count and self._sockets_now.iopub.subscribers and not self._notice.is_down:
            text = missed_text(self._directory.name[:8], self._out.missed.take())
            self.publish(self.composer.stream(text, request.message, "stderr"))

    def _forward(self, request: Request) -> None:
        if request.is_cell:
            self._say_notes(request)
        if not request.number:
            self._log.number(request)
        self._send(request)
        if request.channel == "stdin":
            self._done(request)  # an input_reply gets no answer by which its end could be seen
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
            self._done(request)

    # from the kernel

    def from_kernel(
        self, name: str, number: int, when: float, frames: Sequence[Any], consumed: Consumed
    ) -> None:
        """One message; ``consumed`` is called when it has been handed to the system."""
        seen = self._iopub_seen if name == "iopub" else self._received[name]
        if number <= seen:
            consumed()
            return
        try:
            message = Message.split(frames)
            parent_id = self._parent_of(message)
            changed = self._signer.with_session(message, self.session, number <= self._doubtful.get(name, 0))
        except MessageError as error:
            log.error("%s: the kernel sent on %s: %s", self._name, name, error)
            self._received[name] = number
            consumed()
            return
        if name == "iopub":
            self._iopub_seen = number
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
        if parent_id in self._own_requests:
            self._own_requests.discard(parent_id)
        elif message.identities:
            self.reply(name, message)
        if message.msg_type == "kernel_info_reply":
            self._remember_info(message)
        if request is not None and name == "stdin":
            request.input_open = True
        elif request is not None:
            request.replied = True
            if request.idle_sent:
                self._done(request)

    def _remember_info(self, message: Message) -> None:
        try:
            info = message.content
        except MessageError:
            return
        if info.get("language_info"):
            self._room.info = info
            self._far.info_seen(info)

    def _from_iopub(self, number: int, message: Message, parent_id: str, consumed: Consumed) -> None:
        frames: list[Buffer] = message.frames()
        request = self._active.get(parent_id)
        if request is not None and not request.started:
            self._note_start(request, message)
        shown = message.msg_type in _SHOWN
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
            if request.replied or not request.expects_reply:
                self._done(request)
        return False

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

    def _done(self, request: Request) -> None:
        self._last_used = time.time()
        if self._active.get(request.message.msg_id) is request:
            del self._active[request.message.msg_id]
            self._call_those_who_wait()
            if not self._active:
                self._far.answers_awaited(False)
        self._log.done(request)


def _nothing() -> None:
    """Nobody needs to know that it was said."""
