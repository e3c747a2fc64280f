"""Our own questions in the cells that wait: which cell can be asked, and what becomes of those that cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .questions import Answered, CellQuestion, is_background, may_ask
from .request_log import Request
from .waiting_room import Refusal, WaitingRoom


class Asking:
    """Of one kernel.  ``active``: the requests that have no answer yet; ``done``: for those that are refused."""

    def __init__(
        self,
        active: Mapping[str, Request],
        question: CellQuestion,
        room: WaitingRoom,
        done: Callable[[Request], None],
    ) -> None:
        self._active = active
        self._question = question
        self._room = room
        self._done = done

    def cell_to_ask(self) -> Request | None:
        """A cell that has no answer yet, whose front end can ask its user something, now."""
        if any(request.input_open for request in self._active.values()):
            return None  # the kernel asks something itself: the answer could not be told from ours
        return next((each for each in self._active.values() if may_ask(each)), None)

    def can_be_asked(self) -> bool | None:
        """Whether the first cell that somebody ran can ask them something; None: there is none yet."""
        cell = next(
            (each for each in self._active.values() if each.is_cell and not is_background(each)), None
        )
        return None if cell is None else may_ask(cell)

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

    def refuse_held(self, ename: str, text: str) -> None:
        """The held cells of front ends that cannot ask anybody get an error: waiting would be for ever."""
        refused = self._room.take_back(lambda request: request.is_cell and not may_ask(request))
        self._room.refuse(refused, Refusal(ename, text, [f"{ename}: {text}"]))
        for request in refused:
            self._done(request)
