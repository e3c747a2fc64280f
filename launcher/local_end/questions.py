"""Asking the user something in the cell that waits: a code for a login, how many GPUs, or whether to try again.

The kernel's own `input()` and these share one stdin channel, and front ends do not say which question they answer
(jupyter_client sends no parent).  So one question is open at a time, and none is put while the kernel has one open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..messages import Composer, Message, MessageError
from ..text import clean
from .request_log import Request

Answered = Callable[[str], None]


class Clients(Protocol):
    """How a question gets to the client."""

    @property
    def composer(self) -> Composer: ...
    def publish(self, message: Message) -> None: ...
    def reply(self, channel: str, message: Message) -> None: ...


def may_ask(request: Request) -> bool:
    """Whether whoever runs that cell said that they can be asked."""
    try:
        asked = bool(request.message.content.get("allow_stdin"))
    except MessageError:
        return False
    return request.is_cell and asked and not is_silent(request)


def is_background(request: Request) -> bool:
    """Whether a page asks that by itself, and no person: a cell that somebody runs goes into the history."""
    try:
        return is_silent(request) or not request.message.content.get("store_history", True)
    except MessageError:
        return True


def is_silent(request: Request) -> bool:
    """Whether nothing of it is published but its state."""
    try:
        return bool(request.message.content.get("silent"))
    except MessageError:
        return False


class CellQuestion:
    """At most one question, in one cell."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._open: tuple[Request, Answered] | None = None
        self.asked_in: Request | None = None
        """The last cell in which something was put, until somebody takes it back."""

    def __repr__(self) -> str:
        return f"<CellQuestion {'open' if self._open else 'none'}>"

    @property
    def is_open(self) -> bool:
        return self._open is not None

    def put(self, cell: Request, prompt: str, hidden: bool, answered: Answered) -> None:
        """Ask; an earlier question is given up.  `prompt` may hold anything: it is made printable.

        Boxes for what is typed have room for one line: those above the last are shown in the cell.
        """
        self._open = (cell, answered)
        self.asked_in = cell
        above, _, last = clean(prompt, "\n").rstrip("\n").rpartition("\n")
        composer = self._clients.composer
        if above:
            self._clients.publish(composer.stream(f"{above}\n", cell.message))
        self._clients.reply("stdin", composer.input_request(cell.message, last, hidden))

    def withdraw(self) -> None:
        """It need not be answered any more.  The protocol has no way to take it off the page."""
        self._open = None

    def takes(self, message: Message) -> bool:
        """Whether that input_reply answers our question; if so, whoever asked is called back."""
        if self._open is None or message.msg_type != "input_reply":
            return False
        cell, answered = self._open
        if message.identities[:1] != cell.message.identities[:1]:
            return False
        self._open = None
        try:
            value = message.content.get("value")
        except MessageError:
            value = None
        answered(value if isinstance(value, str) else "")
        return True
