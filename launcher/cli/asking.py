"""The keeper's client as commands use it: whoever waits at a terminal for over a second sees for what."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..client import KeeperClient
from . import table
from .output import terminal_columns

PATIENCE = 1.0  # seconds before anything is shown
_WORDS = {
    "cleanup": "clearing up",
    "connection": "asking the keeper",
    "doctor": "looking",
    "forward": "opening the port",
    "interrupt": "interrupting the kernel",
    "launch": "starting a kernel",
    "list": "asking the keeper and its agents",
    "logs": "reading the log",
    "output": "reading the kernel's journal",
    "reach": "reaching the targets",
    "release": "ending the allocation's kernels",
    "scan": "looking for kernels there",
    "stop": "ending the kernel",
}


class Asking(KeeperClient):
    """Shows progress during each request."""

    def request(self, do: str, timeout: float = 30.0, **arguments: Any) -> dict[str, Any]:
        with progress(_WORDS.get(do, "asking the keeper")):
            return super().request(do, timeout, **arguments)


@contextmanager
def progress(doing: str) -> Iterator[None]:
    """One line on the terminal's stderr that comes after a second and goes in the end."""
    if not sys.stderr.isatty():
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_show, args=(doing, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _show(doing: str, over: threading.Event) -> None:
    began = time.monotonic()
    wait, shown = PATIENCE, False
    while not over.wait(wait):
        columns = terminal_columns(sys.stderr) or 80
        line = table.cut(f"{doing} … {table.duration(time.monotonic() - began)}", columns - 1)
        sys.stderr.write(f"\r{line}\x1b[K")
        sys.stderr.flush()
        wait, shown = 0.5, True
    if shown:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
