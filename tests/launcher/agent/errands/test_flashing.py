"""`agent.errands.flashing` as a process of its own; with real esptools in tests/end_to_end/test_flash_far.py."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Told to end while it tidies up: the near end, having heard the answer, goes at once.
TOLD_TWICE = """
import os, shutil, signal
from farkernel.launcher.agent.errands import flashing

remove = shutil.rmtree

def told_first(*arguments, **settings):
    os.kill(os.getpid(), signal.SIGTERM)
    remove(*arguments, **settings)

shutil.rmtree = told_first
flashing.tools = lambda python: iter(())
flashing.main()
"""


@pytest.fixture
def port() -> Iterator[str]:
    ours, theirs = pty.openpty()
    yield os.ttyname(theirs)
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("refusal", ["no-esptool", "board-gone"])
def test_told_to_end_while_it_tidies_up_it_leaves_no_image(port: str, tmp_path: Path, refusal: str) -> None:
    if refusal == "board-gone":
        port += "-not-there"
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PATH": "/nowhere"}
    order = {"path": port, "size": 4, "python": "", "purpose": "a test"}
    done = subprocess.run(
        [sys.executable, "-c", TOLD_TWICE],
        input=json.dumps(order).encode() + b"\nfour",
        env=environment,
        capture_output=True,
        check=False,
    )
    assert json.loads(done.stdout)["refused"]["kind"] == refusal, done.stderr
    assert not list(tmp_path.iterdir())
