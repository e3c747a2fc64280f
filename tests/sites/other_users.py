"""Other users of this machine: they own nothing of ours, and need no entry in passwd(5)."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

UIDS = (60001, 60002)
PYTHON = "/usr/bin/python3"  # one that every user may run


@contextlib.contextmanager
def open_directory(mode: int = 0o755) -> Iterator[Path]:
    """One that they can enter; pytest closes all that it makes itself."""
    place = Path(tempfile.mkdtemp(prefix="fk-open-", dir="/tmp"))
    try:
        place.chmod(mode)
        yield place
    finally:
        shutil.rmtree(place)
