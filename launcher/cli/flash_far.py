"""`farkernel board flash` for a board at another machine: esptool runs there (`agent.errands.flashing`).

It is looked for there, because it is under another licence than we are, and what it needs is not small.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ...backends.archive import errand_text
from ...device_images import flashing
from ...device_images.flash_errors import FlashError
from ...device_images.flashing import Ended, FlashJob, OpenTool, Tool
from ..agent.errands.flashing import IMAGE
from ..board.holding import own_purpose
from ..errors import RemoteError
from ..settings import Target
from ..text import one_line
from .asking import Asking
from .far_command import FarCommand

_BOOT = "import sys\nexec(compile(sys.stdin.buffer.read(int(sys.argv[1])), 'flashing', 'exec'))"
_LONGEST_LINE = 1 << 20


class NoEsptoolThere(FlashError):
    kind = "flash-no-esptool"

    def __init__(self, host: str, python: str, found: int) -> None:
        what = (
            f"esptool {found} on {one_line(host)} is too old"
            if found
            else f"there is no esptool on {one_line(host)}"
        )
        super().__init__(
            what,
            f"Install it there: {one_line(python)} -m pip install esptool. "
            "If another Python has it, name that as the target's `python`",
        )


class FarEndStopped(FlashError):
    kind = "flash-stopped"

    def __init__(self, host: str, why: str) -> None:
        super().__init__(
            f"the way to {one_line(host)} ended while the board was flashed: {one_line(why)[:300]}",
            "What is on the board now may be incomplete: flash it again",
        )


def far(target: Target, tell: Callable[[str], None]) -> OpenTool:
    """For `flashing.flash`: esptool beside the board of a ``serial://host/…`` target."""

    @contextmanager
    def opened(job: FlashJob) -> Iterator[Tool]:
        host = str(target.address.host)
        with Asking() as client:
            client.may_be_asked(target.name)
            tell(f"sending the image to {host}")
            command = FarCommand(
                client, _named(target), ["{python}", "-I", "-u", "-c", _BOOT, str(len(program()))]
            )
            try:
                with command.socket, command.socket.makefile("rwb") as stream:
                    tool = FarTool(command, stream, target, host)
                    tool.begin(job)
                    yield tool
            except ConnectionError as error:
                raise FarEndStopped(host, str(error)) from None

    return opened


def _named(target: Target) -> str:
    """As the keeper knows it."""
    return str(target.address) if target.name in ("auto", "board") else target.name


def program() -> bytes:
    return errand_text("flashing", "places", "holds", "problems", "serial_devices").encode()


class FarTool:
    """A `flashing.Tool`."""

    image = IMAGE

    def __init__(self, command: FarCommand, stream: Any, target: Target, host: str) -> None:
        self._command = command
        self._stream = stream
        self._target = target
        self._host = host
        self.port = f"{target.address.path} on {host}"

    def begin(self, job: FlashJob) -> None:
        """Raises what the far end says is in the way."""
        order = {
            "path": self._target.address.path,
            "size": len(job.data),
            "python": self._target.python,
            "purpose": f"farkernel board flash: {own_purpose()}",
        }
        self._stream.write(program() + json.dumps(order).encode() + b"\n" + job.data)
        self._stream.flush()
        heard = self._hear()
        refused = heard.get("refused")
        if isinstance(refused, dict) and refused.get("kind") == "no-esptool":
            raise NoEsptoolThere(self._host, str(refused.get("python")), int(refused.get("found") or 0))
        if refused:
            raise RemoteError.from_dict(refused)

    def run(self, arguments: Sequence[str]) -> Generator[str, None, Ended]:
        self._stream.write(json.dumps({"run": list(arguments)}).encode() + b"\n")
        self._stream.flush()
        while True:
            heard = self._hear()
            if "ended" in heard:
                group, holder = (one_line(heard.get(name) or "") for name in ("group", "holder"))
                return Ended(int(heard["ended"]), group, holder)
            yield str(heard.get("line") or "")

    def _hear(self) -> dict[str, Any]:
        self._command.socket.settimeout(flashing.SILENCE)
        line = self._stream.readline(_LONGEST_LINE)
        try:
            heard = json.loads(line)
        except ValueError:
            raise FarEndStopped(self._host, self._why()) from None
        return heard if isinstance(heard, dict) else {}

    def _why(self) -> str:
        status, said = self._command.ended()
        return said.splitlines()[-1] if said else f"the program there ended with status {status}"
