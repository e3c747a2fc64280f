"""Whether something is a serial device that may be given to esptool."""

from __future__ import annotations

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
