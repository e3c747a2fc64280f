"""What we say ourselves in a kernel's cells: what belongs to no cell is shown by no notebook (DESIGN §4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..messages import Composer, Message
from .cells import MissedCount, describe, missed_text
from .request_log import Request


class Clients(Protocol):
    """The local end, as its notes see it."""

    @property
    def composer(self) -> Composer: ...
    @property
    def has_clients(self) -> bool: ...
    @property
    def link_is_away(self) -> bool: ...
    def publish(self, message: Message) -> None: ...
    def running_cell(self) -> Request | None: ...


class Notes:
    """Of one kernel; ``kernel`` is how a command line calls it."""

    def __init__(self, clients: Clients, kernel: str) -> None:
        self._clients = clients
        self._kernel = kernel
        self._once: dict[str, Callable[[], None]] = {}

    def say_once(self, text: str, said: Callable[[], None]) -> None:
        """In the next cell that goes to the kernel."""
        self._once[text] = said

    def before(self, cell: Request) -> None:
        """A cell goes to the kernel: what was kept for it is said."""
        if not self._once or describe(cell.message) is None or not self._clients.has_clients:
            return
        if self._clients.link_is_away:
            return  # what a cell shows now is cleared when it runs
        notes, self._once = self._once, {}
        for text, said in notes.items():
            self._clients.publish(self._clients.composer.stream(text, cell.message, "stderr"))
            said()

    def say_notice(self, sentence: str) -> None:
        """In the cell that runs, or in the next one: what belongs to no cell is shown by no notebook (DESIGN §4)."""
        cell, text = self._clients.running_cell(), f"[farkernel] {sentence}\n"
        if cell is None or (self._clients.link_is_away and cell.started is None):
            self.say_once(text, _nothing)
        else:
            self._clients.publish(self._clients.composer.stream(text, cell.message, "stderr"))

    def say_dropped(self, name: str, size: Any, first: Any, last: Any) -> None:
        """Output that no limit could keep is never dropped in silence (DESIGN §3, promise 1)."""
        count = last - first + 1 if isinstance(first, int) and isinstance(last, int) else None
        amount = f"{count} messages" if count else "some messages"
        if isinstance(size, int):
            amount += f" ({size / 1e6:.1f} MB)"
        why = "they were over the journal's limit, or came while no agent was there to read them"
        text = f"[farkernel] {amount} of this kernel's {name} were dropped: {why}\n"
        cell = self._clients.running_cell()
        self._clients.publish(self._clients.composer.stream(text, cell.message if cell else None, "stderr"))

    def say_missed(self, request: Request, missed: MissedCount) -> None:
        """The first cell after somebody came back says what came meanwhile."""
        if missed.count and self._clients.has_clients and not self._clients.link_is_away:
            text = missed_text(self._kernel, missed.take())
            self._clients.publish(self._clients.composer.stream(text, request.message, "stderr"))


def _nothing() -> None:
    """Nobody needs to know that it was said."""
