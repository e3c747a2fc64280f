"""Interpreters that the probe must run in: those that are installed here, the oldest first, or at least our own."""

from __future__ import annotations

import re
import sys
from pathlib import Path


def _version(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.parts[-3])]


PYTHONS = sorted((Path.home() / ".pyenv" / "versions").glob("3.*/bin/python"), key=_version) or [
    Path(sys.executable)
]
OLDEST = str(PYTHONS[0])
