"""Pieces of /proc and /sys below a directory, for parsers that take a root."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def plant(root: Path, files: Mapping[str, str], links: Mapping[str, str] | None = None) -> str:
    """Write the files and make the links; the root as the parsers take it."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name, target in (links or {}).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(target, path)
    return str(root)
