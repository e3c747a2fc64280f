"""The interpreters that our programs for far ends must run in: those that are installed here, the oldest first.

They are looked for on PATH and where pyenv keeps them, when the tests are collected: later HOME is a test's own.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

_MINORS = range(6, 16)


def _version(path: Path) -> tuple[int, ...]:
    """Of an interpreter of pyenv's, whose directory is named by it."""
    return tuple(int(number) for number in re.findall(r"\d+", path.parts[-3]))


def _find() -> list[Path]:
    """One of each minor version."""
    found: dict[int, Path] = {}
    for path in sorted((Path.home() / ".pyenv" / "versions").glob("3.*.*/bin/python"), key=_version):
        # Not one of its environments, and none that is too old.
        if re.fullmatch(r"3\.\d+\.\d+", path.parts[-3]) and _version(path)[1] in _MINORS:
            found[_version(path)[1]] = path
    for minor in _MINORS:
        path_there = shutil.which(f"python3.{minor}")
        if minor not in found and path_there is not None and "/shims/" not in path_there:
            found[minor] = Path(path_there)
    found.setdefault(sys.version_info.minor, Path(sys.executable))
    return [found[minor] for minor in sorted(found)]


PYTHONS = _find()
OLDEST = str(PYTHONS[0])
"""3.6 on the machines that our tests run on, which is the oldest that the agent must run in."""
