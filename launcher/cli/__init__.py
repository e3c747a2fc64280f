"""The command line: `farkernel COMMAND …`; each command's module is imported only when it is run."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ..errors import FarkernelError

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed, 2 wrong usage."""
    try:
        try:
            return _run(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            _flush()
    except BrokenPipeError:
        return FAILED  # whoever read has read enough (`| head`)
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED
    except FarkernelError as error:
        from .output import complain

        complain(error)
        return FAILED
    except OSError as error:
        from ..trouble import SystemTrouble
        from .output import complain

        complain(SystemTrouble(error))
        return FAILED


def _flush() -> None:
    """What cannot be written raises here, and not once more when Python flushes at its exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["launch"]:
        # It has 60 ms (DESIGN §6): past the table of commands and its help.
        from . import launching

        return launching.run(arguments[1:])
    from . import commands

    return commands.run(arguments)
