"""What a notebook talks to while its real kernel is queued, starting, or out of reach.

`kernel_info_request` is answered from memory when the kernel takes its time; everything else is held.  The first held
cell shows what is being waited for; that text goes away when the kernel takes over (DESIGN §3, promise 2).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ..messages import Composer, Message
from .request_log import Request

# A kernel that comes up within this time answers kernel_info itself, so that ordinary starts show ordinary answers.
INFO_PATIENCE = 3.0
# Waiting that takes no longer than this is not worth a line in the notebook.
SILENT_FOR = 1.0
_LINE = 100  # what fits into a cell's width


class Clients(Protocol):
    """How the waiting room speaks to the clients."""

    @property
    def composer(self) -> Composer:
        """Makes messages in the session of the present life."""

    def publish(self, message: Message) -> None:
        """On iopub."""

    def reply(self, channel: str, message: Message) -> None:
        """To the client that its identities name."""


@dataclass(eq=False)
class Question:
    """A kernel_info_request: small, harmless to repeat, so not written down."""

    channel: str
    frames: list[bytes]
    message: Message
    timer: asyncio.TimerHandle | None = None


class Refusal(NamedTuple):
    """Why a cell was not run, as a notebook shows an error."""

    ename: str
    evalue: str
    traceback: list[str]


class WaitingRoom:
    """Holds what clients ask for as long as nobody else can answer."""

    def __init__(self, clients: Clients, name: str) -> None:
        self.info: dict[str, Any] | None = None
        self.language = "python"
        self.asked_for = ""  # what its user answered
        self._clients = clients
        self._name = name
        self._held: list[Request] = []
        self._questions: list[Question] = []
        self._sentence = "starting"
        self._since = time.time()
        self._shown_in: Request | None = None
        self._asked_in: Request | None = None  # where questions and answers stand
        self._hushed = False
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<WaitingRoom: {len(self._held)} held, {len(self._questions)} questions, {self._sentence!r}>"

    def begin(self) -> None:
        """A new wait."""
        self._since = time.time()
        self._sentence = "starting"

    def hold(self, request: Request) -> None:
        """Keep it; the client sees at once that it is being worked on."""
        self._held.append(request)
        if request.expects_reply and request.channel == "shell":
            self._status("busy", request.message)
            request.busy_sent = True
        if self._timer is None:
            self._show_soon()

    def ask(self, question: Question) -> None:
        """A kernel_info_request; answered here if the kernel does not come in time."""
        patience = INFO_PATIENCE if time.time() - self._since < INFO_PATIENCE else 0
        question.timer = asyncio.get_running_loop().call_later(patience, self._answer, question)
        self._questions.append(question)

    def say(self, sentence: str) -> None:
        """What is being waited for has changed; it may have a second line."""
        if sentence != self._sentence:
            self._sentence = sentence
            if self._shown_in is not None:
                self._show()

    @property
    def sentence(self) -> str:
        """What is being waited for."""
        return self._sentence.replace("\n", "; ")

    def hush(self, cell: Request) -> None:
        """Somebody is asked something in that cell: to clear it now would take the box away in which they type."""
        if cell not in self._held:
            return  # it runs: what stands in it is the kernel's
        if self._shown_in is not None:
            self._stop_showing()
        self._hushed, self._asked_in = True, cell

    def go_on(self) -> None:
        """They have answered, or need not any more."""
        if self._hushed:
            self._hushed = False
            self._show_soon()

    def leave(self) -> tuple[list[Question], list[Request]]:
        """The kernel takes over: what is held, in order; what was shown is cleared."""
        self._stop_showing()
        questions, self._questions = self._questions, []
        for question in questions:
            if question.timer is not None:
                question.timer.cancel()
        held, self._held = self._held, []
        return questions, held

    def interrupt(self) -> list[Request]:
        """The user does not want to wait for them: all held cells are given back as interrupted."""
        interrupted = self.take_back(lambda request: request.is_cell)
        text = f"interrupted while waiting for the kernel ({self.sentence})"
        self.refuse(interrupted, Refusal("KeyboardInterrupt", text, [f"KeyboardInterrupt: {text}"]))
        return interrupted

    def take_back(self, which: Callable[[Request], bool]) -> list[Request]:
        """Those are not held any more: the caller answers them."""
        taken = [request for request in self._held if which(request)]
        self._held = [request for request in self._held if not which(request)]
        if self._asked_in in taken:
            self._hushed, self._asked_in = False, None
        if self._shown_in in taken:
            self._stop_showing()
            self._show_soon()
        return taken

    def refuse(self, requests: list[Request], error: Refusal) -> None:
        """Answer for the kernel: the first gets the error, those behind it are aborted, as after any error."""
        for position, request in enumerate(requests):
            self._refuse(request, error, first=position == 0)

    def _refuse(self, request: Request, error: Refusal, first: bool) -> None:
        composer, message = self._clients.composer, request.message
        if request.expects_reply and not request.replied:
            if not request.is_cell:
                answer = composer.error_reply(message, *error)
            elif first:
                self._clients.publish(composer.error(message, *error))
                answer = composer.execute_reply_error(message, *error)
            else:
                answer = composer.execute_reply_aborted(message)
            self._clients.reply(request.channel, answer)
        if request.channel != "stdin" and not request.idle_sent:
            self._status("idle", message)

    def _status(self, state: str, parent: Message) -> None:
        self._clients.publish(self._clients.composer.status(state, parent))

    def _answer(self, question: Question) -> None:
        if question not in self._questions:
            return
        self._questions.remove(question)
        self._status("busy", question.message)
        self._clients.reply(
            question.channel, self._clients.composer.kernel_info_reply(question.message, self._info())
        )
        self._status("idle", question.message)

    def _info(self) -> dict[str, Any]:
        if self.info is not None:
            return {**self.info, "supported_features": [], "status": "ok"}
        return {
            "status": "ok",
            "protocol_version": "5.4",
            "implementation": "farkernel",
            "implementation_version": "0",
            "language_info": _language(self.language),
            "banner": f"{self._name}: the kernel is on its way",
            "help_links": [],
            "supported_features": [],
        }

    def _cell(self) -> Request | None:
        for request in self._held:
            if request.is_cell:
                return request
        return None

    def _show_soon(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._cell() is not None:
            self._timer = asyncio.get_running_loop().call_later(SILENT_FOR, self._show)

    def _show(self) -> None:
        self._timer = None
        cell = self._cell()
        if cell is None or self._hushed:
            return
        composer = self._clients.composer
        former = self._shown_in or self._asked_in
        if former is not None:
            self._clients.publish(composer.clear_output(former.message, wait=True))
            self._asked_in = None
        self._clients.publish(composer.stream(self._text(), cell.message))
        self._shown_in = cell

    def _text(self) -> str:
        since = time.strftime("%H:%M:%S", time.localtime(self._since))
        waits = f"waiting since {since}; interrupt takes the cell back"
        head, *more = f"{self._name}: {self._sentence}".split("\n")
        more += [f"asked for: {self.asked_for}"] if self.asked_for else []
        line = f"{head} ({waits})"
        return f"{line}\n" if not more and len(line) <= _LINE else "\n  ".join([head, *more, waits]) + "\n"

    def _stop_showing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        former = self._shown_in or self._asked_in
        if former is not None:
            self._clients.publish(self._clients.composer.clear_output(former.message))
        self._shown_in = self._asked_in = None
        self._hushed = False


def kernel_ended_refusal(name: str, reason: dict[str, Any]) -> Refusal:
    """The end of a kernel, as a notebook shows an error."""
    text = str(reason.get("text") or "the kernel has ended")
    tail = str(reason.get("tail") or "").rstrip()
    lines = [f"KernelEnded: {name}: {text}"]
    if tail:
        lines += ["", "The last lines that it wrote:", *(f"  {line}" for line in tail.splitlines()[-20:])]
    return Refusal("KernelEnded", text, lines)


_EXTENSIONS = {
    "python": (".py", "text/x-python"),
    "r": (".r", "text/x-r-source"),
    "julia": (".jl", "text/x-julia"),
    "bash": (".sh", "text/x-sh"),
}


def _language(name: str) -> dict[str, Any]:
    """Enough for notebooks to be saved; nbclient fails without any (DESIGN §4)."""
    extension, mimetype = _EXTENSIONS.get(name.lower(), (".txt", "text/plain"))
    return {"name": name, "version": "", "file_extension": extension, "mimetype": mimetype}
