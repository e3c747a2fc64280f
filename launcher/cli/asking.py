"""The keeper's client as commands use it: whoever waits at a terminal for over a second sees for what, and is asked
there when a login on the way needs a password or a code.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..client import KeeperClient
from ..client_protocol import Answer, KeeperLacks, KeeperSilent
from ..text import clean
from . import table
from .output import terminal_columns

PATIENCE = 1.0  # seconds before anything is shown
_WORDS = {
    "bridge": "opening a way there",
    "cancel": "cancelling the job",
    "cleanup": "clearing up",
    "connection": "asking the keeper",
    "doctor": "looking",
    "forward": "opening the port",
    "interrupt": "interrupting the kernel",
    "launch": "starting a kernel",
    "list": "asking the keeper and its agents",
    "login": "logging in",
    "logs": "reading the log",
    "look": "looking at the kernel there",
    "output": "reading the kernel's journal",
    "probe": "looking at the machines",
    "reach": "reaching the targets",
    "release": "ending the allocation's kernels",
    "scan": "looking for kernels there",
    "stop": "ending the kernel",
}


class Asking(KeeperClient):
    """Shows progress during each request, and puts the keeper's questions to whoever is at the terminal."""

    def __init__(self, directory: str | None = None, *, start: bool = True) -> None:
        super().__init__(directory, start=start)
        self._inbox: queue.SimpleQueue[tuple[object, Answer] | dict[str, Any]] = queue.SimpleQueue()
        self.on_event = self._inbox.put

    def may_be_asked(self, target: str) -> None:
        """Logins to that target's host may ask here from now on, if anybody is here."""
        if _somebody_is_here():
            with suppress(KeeperLacks):  # it has no questions to ask
                self.request("questions", target=target)

    def request(self, do: str, timeout: float = 30.0, **arguments: Any) -> dict[str, Any]:
        mine = object()  # an answer to a former request, given up at its deadline, may still lie there
        number = self.submit(do, arguments, lambda answer: self._inbox.put((mine, answer)))
        deadline = time.monotonic() + timeout
        try:
            with Progress(_WORDS.get(do, "asking the keeper")) as shown:
                while True:
                    try:
                        came = self._inbox.get(timeout=max(deadline - time.monotonic(), 0))
                    except queue.Empty:
                        raise KeeperSilent(do, timeout) from None
                    if isinstance(came, tuple):
                        if came[0] is mine:
                            return came[1].result()
                        continue
                    began = time.monotonic()
                    with shown.hidden():
                        self._answer(came)
                    deadline += time.monotonic() - began  # people may take their time
        finally:
            self.forget(number)

    def _answer(self, event: dict[str, Any]) -> None:
        if event.get("event") != "question":
            return
        text = _prompt(str(event.get("text")), bool(event.get("hidden", True)))
        self.submit("answer", {"number": event.get("number"), "text": text}, _seen)


def _seen(answer: Answer) -> None:
    """Whether it came in time shows in what was asked for in the first place."""


def _somebody_is_here() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _prompt(text: str, hidden: bool) -> str | None:
    """What is typed; None where nobody is, or nobody will."""
    if not _somebody_is_here():
        return None
    prompt = clean(text, keep="\n").rstrip() + " "
    try:
        if hidden:
            import getpass

            return getpass.getpass(prompt)
        sys.stderr.write(prompt)
        sys.stderr.flush()
        line = sys.stdin.readline()
        return line.rstrip("\n") if line else None
    except EOFError:
        return None


class Progress:
    """One line on the terminal's stderr that comes after a second and goes in the end; one at a time, the outermost."""

    _is_shown = False

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._shown = False

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and not Progress._is_shown:
            Progress._is_shown = True
            self._thread = threading.Thread(target=self._show, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            Progress._is_shown = False

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Nothing is written by us in this time: somebody types."""
        with self._lock:
            self._clear()
            yield

    def _show(self) -> None:
        began = time.monotonic()
        wait = PATIENCE
        while not self._over.wait(wait):
            with self._lock:
                columns = terminal_columns(sys.stderr) or 80
                line = table.cut(f"{self._doing} … {table.duration(time.monotonic() - began)}", columns - 1)
                sys.stderr.write(f"\r{line}\x1b[K")
                sys.stderr.flush()
                self._shown = True
            wait = 0.5
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False
