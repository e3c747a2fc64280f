"""Recordings of what real schedulers said: ``$ command``, its stdout, lines of stderr after ``2>``, ``[rc=N]``."""

from __future__ import annotations

import re
from pathlib import Path

from farkernel.backends.batch.contract import Said

FIXTURES = Path(__file__).parent / "fixtures"


class Transcript:
    """One recording."""

    def __init__(self, name: str) -> None:
        text = (FIXTURES / f"{name}.txt").read_text()
        self._entries: list[tuple[str, Said]] = []
        for entry in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, rest = entry.partition("\n")
            body, _, status = rest.rpartition("[rc=")
            if not status:
                continue
            lines = body.splitlines(keepends=True)
            out = "".join(line for line in lines if not line.startswith("2> "))
            err = "".join(line.removeprefix("2> ") for line in lines if line.startswith("2> "))
            self._entries.append((command, Said(int(status.partition("]")[0]), out, err)))

    def said(self, command: str, which: int = 0) -> Said:
        """The answer to the command that begins so; the first, or another one, counted from 0 (or from the end)."""
        return [said for each, said in self._entries if each.startswith(command)][which]


def complaint(said: Said) -> Said:
    """The same where the recording did not keep stdout and stderr apart, and all of it was stderr."""
    return Said(said.status, "", said.out)
