"""What the README promises a new user, done from the README's own text."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ..sites.engine import Engine, wait_until
from ..sites.notebook_server import NotebookServer

ROOT = Path(__file__).parent.parent.parent

pytestmark = [pytest.mark.servers, pytest.mark.long, pytest.mark.timeout(600)]


def quick_start() -> list[list[str]]:
    """The commands of the README's first block under "Quick start"."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"## Quick start\n+```\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return [shlex.split(line) for line in block[1].splitlines()]


def test_from_an_empty_machine_to_a_kernel_in_the_menu(
    engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Python environment with nothing in it, a home with nothing in it, three commands, JupyterLab."""
    commands = quick_start()
    assert len(commands) <= 3
    place = home / "env"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    source = home / "farkernel"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True)
    monkeypatch.setenv("PATH", f"{place / 'bin'}:/usr/bin:/bin")
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        monkeypatch.delenv(name, raising=False)
    for command in commands:
        # It is not in the registry at this version: what is tested is what is here.
        words = [str(source) if word == "farkernel" and command[0] == "pip" else word for word in command]
        ended = subprocess.run(
            words, cwd=home, capture_output=True, text=True, check=False, timeout=400, env=dict(os.environ)
        )
        assert ended.returncode == 0, ended.stderr + ended.stdout
    with NotebookServer(home, str(place / "bin" / "python"), "jupyterlab") as server:
        specs = server.rest("GET", "api/kernelspecs")["kernelspecs"]
        assert specs["here"]["spec"]["display_name"] == "here · Python"
        assert {"logo-svg", "logo-64x64"} <= specs["here"]["resources"].keys()
        with server.session("a.ipynb", "here") as session:
            outcome = session.run("import sys; print(sys.prefix)")
            assert outcome.text == f"{place}\n"
            server.rest("DELETE", f"api/sessions/{session.id}")
    wait_until(lambda: not engine.far_processes(), "the kernel to end")
