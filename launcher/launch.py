"""`farkernel launch ENTRY -f FILE`: what a menu entry's argv runs, for front ends that know no provisioners.

A foreground process that stands for the kernel: SIGINT interrupts it, SIGTERM or SIGHUP leaves it to `keep`,
a second SIGTERM stops it, and the exit status tells how it ended.  Everything that happens comes through one
queue.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from typing import Any

from .client import KeeperClient
from .client_protocol import Answer, exit_code
from .errors import FarkernelError
from .text import one_line

SECOND_SIGNAL = 0.5  # seconds in which another SIGTERM turns leaving into stopping
STOP_DEADLINE = 30.0
LARGEST_CONNECTION_FILE = 65536


class ConnectionFileError(FarkernelError):
    kind = "connection-file"

    def __init__(self, path: str, why: str) -> None:
        super().__init__(
            f"the connection file {path} cannot be used: {why}",
            "It is written by the front end that starts this command; give it with -f.",
        )


def read_connection_file(path: str) -> dict[str, Any]:
    """The content as the keeper will obey it; raises `ConnectionFileError`."""
    try:
        with open(path, "rb") as file:
            content = json.loads(file.read(LARGEST_CONNECTION_FILE))
    except OSError as error:
        raise ConnectionFileError(path, error.strerror or str(error)) from None
    except (ValueError, RecursionError):
        raise ConnectionFileError(path, "it is not JSON") from None
    if not isinstance(content, dict):
        raise ConnectionFileError(path, "it is not a JSON object")
    missing = {
        "shell_port",
        "iopub_port",
        "stdin_port",
        "control_port",
        "hb_port",
        "ip",
        "key",
    } - content.keys()
    if missing:
        raise ConnectionFileError(path, f"it lacks {', '.join(sorted(missing))}")
    return content


def settings_of(entry: str) -> dict[str, Any]:
    """What an installed menu entry says; any other name is taken for a target's, which the keeper checks."""
    from ..kernelspecs import entries

    found = entries.find(entry)
    return {"target": entry} if found is None else found.settings


class Foreground:
    """One kernel, from the launch request to the exit status."""

    def __init__(self, client: KeeperClient) -> None:
        self.client = client
        self.happened: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.kernel: str | None = None
        self.terminations = 0

    def run(self, arguments: dict[str, Any]) -> int:
        """Returns the exit status; raises when the kernel could not be launched."""
        self._ask("launch", arguments)
        patience: float | None = None
        while True:
            try:
                what, value = self.happened.get(timeout=patience)
            except queue.Empty:
                return self._patience_is_over()
            if what == "launch":
                self._launched(value.result())
            elif what == "signal":
                patience = self._signalled(value) or patience
            elif what == "event" and value.get("state") == "ended":
                return self._ended(value)
            elif isinstance(value, Answer) and value.error is not None:
                complain(value.error)

    def _ask(self, do: str, arguments: dict[str, Any]) -> None:
        self.client.submit(do, arguments, lambda answer: self.happened.put((do, answer)))

    def _launched(self, answer: dict[str, Any]) -> None:
        self.kernel = str(answer["kernel"])
        self.client.watch(self.kernel, lambda event: self.happened.put(("event", event)))
        if self.terminations:
            self.happened.put(("signal", None))  # it came before there was a kernel to leave

    def _signalled(self, signum: int | None) -> float | None:
        """Carry out a signal; returns how long to wait from now on, if not for ever."""
        if signum == signal.SIGINT:
            if self.kernel is not None:
                self._ask("interrupt", {"kernel": self.kernel})
            return None
        if signum is not None:
            self.terminations += 1
        if self.kernel is None:
            return None
        if self.terminations == 1:
            self._ask("detach", {"kernel": self.kernel})
            return SECOND_SIGNAL
        self._ask("stop", {"kernel": self.kernel, "now": self.terminations > 2, "restart": False})
        return STOP_DEADLINE

    def _patience_is_over(self) -> int:
        if self.terminations > 1:
            complain("the kernel has not ended yet. It is being stopped; look with `farkernel ps`.")
            return 1
        return 0  # left as asked; what becomes of the kernel is for `keep` to say

    def _ended(self, event: dict[str, Any]) -> int:
        try:
            # Nobody else will say that this front end is done with the kernel.
            self.client.request("cleanup", timeout=5.0, kernel=self.kernel, restart=False)
        except FarkernelError as error:
            complain(error)
        code = exit_code(event)
        reason = event.get("reason")
        if code != 0:
            text = reason.get("text") if isinstance(reason, dict) else None
            complain(text or "the kernel has ended, and nobody knows why. See `farkernel ps --all`.")
        return code & 0xFF if code >= 0 else 128 - code


def complain(what: object) -> None:
    """One sentence on stderr; without the control characters that a far end could put into it."""
    print(f"farkernel: {one_line(what)}", file=sys.stderr, flush=True)


def launch(entry: str, connection_file: str) -> int:
    """Run a kernel in the foreground; returns the exit status."""
    connection = read_connection_file(connection_file)
    with KeeperClient() as client:
        foreground = Foreground(client)
        hear_signals(foreground.happened)
        return foreground.run(
            {
                # An id of ours makes the request repeatable; the answer says which kernel it really is.
                "kernel": os.urandom(16).hex(),
                "entry": entry,
                "settings": settings_of(entry),
                "connection": connection,
                "cwd": working_directory(),
                "env": {},
                "notebook": os.environ.get("JPY_SESSION_NAME"),
                "front": "argv",
                "restart": False,
                "life": None,
            }
        )


def hear_signals(happened: queue.SimpleQueue[Any]) -> None:
    """Through a pipe and a thread: Python runs handlers in the main thread only, and a signal that comes in the moment
    before that begins to wait for the queue would be seen when something else happens.
    """
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)

    def pass_on() -> None:
        while numbers := os.read(heard, 64):
            for number in numbers:
                happened.put(("signal", number))

    threading.Thread(target=pass_on, name="signals", daemon=True).start()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda number, _: None)


def working_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # removed meanwhile
        return None
