"""Whether what a kernel has just said may wait a moment for what follows it.

A cell's messages come in pairs, less than a millisecond apart: `busy` and the code, the reply and `idle`.  Each of them
on its own would wake three processes on its way to the notebook, and those here take their time from the kernel.  The
status is looked for in a message's last bytes; where it stands elsewhere, the pair waits in vain, and not long.
"""

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

    def __init__(self) -> None:
        self._open = 0  # requests whose `idle` has not come
        self._begins = False  # nothing has come yet of the first of them
        self._newest = 0  # on iopub, when we last looked

    def __repr__(self) -> str:
        return "<Pace, %d requests>" % self._open

    def asked(self) -> None:
        """A request goes to its shell socket."""
        self._begins = self._begins or not self._open
        self._open += 1

    def forget(self) -> None:
        """Another life, or another connection: nothing is open there."""
        self._open, self._begins = 0, False

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
        several, self._newest = tape.last > self._newest + 1, tape.last
        if b'"idle"' in bytes(views[-1][-_TAIL:]):
            self._open -= 1
            self._begins = self._open > 0
            return 0.0
        begins, self._begins = self._begins, False
        return BEGINNING if begins and not several else 0.0
