"""A host over SSH that has only an old Python, with kernels that bring their own; and hosts that have none."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ..sites.engine import Engine, run_cell, wait_until
from ..sites.far import Notebook
from ..sites.pythons import OLDEST
from ..sites.ssh import Sshd

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


@pytest.fixture
def host(engine: Engine, home: Path) -> Iterator[Sshd]:
    """On its PATH is nothing but that Python: neither another one, nor any program at all."""
    programs = home.parent / "programs"
    programs.mkdir()
    (programs / "python3").symlink_to(OLDEST)
    with Sshd(home.parent / "sshd") as host:
        host.environment["PATH"] = str(programs)
        host.restart()
        host.write_client_config()
        engine.target("far", address=host.address, kernel="own", ssh_config=str(host.client_config))
        engine.kernelspec("own", [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"])
        yield host
        engine.close()
        wait_until(lambda: not host.agents(), "the far agent to end", 20)


def version(python: str) -> str:
    command = [python, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def farkernel(*arguments: str, status: int = 0) -> Any:
    command = [sys.executable, "-P", "-m", "farkernel", *arguments, "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == status, (ended.stdout, ended.stderr)
    return json.loads(ended.stdout)


def test_a_kernel_with_its_own_python_runs_where_only_an_old_one_is_found(engine: Engine, host: Sshd) -> None:
    """The agent in the oldest Python that there is here; cut, interrupted and started again, as anywhere."""
    with Notebook(engine) as notebook:
        said = run_cell(notebook.client, "import sys; x = 41; print(sys.version)", 60).text
        assert version(sys.executable) in said
        agents = {psutil.Process(pid).exe() for pid in host.agents()}
        assert agents == {os.path.realpath(OLDEST)}
        print(f"\nthe agent runs in Python {version(OLDEST)}")
        host.restart()
        assert run_cell(notebook.client, "print(x + 1)").text.endswith("42\n")
        cell = notebook.client.execute("import time; print('sleep' + 'ing', flush=True); time.sleep(60)")
        notebook.shown("sleeping")
        notebook.interrupt()
        message, _ = notebook.shown("KeyboardInterrupt")
        assert message["parent_header"]["msg_id"] == cell


def test_every_errand_runs_there_too(engine: Engine, host: Sshd, home: Path) -> None:
    """Scan, resources, copies and doctor: programs that travel when they are asked for."""
    assert "own" in [row["name"] for row in farkernel("scan", "far")["kernelspecs"]]
    (machine,) = farkernel("resources", "far")
    assert machine["ok"], machine
    (home.parent / "data").write_bytes(b"x" * 100_000)
    there = home.parent / "there"
    farkernel("sync", "far", str(home.parent / "data"), str(there / "data"), "--no-rsync")
    assert (there / "data").read_bytes() == b"x" * 100_000
    found = {step["step"]: step for step in farkernel("doctor", "far", status=1)["steps"]}
    assert [name for name, step in found.items() if step["state"] != "ok"] == ["menu entry"]
    assert f"version {version(OLDEST)}" in found["Python"]["what"]
    assert re.search(r"first reply after .* python 3\.", found["kernel"]["what"])
