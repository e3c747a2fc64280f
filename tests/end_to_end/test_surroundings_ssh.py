"""The same over SSH: conda, another directory, and files, with a real sshd that allows one session."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

from ..sites.engine import Engine, connected, run_cell, wait_until
from ..sites.ssh import Sshd

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


@pytest.fixture
def host(engine: Engine, home: Path) -> Iterator[Sshd]:
    with Sshd(home.parent / "sshd", {"MaxSessions": "1"}) as host:
        host.write_client_config()
        yield host
        engine.close()
        wait_until(lambda: not host.agents(), "the far agent to end", 15)


def far(engine: Engine, host: Sshd, **more: Any) -> None:
    engine.target("far", address=host.address, ssh_config=str(host.client_config), **more)


def farkernel(*arguments: str, status: int = 0) -> Any:
    command = [sys.executable, "-P", "-m", "farkernel", *arguments, "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    assert ended.returncode == status, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize("how", [pytest.param([], id="rsync"), pytest.param(["--no-rsync"], id="own")])
def test_files_go_over_the_connection_that_is_there(
    engine: Engine, host: Sshd, home: Path, how: list[str]
) -> None:
    far(engine, host)
    data = home.parent / "data"
    (data / "deep").mkdir(parents=True)
    (data / "deep/file").write_bytes(b"x" * 2_000_000)
    there = home.parent / "there"
    assert farkernel("sync", "far", str(data), str(there), *how)["bytes"] == 2_000_000
    assert (there / "deep/file").read_bytes() == b"x" * 2_000_000
    farkernel("sync", "far", str(home.parent / "back"), str(there), "--from", *how)
    assert (home.parent / "back/deep/file").stat().st_size == 2_000_000
    assert host.logins() == 1


def test_a_conda_environment_and_another_directory(engine: Engine, host: Sshd, home: Path) -> None:
    prefix = home.parent / "conda/envs/torch"
    (prefix / "conda-meta").mkdir(parents=True)
    (prefix / "bin").mkdir()
    (prefix / "bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (prefix / "bin/python").chmod(0o755)
    (home.parent / "work").mkdir()
    far(engine, host, conda=str(prefix), cwd=str(home.parent / "work"))
    engine.entry("far", "far")
    manager = KernelManager(kernel_name="far", transport="ipc")
    manager.start_kernel(cwd=str(home))
    try:
        with connected(manager.connection_file) as client:
            code = "import os; print(os.getcwd(), os.environ['CONDA_DEFAULT_ENV'])"
            text = run_cell(client, code).text
            assert text.splitlines()[-1] == f"{home.parent}/work torch"
            assert f"[farkernel] this kernel works in {home.parent}/work on " in text
    finally:
        manager.shutdown_kernel(now=True)
