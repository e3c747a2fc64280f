"""A command at a target, by way of the keeper: its stdin and stdout as one socket here (`launcher.keeper.bridges`)."""

from __future__ import annotations

import queue
import socket
from typing import Any

from ..errors import FarkernelError, RemoteError
from ..text import one_line
from .asking import Asking

DEADLINE = 90.0
_PATIENCE = 30.0
_REACH_DEADLINE = 15.0


class FarCommandFailed(FarkernelError):
    kind = "far-command"

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} at the far end: {why}", "Try it there by hand, and see what it says")


class Unreached(FarkernelError):
    kind = "unreached"

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(one_line(what), one_line(advice))


def reach(client: Asking, target: str) -> None:
    """Before something that would wait for a link: a dead host costs this deadline, and no more.  Raises Unreached."""
    answer = client.request("reach", _REACH_DEADLINE + 10, targets=[target], deadline=_REACH_DEADLINE)
    row = (answer.get("targets") or {}).get(target) or {}
    if not row.get("ok"):
        raise Unreached(str(row.get("what") or "no answer"), str(row.get("advice") or ""))


class FarCommand:
    """Opened at once; `ended` waits for its end."""

    def __init__(self, client: Asking, target: str, argv: list[str]) -> None:
        self._name = argv[0]
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        client.on_event = self._events.put
        answer = client.request("bridge", DEADLINE, target=target, argv=argv)
        self._bridge = answer.get("bridge")
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(answer["path"]))

    def __repr__(self) -> str:
        return f"<FarCommand {self._name}>"

    def ended(self) -> tuple[int, str]:
        """Exit status and the end of what it said on stderr; raises why it was never started."""
        self.socket.close()
        while True:
            try:
                event = self._events.get(timeout=_PATIENCE)
            except queue.Empty:
                raise FarCommandFailed(self._name, "its end was not told") from None
            if event.get("event") != "bridge" or event.get("bridge") != self._bridge:
                continue
            if "error" in event:
                raise RemoteError.from_dict(event["error"])
            return int(event.get("status") or 0), str(event.get("said") or "")

    def read_all(self, most: int = 1 << 20) -> bytes:
        """What it says until it ends; nothing is given to it."""
        self.socket.shutdown(socket.SHUT_WR)
        said = b""
        while data := self.socket.recv(65536):
            said = (said + data)[:most]
        return said


def run(client: Asking, target: str, argv: list[str]) -> tuple[int, bytes, str]:
    """Exit status, stdout, the end of stderr; raises what the far end says when there is no such program."""
    command = FarCommand(client, target, argv)
    try:
        said = command.read_all()
    except ConnectionError:
        said = b""
    status, complaint = command.ended()
    return status, said, complaint
