"""Whether what a kernel has just said may wait a moment for what follows it.

A cell's messages come in pairs, less than a millisecond apart: `busy` and the code, the reply and `idle`.  Each of them
on its own would wake three processes on its way to the notebook, and those here take their time from the kernel.  The
status is looked for in a message's last bytes; where it stands elsewhere, the pair waits in vain, and not long.
"""

import time
from typing import Callable

from .sockets import IOPUB, SHELL
from .tape import Tape

#: Seconds.  What waits for a timer waits up to a millisecond longer: epoll counts in those.
BEGINNING = 0.001
REPLY = 0.002
#: A larger message is worth a packet of its own.
SMALL = 4096
_TAIL = 40


class Pace(object):
    """Of one kernel."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open = 0  # requests whose `idle` has not come
        self._until = 0.0  # the first messages of one are waited for up to there; 0: none has come

    def __repr__(self) -> str:
        return "<Pace, %d requests>" % self._open

    def asked(self) -> None:
        """A request goes to its shell socket."""
        self._open += 1

    def forget(self) -> None:
        """Another life, or another connection: nothing is open there."""
        self._open, self._until = 0, 0.0

    def patience(self, name: str, tape: Tape) -> float:
        """For how long the newest message may wait.  To be called once whenever something came from that socket."""
        if not self._open or name not in (IOPUB, SHELL):
            return 0.0
        try:
            views = tape.message(tape.last)[1]
        except KeyError:
            return 0.0  # none is whole yet
        if sum(map(len, views)) > SMALL:
            return 0.0
        if name == SHELL:
            return REPLY
        if b'"idle"' in bytes(views[-1][-_TAIL:]):
            self._open -= 1
            self._until = 0.0
            return 0.0
        now = self._clock()
        if not self._until:
            self._until = now + BEGINNING
        return BEGINNING if now < self._until else 0.0
