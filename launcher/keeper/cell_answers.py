"""The user at a notebook, as far as a kernel's cells can ask them: for codes, and whether to try again."""

from __future__ import annotations

from typing import Protocol

from ..local_end.questions import Answered
from .allocations import HeldAllocation
from .user import Asked, KeeperUser


class Cells(Protocol):
    """What is needed of a kernel's local end."""

    def cell_to_ask(self) -> object | None: ...
    def ask(self, prompt: str, hidden: bool, answered: Answered) -> bool: ...
    def withdraw_question(self) -> None: ...
    def refuse_held(self, ename: str, text: str) -> None: ...


class CellAnswerer:
    """An `Answerer` as long as a cell waits whose front end can ask; see `launcher.keeper.user`."""

    at_terminal = False

    def __init__(self, user: KeeperUser, cells: Cells, host: str) -> None:
        self.host = host
        self._user = user
        self._cells = cells
        self._asked: Asked | None = None
        self._offering = False  # to try again

    def cell_waits(self, held: HeldAllocation) -> None:
        """A cell was run that waits for the link."""
        self._join_or_leave(held)
        if held.needs_user and not self._offering:
            held.retry()  # whoever runs a cell wants it tried

    def link_changed(self, held: HeldAllocation) -> None:
        """There is news about the link."""
        self._join_or_leave(held)
        if held.needs_user:
            self._cells.refuse_held("LinkDown", held.why)
            self._offer(held)

    def leave(self) -> None:
        """There is nothing to wait for any more."""
        self._offering = False
        self._user.leave(self)

    def _join_or_leave(self, held: HeldAllocation) -> None:
        if not held.up and self._cells.cell_to_ask() is not None:
            self._user.join(self)
        else:
            self.leave()

    def _offer(self, held: HeldAllocation) -> None:
        def again(_: str) -> None:
            self._offering = False
            held.retry()

        if not self._offering:
            prompt = f"{held.why}\nPress Enter to try again: "
            self._offering = self._cells.ask(prompt, False, again)

    # Answerer

    def asked(self, asked: Asked) -> None:
        self._asked = asked
        question = asked.question
        if not self._cells.ask(question.text, question.hidden, asked.answer):
            self.leave()

    def settled(self, asked: Asked) -> None:
        if asked is self._asked:
            self._asked = None
            self._cells.withdraw_question()
