"""What can go wrong with a board, each with what to do next (DESIGN §3.3).

Text that a board sent is data: it is cleaned here before it becomes part of a sentence.
"""

from __future__ import annotations

import re

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


class TooMuchCode(BoardError):
    """More than the board could hold: firmware without raw-paste keeps it as a whole, and stops dead when it cannot."""

    kind = "board-code-size"

    def __init__(self, where: str, size: int, free: int) -> None:
        super().__init__(
            f"this code has {size:,} bytes, too much for the {free:,} bytes that are free in the memory of the board "
            f"at {where}",
            "Put parts of it into files on the board and import them, or reset it first: then more is free",
        )


class BoardException(BoardError):
    """Code of ours (not of a notebook) raised an exception on the board: `evaluate`, the file functions."""

    kind = "board-exception"

    def __init__(self, traceback: bytes) -> None:
        self.traceback = traceback.decode("utf-8", "replace").replace("\r\n", "\n")
        last = self.traceback.rstrip().rpartition("\n")[2]
        self.exception, _, self.detail = last.partition(": ")
        super().__init__(f"the board says {one_line(last)}", "")


class BoardFileError(BoardError):
    """A file function failed, for a reason that the board gave: no such file, is a directory, …

    ``reason``: the error number's name, where there is one ("ENOENT").
    """

    kind = "board-file"

    def __init__(self, what: str, advice: str, reason: str = "") -> None:
        super().__init__(what, advice)
        self.reason = reason


class BoardFull(BoardFileError):
    """No room left on the board."""

    kind = "board-full"

    def __init__(self, path: str, size: int, free: int | None) -> None:
        room = "" if free is None else f"; {free:,} bytes are free"
        super().__init__(
            f"no room on the board for {path!r} of {size:,} bytes{room}",
            "Remove what is not needed (`farkernel board ls`, `farkernel board rm`)",
            _FULL[0],
        )


class NoSuchFolder(BoardFileError):
    """A file cannot be written, because the folder for it is not there."""

    def __init__(self, folder: str) -> None:
        name = one_line(folder)
        super().__init__(
            f"there is no folder {name!r} on the board",
            f"Make it first: `farkernel board mkdir` {name}",
            "ENOENT",
        )


_FULL = ("ENOSPC", 28)
# The error numbers of MicroPython's file systems (py/mperrno.h; the same as Linux has).
_NUMBERS = {
    "ENOENT": (2, "there is no {path!r} on the board", "`farkernel board ls` shows what is there"),
    "EEXIST": (17, "{path!r} is on the board already", "Remove it first, or choose another name"),
    "EISDIR": (21, "{path!r} is a directory", "Name a file in it"),
    "ENOTDIR": (20, "{path!r} is not a directory", "`farkernel board ls` shows what is there"),
    "EACCES": (13, "the board does not allow that for {path!r}", "Is it a directory that is not empty?"),
    "EPERM": (1, "the board does not allow that for {path!r}", ""),
    "ENOTEMPTY": (39, "the directory {path!r} is not empty", "Remove what is in it first, or use `-r`"),
    "EROFS": (
        30,
        "the board's file system can only be read",
        "CircuitPython lets the computer write while its drive is mounted: eject it, or remount it in boot.py",
    ),
    "ENODEV": (
        19,
        "the board has no file system for {path!r}",
        "Its flash may need a new one (`os.VfsLfs2.mkfs`)",
    ),
}
_MISSING = re.compile(r"no attribute '(\w+)'")


def file_error(error: BoardException, path: str, size: int = 0) -> BoardError:
    """What a file function's exception means for people; the exception itself when it says nothing known."""
    name = _error_name(error)
    if name == _FULL[0]:
        return BoardFull(path, size, None)
    if name in _NUMBERS:
        _, what, advice = _NUMBERS[name]
        return BoardFileError(what.format(path=one_line(path)), advice, name)
    if error.exception in ("AttributeError", "ImportError"):
        missing = _MISSING.search(error.detail)
        lacks = f" (no {missing[1]}())" if missing else ""
        return Unsupported(
            f"this board's firmware has no function for that{lacks}", "A newer MicroPython may have it"
        )
    if error.exception == "MemoryError":
        return BoardFileError(f"the board has no memory left ({error.detail})", "Reset it, and try again")
    return error


def _error_name(error: BoardException) -> str:
    """ "OSError: 28", "OSError: [Errno 2] ENOENT: no.txt" → the number's name."""
    if error.exception != "OSError":
        return ""
    digits = re.match(r"(?:\[Errno )?-?([0-9]+)", error.detail)  # littlefs's own chdir has them negative
    number = int(digits[1]) if digits else None
    if not digits:  # the micro:bit's have words instead
        return {"file not found": "ENOENT", "no more storage space": _FULL[0]}.get(error.detail, "")
    if number == _FULL[1]:
        return _FULL[0]
    return next((name for name, (code, _, _) in _NUMBERS.items() if code == number), "")
