"""What can go wrong with a board, each with what to do next (DESIGN §3.3).

Text that a board sent is data: it is cleaned here before it becomes part of a sentence.
"""

from __future__ import annotations

from ..errors import FarkernelError
from ..text import one_line


class BoardError(FarkernelError):
    """Base of all errors about boards."""

    kind = "board"


class BoardGone(BoardError):
    """There is no such device, or it went away while we held it."""

    kind = "board-gone"

    def __init__(self, where: str, detail: str = "") -> None:
        super().__init__(
            f"no board at {where}" + (f": {one_line(detail)}" if detail else ""),
            "Plug it in (a cable that only charges does not do); `farkernel board list` shows what is there",
        )


class BoardLost(BoardError):
    """It went away, or restarted by itself, while our code ran."""

    kind = "board-lost"

    def __init__(self, where: str, how: str) -> None:
        super().__init__(
            f"the board at {where} {one_line(how)}; what ran on it is lost, and so are its variables",
            "It is taken up again as soon as it answers",
        )


class BoardBusy(BoardError):
    """Somebody else holds it."""

    kind = "board-busy"

    def __init__(self, where: str, holder: str) -> None:
        super().__init__(
            f"{where} is in use by {one_line(holder) or 'another program'}",
            "One program at a time can talk to a board: close the other one, or stop its kernel (`farkernel ps`)",
        )
        self.holder = holder


class BoardPermission(BoardError):
    """The device is there, but not for us."""

    kind = "board-permission"

    def __init__(self, where: str, group: str) -> None:
        super().__init__(
            f"this user may not open {where}",
            f"Its group is {one_line(group)}: `sudo usermod -aG {one_line(group)} $USER`, then log in again"
            if group
            else "Ask the machine's administrator for the group that owns serial devices",
        )


class NotABoard(BoardError):
    """Something is there, but no REPL answers."""

    kind = "board-silent"

    def __init__(self, where: str, seen: bytes) -> None:
        tail = one_line(seen[-200:].decode("utf-8", "replace"))
        super().__init__(
            f"no MicroPython answers at {where}; "
            + (f"what came from there: {tail!r}" if tail else "nothing came from there"),
            "Press the board's reset button and try again; look whether the speed (`baud`) is right and "
            "whether MicroPython is on it (`farkernel board flash`)",
        )


class BoardUnreachable(BoardError):
    """The way to the board does not work: network, password, the machine it is plugged into."""

    kind = "board-unreachable"


class Unsupported(BoardError):
    """This board, or this way to it, cannot do that."""

    kind = "board-unsupported"


class BoardException(BoardError):
    """Code of ours (not of a notebook) raised an exception on the board: `evaluate`, the file functions."""

    kind = "board-exception"

    def __init__(self, traceback: bytes) -> None:
        self.traceback = traceback.decode("utf-8", "replace").replace("\r\n", "\n")
        last = self.traceback.rstrip().rpartition("\n")[2]
        self.exception, _, self.detail = last.partition(": ")
        super().__init__(f"the board says {one_line(last)}", "")


class BoardFileError(BoardError):
    """A file function failed, for a reason that the board gave: no such file, is a directory, …"""

    kind = "board-file"


class BoardFull(BoardFileError):
    """No room left on the board."""

    kind = "board-full"

    def __init__(self, path: str, size: int, free: int | None) -> None:
        room = "" if free is None else f"; {free:,} bytes are free"
        super().__init__(
            f"no room on the board for {path!r} of {size:,} bytes{room}",
            "Remove what is not needed (`farkernel board ls`, `farkernel board rm`)",
        )
