"""Other programs of our field, each in a virtual environment of its own, kept in the user's cache for the next run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

INSTALL_DEADLINE = 600


def environment(name: str, packages: Sequence[str]) -> Path:
    """The Python that has them; raises `CalledProcessError` with pip's words."""
    wanted = hashlib.sha256("\n".join([sys.version, *packages]).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = cache / "farkernel-bench" / f"{name}-{wanted}"
    python = place / "bin" / "python"
    done = place / "complete"
    if not done.exists():
        print(f"installing {name} into {place} (once)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
        subprocess.run(pip, check=True, timeout=INSTALL_DEADLINE, capture_output=True, text=True)
        done.touch()
    return python


def version(python: Path, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run(
        [str(python), "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()
