"""What the system knows about a serial device: whether it is one, whose it is, who has it open."""

from __future__ import annotations

import grp
import os
import re
import stat

from ..launcher.board.errors import BoardGone
from .flash_errors import BadPort

# No other URL of pySerial's: `spy://` writes files, `alt://` and `hwgrep://` open what they like.
_RFC2217 = re.compile(r"rfc2217://(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}", re.ASCII)


def checked(port: str) -> str:
    """What may be given to esptool as a port; raises BadPort, BoardGone."""
    if port.startswith("rfc2217:"):
        if not _RFC2217.fullmatch(port):
            raise BadPort(port)
        return port
    path = os.path.abspath(port)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if not path.startswith("/dev/"):
            raise BadPort(port) from None
        raise BoardGone(port) from None
    except (OSError, ValueError) as error:
        raise BadPort(port) from error
    if not stat.S_ISCHR(mode):
        raise BadPort(port)
    return path


def group_of(port: str) -> str:
    """The name of the group that owns a device; empty: unknown."""
    try:
        return grp.getgrgid(os.stat(port).st_gid).gr_name
    except (OSError, KeyError, ValueError):
        return ""


def holder_of(port: str) -> str:
    """Who has a device open, as far as this user may know: "minicom, process 4711"; empty: nobody that we can see."""
    try:
        wanted = os.stat(port).st_rdev
    except (OSError, ValueError):
        return ""
    own = os.getpid()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != own and wanted in _devices(entry):
            return f"{_name(entry)}, process {entry}"
    return ""


def _devices(pid: str) -> set[int]:
    found = set()
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return set()
    for descriptor in descriptors:
        try:
            about = os.stat(f"/proc/{pid}/fd/{descriptor}")
        except OSError:
            continue
        if stat.S_ISCHR(about.st_mode):
            found.add(about.st_rdev)
    return found


def _name(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "a program"
