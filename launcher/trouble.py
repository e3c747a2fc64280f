"""What the operating system refuses, in a sentence: for what nobody met closer to where it happened."""

from __future__ import annotations

import errno
import os

from .errors import FarkernelError

_ADVICE = {
    errno.ENOSPC: "Make room on that disk (`df -h` shows how full they are), then try again.",
    errno.EDQUOT: "Your quota is used up: make room (`quota` shows how much you have), then try again.",
    errno.EACCES: "Make it accessible for you, then try again.",
    errno.EPERM: "Make it accessible for you, then try again.",
    errno.EROFS: "It is mounted read-only: give another place, or have it mounted for writing.",
    errno.EMFILE: "Too many files are open: raise the limit with `ulimit -n`, then try again.",
    errno.EIO: "The disk or file system fails: see the system's log (`dmesg`).",
}


class SystemTrouble(FarkernelError):
    """An `OSError` that reached the command line, or ended a keeper that was starting."""

    kind = "system"

    def __init__(self, error: OSError) -> None:
        why = os.strerror(error.errno) if error.errno else str(error)
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        advice = _ADVICE.get(error.errno or 0, "Look whether it is there and can be used, then try again.")
        super().__init__(f"{where}{why}", advice)
