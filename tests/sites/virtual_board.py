"""A virtual board that stays: `python -m tests.sites.virtual_board microbit DIRECTORY`, for the demo and for trying out.

Says where it is plugged in (DIRECTORY/board) and serves until SIGTERM or Ctrl-C.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path

from .boards import microbit, mps2

KINDS = {"microbit": microbit, "mps2": mps2}


def main(kind: str, directory: str) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with KINDS[kind](Path(directory)) as board, contextlib.suppress(KeyboardInterrupt):
        print(board.device, flush=True)
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:3])
