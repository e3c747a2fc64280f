"""Our own copy: this half runs here, the other half, the same program, at the far end (`agent.errands.copying`)."""

from __future__ import annotations

import json
import select
import sys
import time
from typing import Any

from ...backends.archive import errand_text
from ..agent.errands import copying
from ..errors import FarkernelError
from ..text import one_line
from . import table
from .asking import Asking
from .far_command import FarCommand
from .output import terminal_columns

_BOOT = "import sys\nexec(compile(sys.stdin.buffer.read(int(sys.argv[1])), 'copying', 'exec'))"
_SHOW_EVERY = 0.2


class CopyRefused(FarkernelError):
    """One end cannot, or does not trust the other."""

    kind = "copy"

    def __init__(self, why: str) -> None:
        why = one_line(why)
        full = "No space left" in why or "quota" in why.lower()
        advice = "Make room there, and run it again: what is there already is not sent again"
        super().__init__(f"the copy stopped: {why}", advice if full else "See to that, and run it again")


def copy(client: Asking, target: str, local: str, far: str, back: bool, dry: bool) -> dict[str, Any]:
    """The taker's result; raises `CopyRefused`."""
    program = errand_text("copying").encode()
    command = FarCommand(client, target, ["{python}", "-I", "-u", "-c", _BOOT, str(len(program))])
    order = {"role": "give" if back else "take", "path": far, "dry": dry}
    shower = Shower()
    try:
        with command.socket.makefile("rwb") as stream:
            stream.write(program + json.dumps(order).encode() + b"\n")
            stream.flush()
            result = _take(stream, local, dry, shower) if back else _give(command, stream, local, shower)
    except copying.Refused as error:
        # When the far end has ended, why it did says more.
        why = str(error)
        status, said = command.ended()
        if status not in (0, 1) or (said and "stopped" in why):
            why = said.splitlines()[-1] if said else f"the far end's program ended with status {status}"
        raise CopyRefused(why) from None
    except ConnectionError:
        _, said = command.ended()
        why = said.splitlines()[-1] if said else "the far end closed the connection"
        raise CopyRefused(why) from None
    finally:
        shower.close()
    if result.get("fatal"):
        raise CopyRefused(str(result["fatal"]))
    command.ended()
    return _checked(result)


def _give(command: FarCommand, stream: Any, local: str, shower: Shower) -> dict[str, Any]:
    def interrupted() -> bool:
        return bool(select.select([command.socket], [], [], 0)[0])

    return copying.give(local, stream, stream, shower, interrupted)


def _take(stream: Any, local: str, dry: bool, shower: Shower) -> dict[str, Any]:
    taker = copying.Taker(local, dry, shower)
    try:
        return taker.take(stream, stream)
    finally:
        taker.close()


def _checked(result: dict[str, Any]) -> dict[str, Any]:
    """From a far end that may say anything."""
    numbers = {name: result.get(name) for name in ("files", "bytes", "same", "failures")}
    pairs = {name: result.get(name) for name in ("failed", "changes")}
    if not all(isinstance(each, int) for each in numbers.values()):
        raise CopyRefused("the other end's result cannot be read")
    for each in pairs.values():
        if not isinstance(each, list) or not all(
            isinstance(pair, list | tuple) and len(pair) == 2 for pair in each
        ):
            raise CopyRefused("the other end's result cannot be read")
    return {**numbers, **pairs}


class Shower:
    """Progress on a terminal's stderr: one line that changes in place."""

    def __init__(self) -> None:
        self._wanted = sys.stderr.isatty()
        self._began = time.monotonic()
        self._shown = 0.0

    def __call__(self, gone: int, total: int, path: str) -> None:
        now = time.monotonic()
        if not self._wanted or now - self._shown < _SHOW_EVERY:
            return
        self._shown = now
        rate = gone / max(now - self._began, 0.001)
        share = f"{100 * gone // total:3d} %" if total else "     "
        figures = f"{table.size(gone)} of {table.size(total)}  {table.size(int(rate))}/s"
        text = f"{share}  {figures}  {one_line(path)}"
        sys.stderr.write(f"\r{table.cut(text, (terminal_columns(sys.stderr) or 80) - 1)}\x1b[K")
        sys.stderr.flush()

    def close(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
