"""The lines between a front end and the keeper, without I/O (docs/architecture.md §7)."""

from __future__ import annotations

import json
import os
from typing import Any

from .. import __version__
from .errors import FarkernelError, RemoteError

PROTOCOL = 1
LISTENS = "1"  # what a new keeper says on the pipe of whoever started it; anything else is why it cannot
UNKNOWN_REQUEST = "unknown-request"  # a keeper's kind of error
LONGEST_LINE = 64 * 1024 * 1024

# Asking these twice has the effect of asking once: `launch` names its kernel and life, the others name an
# end. `signal` is not among them (SIGUSR1 twice is not once), nor is `end` (it would end the next keeper as
# well).
REPEATABLE = frozenset(
    (
        *("status", "list", "watch", "logs", "reach"),
        *("launch", "interrupt", "shutdown", "stop", "cleanup", "detach", "release"),
        *("output", "scan", "doctor", "connection", "forward"),
    )
)

# What the keeper needs to authenticate as the person in front of this front end.
ENVIRONMENT = (
    "SSH_AUTH_SOCK",
    "SSH_ASKPASS",
    "SSH_ASKPASS_REQUIRE",
    "KRB5CCNAME",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "DBUS_SESSION_BUS_ADDRESS",
)


class KeeperTooOld(FarkernelError):
    kind = "keeper-too-old"

    def __init__(self, keeper_version: str) -> None:
        super().__init__(
            f"the keeper that is running is of an older version ({keeper_version}, here {__version__})",
            "Run `farkernel keeper restart`; kernels live on.",
        )


class KeeperLacks(KeeperTooOld):
    """It speaks our protocol, and has no such request yet."""


class KeeperTooNew(FarkernelError):
    kind = "keeper-too-new"

    def __init__(self, keeper_version: str) -> None:
        super().__init__(
            f"the keeper that is running is of a newer version ({keeper_version}, here {__version__})",
            "Upgrade farkernel in this environment, or run `farkernel keeper restart` to use this version; "
            "kernels live on.",
        )


class KeeperNotRunning(FarkernelError):
    kind = "keeper-not-running"

    def __init__(self) -> None:
        super().__init__(
            "no keeper is running", "It is started by the next kernel, or by `farkernel keeper restart`."
        )


class KeeperGone(FarkernelError):
    """The connection broke before the answer; whether the request was carried out is not known."""

    kind = "keeper-gone"

    def __init__(self, do: str) -> None:
        super().__init__(
            f"the connection to the keeper broke before it answered ({do})",
            "Look with `farkernel ps` whether it was done, and try again.",
        )


class KeeperEnding(FarkernelError):
    """The connection broke before anything was asked."""

    kind = "keeper-ending"

    def __init__(self) -> None:
        super().__init__(
            "the keeper takes connections and ends them at once",
            "Try again in a moment; if it stays so, see `farkernel keeper status` and its log.",
        )


class KeeperSilent(FarkernelError):
    kind = "keeper-silent"

    def __init__(self, do: str, seconds: float) -> None:
        super().__init__(
            f"the keeper did not answer within {seconds:g} s ({do})",
            "Try again; if that does not help, run `farkernel keeper restart`: kernels live on.",
        )


class NotAKeeper(FarkernelError):
    kind = "not-a-keeper"

    def __init__(self, said: str) -> None:
        super().__init__(
            f"what listens on the keeper's socket does not speak as a keeper does (it said {said[:80]!r})",
            "Run `farkernel keeper restart`.",
        )


def encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode("utf-8") + b"\n"


def hello() -> bytes:
    """The first line of every front end."""
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    return encode({"farkernel": PROTOCOL, "version": __version__, "environment": environment})


def check_hello(line: dict[str, Any]) -> dict[str, Any]:
    """The keeper's first line, if it is one that we can talk to; raises otherwise."""
    protocol = line.get("farkernel")
    version = str(line.get("version", "unknown"))[:40]
    if isinstance(protocol, int) and protocol < PROTOCOL:
        raise KeeperTooOld(version)
    if isinstance(protocol, int) and protocol > PROTOCOL:
        raise KeeperTooNew(version)
    if "error" in line:
        raise RemoteError.from_dict(line["error"])
    if protocol != PROTOCOL:
        raise NotAKeeper(str(line))
    return line


class LineReader:
    """Bytes in, JSON objects out."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._searched = 0

    def feed(self, data: bytes, limit: int | None = None) -> list[dict[str, Any]]:
        """At most `limit` objects; the bytes of the others wait for the next call.  Raises `NotAKeeper`."""
        self._partial += data
        objects: list[dict[str, Any]] = []
        while limit is None or len(objects) < limit:
            end = self._partial.find(b"\n", self._searched)
            if end < 0:
                self._searched = len(self._partial)
                break
            objects.append(decode(bytes(self._partial[:end])))
            del self._partial[: end + 1]
            self._searched = 0
        if len(self._partial) > LONGEST_LINE:
            raise NotAKeeper("a line without an end")
        return objects


def decode(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise NotAKeeper(line[:200].decode("utf-8", "replace")) from None
    if not isinstance(message, dict):
        raise NotAKeeper(line[:200].decode("utf-8", "replace"))
    return message


class Answer:
    """What came of a request: a result or an error."""

    __slots__ = ("error", "ok")

    def __init__(self, ok: Any = None, error: FarkernelError | None = None) -> None:
        self.ok = ok
        self.error = error

    @classmethod
    def from_line(cls, line: dict[str, Any], keeper_version: str = "unknown") -> Answer:
        if "error" in line:
            error = RemoteError.from_dict(line["error"])
            return cls(error=KeeperLacks(keeper_version) if error.remote_kind == UNKNOWN_REQUEST else error)
        return cls(ok=line.get("ok"))

    def result(self) -> dict[str, Any]:
        """The result, `{}` for requests that answer with nothing; raises the error."""
        if self.error is not None:
            raise self.error
        return self.ok if isinstance(self.ok, dict) else {}


def exit_code(event: dict[str, Any]) -> int:
    """How a kernel ended, as `subprocess` counts: its exit status, or minus the signal's number.

    A kernel that was stopped as asked counts as 0, and one of which nothing is known as 1.
    """
    code = event.get("exit")
    if isinstance(code, int):
        return code
    found = event.get("reason")
    reason: dict[str, Any] = found if isinstance(found, dict) else {}
    kind, status, signum = reason.get("kind"), reason.get("status"), reason.get("signum")
    if kind == "signal" and isinstance(signum, int) and signum > 0:
        return -signum
    if kind == "exit" and isinstance(status, int):
        return status
    return {"stopped": 0, "keep": 0, "oom": -9}.get(str(kind), 1)
