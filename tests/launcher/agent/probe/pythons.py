"""Interpreters that the probe must run in: those that are installed here, or at least our own."""

from __future__ import annotations

import sys
from pathlib import Path

PYTHONS = sorted((Path.home() / ".pyenv" / "versions").glob("3.*/bin/python")) or [Path(sys.executable)]
