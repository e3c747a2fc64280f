"""`farkernel forward`: a port at a kernel's far end, reachable here until Ctrl-C."""

from __future__ import annotations

import argparse
import queue
import sys
import time
from typing import Any

from ..errors import FarkernelError
from .arguments import add_json
from .asking import Asking
from .attach import KernelHasEnded
from .kernels import SHORT, listing, pick
from .output import complain, emit, say

DEADLINE = 30.0
_SAY_AGAIN = 10.0  # seconds before the same trouble is said again


def port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (1 to 65535)")
    return int(text)


def far_end(text: str) -> int | str:
    """A port, or the absolute path of a unix socket."""
    if text.startswith("/"):
        return text
    try:
        return port(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"{text[:80]!r} is neither a port (1 to 65535) nor the absolute path of a socket"
        ) from None


def configure_forward(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make a port or a unix socket at the far end (a dashboard, TensorBoard) reachable on this machine, "
        "until Ctrl-C.  In a notebook server with jupyter-server-proxy it is then at /proxy/PORT."
    )
    parser.add_argument("id", metavar="ID", help="of a kernel, or its beginning, as `farkernel ps` shows it")
    parser.add_argument(
        "port",
        metavar="PORT",
        type=far_end,
        help="on the machine where the kernel runs; or the path of a unix socket there",
    )
    parser.add_argument(
        "--local",
        metavar="P",
        type=port,
        help="the port here; without it the same number if it is free, or any",
    )
    add_json(parser)


def run_forward(arguments: argparse.Namespace) -> int:
    with Asking() as client:
        rows = {str(row.get("kernel")): row for row in listing(client, True)["kernels"]}
        kernel = pick("kernel", arguments.id, rows)
        if rows[kernel].get("state") == "ended":
            raise KernelHasEnded(kernel, rows[kernel].get("reason"))
        forward = Forward(client, kernel, arguments.port, arguments.local)
        forward.open()
        if arguments.json:
            emit({"kernel": kernel, "host": forward.host, "local": forward.local} | forward.wanted)
        else:
            what = f"port {arguments.port}" if isinstance(arguments.port, int) else arguments.port
            say(f"http://{forward.host}:{forward.local} is {what} where kernel {kernel[:SHORT]} runs.")
            say("Ctrl-C ends it.")
        sys.stdout.flush()
        return forward.stay()


class Forward:
    """One forward; opened again when the keeper was started again."""

    def __init__(self, client: Asking, kernel: str, far: int | str, local: int | None) -> None:
        self.host = ""
        self.local = local
        self._client = client
        self._kernel = kernel
        self.wanted = {"port": far} if isinstance(far, int) else {"port": None, "path": far}
        self._keeper: Any = None
        self._happened: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._said: dict[str, float] = {}

    def open(self) -> None:
        self._client.on_event = self._happened.put
        asked = {"kernel": self._kernel, "local": self.local} | self.wanted
        answer = self._client.request("forward", DEADLINE, **asked)
        self.host, self.local = str(answer["host"]), int(answer["port"])
        self._keeper = self._client.peer.get("pid")

    def stay(self) -> int:
        """Until Ctrl-C, or until there is no kernel to forward to."""
        self._client.watch(self._kernel, self._happened.put)
        while True:
            event = self._happened.get()
            if event.get("event") == "forward":
                self._say(f"{event.get('what')}. {event.get('advice')}")
            elif event.get("state") == "ended":
                raise KernelHasEnded(self._kernel, event.get("reason"))
            elif event.get("event") == "kernel" and self._client.peer.get("pid") != self._keeper:
                self._reopen()

    def _reopen(self) -> None:
        """The keeper is another one: it knows nothing of us."""
        try:
            self.open()
        except FarkernelError as error:
            if getattr(error, "remote_kind", "") != "out-of-reach":
                raise
            # Its link is not back yet; the kernel's next event says when to try again.
            self._keeper = None

    def _say(self, text: str) -> None:
        now = time.monotonic()
        if now - self._said.get(text, -_SAY_AGAIN) >= _SAY_AGAIN:
            self._said[text] = now
            complain(text)
