"""What a cell shows while the link is down: since when, why, and when the next try comes.

In a cell that runs it is a display of its own, changed in place: `clear_output` would take the kernel's output with it.
In a cell that was typed meanwhile there is nothing else, and it goes away when the cell runs.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Protocol

from ..messages import Composer, Message
from .request_log import Request

# An outage that is over within this time is not worth a word: output just comes a little later.
SILENT_FOR = 2.0


class Clients(Protocol):
    """How the notice gets to the clients."""

    @property
    def composer(self) -> Composer: ...
    def publish(self, message: Message) -> None: ...


def outage(why: str, next_try: float | None) -> str:
    """The state of a link that is down, as a clause."""
    if next_try is None:
        return why
    return f"{why}; {f'next try at {_clock(next_try)}' if next_try > time.time() else 'trying now'}"


class LinkNotice:
    """Of one kernel.  ``cell`` gives the cell that runs, if one does; ``asking``: whether a question is open in it."""

    def __init__(
        self, clients: Clients, name: str, cell: Callable[[], Request | None], asking: Callable[[], bool]
    ) -> None:
        self._clients = clients
        self._name = name
        self._cell = cell
        self._asking = asking
        self._since = 0.0
        self._clause = ""
        self._text = ""
        self._timer: asyncio.TimerHandle | None = None
        self._shown: tuple[Request, str] | None = None  # the cell, and the display's id

    def __repr__(self) -> str:
        return f"<LinkNotice {self._clause or 'the link is up'}{', shown' if self._shown else ''}>"

    def down(self, clause: str) -> None:
        """The link is down, or there is news about it."""
        if not self._since:
            self._since = time.time()
            self._timer = asyncio.get_running_loop().call_later(SILENT_FOR, self._show)
        self._clause = clause
        if self._timer is None:
            self._show()

    @property
    def is_down(self) -> bool:
        return bool(self._since)

    def up(self) -> None:
        """It is back."""
        since, self._since = self._since, 0.0
        self._stop_timer()
        if self._shown is not None:
            cell, _ = self._shown
            if cell.started is not None:
                self._publish(
                    f"[farkernel] The link to {self._name} was down from {_clock(since)} to {_clock(time.time())}; "
                    "the kernel ran on, and nothing was lost.\n"
                )
            else:
                self._clients.publish(self._clients.composer.clear_output(cell.message))
            self._shown = None
        self._clause = ""

    def cell_came(self) -> None:
        """A cell was run meanwhile: it says why nothing happens, unless another one does so already."""
        if self._since and self._timer is None and self._shown is None:
            self._show()

    def forget(self) -> None:
        """The kernel has ended, or its local end is closed."""
        self._since = 0.0
        self._stop_timer()
        self._shown = None

    def _show(self) -> None:
        self._timer = None
        if self._asking():
            return  # the question says what is the matter
        self._publish(
            f"[farkernel] The link to {self._name} has been down since {_clock(self._since)}: {self._clause}. "
            "The kernel runs on; what it prints will come, and what you run meanwhile runs when the link is back.\n"
        )

    def _publish(self, text: str) -> None:
        update = self._shown is not None
        if update and text == self._text:
            return
        self._text = text
        if self._shown is None:
            cell = self._cell()
            if cell is None:
                return
            self._shown = (cell, f"farkernel-{uuid.uuid4().hex}")
        cell, display = self._shown
        data = {"text/plain": text}
        self._clients.publish(self._clients.composer.display_data(cell.message, data, display, update))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _clock(when: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(when))
