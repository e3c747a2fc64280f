"""Serial devices of this machine: which one is meant, and what is in the way when it cannot be opened."""

import errno
import glob
import os
import re
import stat

from .holds import group_of, holder_of, user_name
from .problems import Problem

_GONE = (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EIO)
_USB = re.compile(r"/usb/([0-9A-Fa-f]{1,4}):([0-9A-Fa-f]{1,4})(?:/(.+))?")
_UNFIT = re.compile(r"[^A-Za-z0-9_.:@+,=-]")


class LineProblem(Problem):
    """The device cannot be opened; ``kind`` is that of the keeper's own errors about boards."""

    def __init__(self, kind: str, what: str, advice: str) -> None:
        super().__init__(what, advice)
        self.kind = kind


def locate(path: str) -> str:
    """The device itself, or the one with these USB numbers: ``/usb/VID:PID[/SERIAL]``."""
    found = _USB.match(path)
    if found is None:
        if not stat.S_ISCHR(_mode(path)):  # never open a plain file, a pipe or a socket
            raise LineProblem(
                "board-unreachable", "%s is no serial device" % path, "Look at the target's address"
            )
        return path
    wanted = [int(found.group(1), 16), int(found.group(2), 16)]
    fitting = []
    for tty in sorted(glob.glob("/sys/class/tty/*/device")):
        place = os.path.realpath(tty)
        while len(place) > 1 and not os.path.exists(os.path.join(place, "idVendor")):
            place = os.path.dirname(place)
        try:
            numbers = [int(_text(place, "idVendor"), 16), int(_text(place, "idProduct"), 16)]
        except (OSError, ValueError):
            continue
        if numbers == wanted and found.group(3) in (None, _UNFIT.sub("_", _serial(place))):
            fitting.append("/dev/" + os.path.basename(os.path.dirname(tty)))
    if len(fitting) > 1:
        raise LineProblem(
            "board-several",
            "%d boards fit %s: %s" % (len(fitting), path, ", ".join(fitting)),
            "Name one of them",
        )
    if not fitting:
        raise LineProblem("board-gone", "no board at %s there" % path, "Plug it in")
    return fitting[0]


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except OSError as error:
        raise problem(path, error) from None


def _text(place: str, name: str) -> str:
    with open(os.path.join(place, name)) as file:
        return file.read().strip()


def _serial(place: str) -> str:
    try:
        return _text(place, "serial")
    except OSError:
        return ""


def problem(path: str, error: OSError) -> LineProblem:
    if error.errno in (errno.EACCES, errno.EPERM):
        return LineProblem(
            "board-permission",
            "this user may not open %s there" % path,
            "There, as root: `usermod -aG %s %s`, then log in again"
            % (group_of(path) or "dialout", user_name(os.getuid())),
        )
    if error.errno in (errno.EBUSY, errno.EWOULDBLOCK):
        return busy(path, holder_of(path))
    if error.errno in _GONE:
        return LineProblem("board-gone", "no board at %s there" % path, "Plug it in")
    return LineProblem("board-unreachable", "%s cannot be opened there: %s" % (path, error.strerror), "")


def busy(path: str, holder: str) -> LineProblem:
    return LineProblem(
        "board-busy",
        "%s there is in use by %s" % (path, holder or "another program"),
        "One program at a time can talk to a board: close the other one",
    )
