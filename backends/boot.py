"""The first words with a far end: the script that finds a Python and the agent, and the reader of its answers.

The script goes to the stdin of a plain ``/bin/sh -s``: no quoting is needed that a login shell could spoil, and a shell
that reads ahead finds nothing, because the keeper stays silent until the far end has spoken (docs/architecture.md §3).
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import shlex
from collections.abc import Sequence
from typing import Any

from ..launcher.errors import FarkernelError
from ..launcher.text import one_line
from .archive import Archive, loader_text, places_text

__all__ = ["PYTHONS", "Archive", "Boot", "BootError", "Greeting", "places_text"]

_MOST_NOISE = 64 * 1024
_LONGEST_LINE = 64 * 1024

# The order in which Pythons are tried when the configuration names none: the plain names first, then newest to oldest.
PYTHONS = (
    "python3",
    *(f"python3.{minor}" for minor in range(15, 5, -1)),
    "python",
    "/usr/libexec/platform-python",
)

_SCRIPT = """\
FARKERNEL_UMASK=$(umask)
export FARKERNEL_UMASK
umask 077
FARKERNEL_LOADER={loader}
FARKERNEL_BOOT={arguments}
export FARKERNEL_LOADER FARKERNEL_BOOT
tried=
for python in {pythons}; do
  command -v "$python" >/dev/null 2>&1 || continue
  "$python" -S -c 'import sys; sys.path = [_ for _ in sys.path if _]
import os; exec(os.environ.pop("FARKERNEL_LOADER"))'
  status=$?
  [ $status -eq 99 ] || exit $status
  tried="$tried $python"
done
printf '\\n%s nopython %s\\n' {nonce} "$tried"
exit 1
"""


class BootError(FarkernelError):
    """The agent could not be reached or started; ``final`` when trying again would not help."""

    kind = "boot"

    def __init__(self, what: str, advice: str, final: bool) -> None:
        super().__init__(what, advice)
        self.final = final


class NoPython(BootError):
    """No usable Python at the far end."""

    kind = "no-python"

    def __init__(self, tried: Sequence[str], too_old: str) -> None:
        found = f"only too old or incomplete ones ({too_old})" if too_old else "none"
        super().__init__(
            f"no Python 3.6 or newer was found there: of {', '.join(_shortly(tried))}, {found}",
            'Install one, or say where it is: agent_python = "/path/to/python3" in the target\'s configuration',
            final=True,
        )


def _shortly(tried: Sequence[str]) -> list[str]:
    """The long row of versions, if it is among them, as its ends."""
    row = [name for name in tried if name.startswith("python3.") and name in PYTHONS]
    if len(row) < 3:
        return list(tried)
    ends = {row[0]: f"{row[0]} to {row[-1]}"}
    return [ends.get(name, name) for name in tried if name not in row[1:]]


class Boot:
    """One try: the command to run, the script to send it, and the reader of what it says."""

    command = ("/bin/sh", "-s")

    def __init__(self, archive: Archive, allocation: str, hello: bytes, pythons: Sequence[str] = ()) -> None:
        self._archive = archive
        self._pythons = tuple(pythons) or PYTHONS
        self._nonce = secrets.token_hex(16)
        arguments = [
            self._nonce,
            archive.sha256,
            str(archive.size),
            allocation,
            base64.b64encode(hello).decode(),
        ]
        self.script = _SCRIPT.format(
            loader=shlex.quote(loader_text()),
            arguments=shlex.quote(" ".join(arguments)),
            pythons=" ".join(map(shlex.quote, self._pythons)),
            nonce=self._nonce,
        ).encode()

    def greeting(self) -> Greeting:
        return Greeting(self._nonce, self._archive, self._pythons)


class Greeting:
    """Reads the far end's first words: skips noise, answers `need`, and knows where the link's bytes begin."""

    def __init__(self, nonce: str, archive: Archive, pythons: Sequence[str]) -> None:
        self._mark = nonce.encode() + b" "
        self._archive = archive
        self._pythons = pythons
        self._seen = b""
        self.linked = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Returns (bytes of the link, bytes to send); raises `BootError`."""
        self._seen += data
        while True:
            start = self._seen.find(self._mark)
            if start < 0:
                if len(self._seen) > _MOST_NOISE:
                    raise self._noise()
                return b"", b""
            line, newline, rest = self._seen[start + len(self._mark) :].partition(b"\n")
            if not newline:
                if len(line) > _LONGEST_LINE:
                    raise self._noise()
                return b"", b""
            self._seen = rest
            word, _, text = line.decode("utf-8", "replace").partition(" ")
            if word == "link":
                self.linked, self._seen = True, b""
                return rest, b""
            if word == "need":
                return b"", self._archive.content
            raise self._error(word, text)

    def ended(self, said: str) -> BootError:
        """The stream ended before the link began."""
        shown = one_line(said or self._seen[-500:].decode("utf-8", "replace"))[-500:]
        return BootError(
            f"the far end closed the connection before the agent answered{': ' + shown if shown else ''}",
            "Try the same by hand; a login shell that does not run commands looks like this",
            final=False,
        )

    def _noise(self) -> BootError:
        return BootError(
            "the far end printed more than 64 KiB before the agent answered",
            "Look at the shell's start-up files there: something in them prints without end",
            final=True,
        )

    def _error(self, word: str, text: str) -> BootError:
        if word == "nopython":
            return NoPython(self._pythons, one_line(text)[:1000])
        error: dict[str, Any] = {}
        if word == "error":
            try:
                error = dict(json.loads(text))
            except (ValueError, TypeError):
                error = {"what": text}
        what = one_line(error.get("what", f"the far end said {word[:100]!r}"))[:1000]
        return BootError(what, one_line(error.get("advice", ""))[:1000], final=bool(error.get("final", True)))
