"""The user at a notebook, as far as a kernel's cells can ask them: for codes, for resources, whether to try again."""

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
    """An `Answerer` as long as a cell waits whose front end can ask; see `launcher.keeper.user`.

    A cell has one question open at a time: the next one is put when that is settled.
    """

    at_terminal = False

    def __init__(self, user: KeeperUser, cells: Cells, host: str, kernel: str) -> None:
        self.host = host
        self.kernel = kernel
        self.interviewed = False  # there are questions before any allocation (`resource_questions`)
        self._user = user
        self._cells = cells
        self._asked: list[Asked] = []
        self._offering = False  # to try again

    @property
    def is_asked(self) -> bool:
        """Somebody is being waited for."""
        return bool(self._asked)

    def cell_waits(self, held: HeldAllocation | None) -> None:
        """A cell was run that waits for the link, or (None) for what comes before one."""
        self._join_or_leave(held)
        if held is not None and held.needs_user and not self._offering:
            held.retry()  # whoever runs a cell wants it tried

    def link_changed(self, held: HeldAllocation) -> None:
        """There is news about the link."""
        if held.up and self._offering:
            self._offering = False
            self._cells.withdraw_question()
            self._put()
        self._join_or_leave(held)
        if held.needs_user:
            self._cells.refuse_held("LinkDown", held.why)
            self._offer(held)

    def leave(self) -> None:
        """There is nothing to wait for any more."""
        if self._asked or self._offering:
            self._cells.withdraw_question()
        self._offering = False
        self._asked.clear()
        self._user.leave(self)

    def _join_or_leave(self, held: HeldAllocation | None) -> None:
        waits = self.interviewed or (held is not None and not held.up)
        if waits and self._cells.cell_to_ask() is not None:
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
        self._asked.append(asked)
        if len(self._asked) == 1:
            self._put()

    def settled(self, asked: Asked) -> None:
        if asked in self._asked:
            shown = asked is self._asked[0]
            self._asked.remove(asked)
            if shown:
                self._cells.withdraw_question()
                self._put()

    def _put(self) -> None:
        if self._asked:
            asked = self._asked[0]
            if not self._cells.ask(asked.question.text, asked.question.hidden, asked.answer):
                self.leave()
