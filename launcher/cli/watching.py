"""Looking again and again (`--watch`): on a terminal it fills the screen, elsewhere one look comes after the other."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

SHORTEST = 0.5


def repeat(lines: Callable[[], Sequence[str]], interval: float, screen: bool) -> NoReturn:
    """Until Ctrl-C.  ``lines`` looks, and says what is to be shown; nothing is written where that is nothing."""
    with full_screen() if screen else _nothing():
        while True:
            shown = lines()
            if screen:
                _redraw(shown)
            elif shown:
                print("\n".join(shown), flush=True)
            time.sleep(max(interval, SHORTEST))


def _redraw(shown: Sequence[str]) -> None:
    rows = shutil.get_terminal_size().lines
    if len(shown) > rows - 1:
        more = len(shown) - rows + 2
        shown = [*shown[: rows - 2], f"… {more} more lines: make the terminal higher, or name fewer targets"]
    # Each line is cleared behind its end, and all below the last: no flicker.
    sys.stdout.write("\x1b[H" + "".join(line + "\x1b[K\n" for line in shown) + "\x1b[J")
    sys.stdout.flush()


@contextmanager
def full_screen() -> Iterator[None]:
    """The terminal's other screen, without a cursor; what was there before comes back."""
    sys.stdout.write("\x1b[?1049h\x1b[?25l")
    sys.stdout.flush()
    try:
        yield
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()


@contextmanager
def _nothing() -> Iterator[None]:
    yield
