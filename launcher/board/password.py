"""The password of a WebREPL: what a command of the configuration prints."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from .errors import BoardUnreachable

_DEADLINE = 60.0


def password_from(command: Sequence[str]) -> str:
    """The first line that a target's `password_command` prints.  Raises `BoardUnreachable`; blocks."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=_DEADLINE, check=True)
        password = done.stdout.decode().splitlines()[0]
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError, IndexError, ValueError) as error:
        raise BoardUnreachable(
            f"the password command {command[0]!r} gave no password: {_why(error)}",
            "Run it by hand: it must print the password on its first line",
        ) from None
    return password


def _why(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"exit status {error.returncode}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer within {_DEADLINE:.0f} s"
    if isinstance(error, OSError):
        return error.strerror or "it cannot be started"
    return "it printed nothing readable"
