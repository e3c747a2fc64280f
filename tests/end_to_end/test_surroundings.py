"""What a target's configuration puts a kernel in, as a notebook sees it: its directory, modules, conda, a container."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from ..sites.engine import Engine, connected, run_cell, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


@contextmanager
def started(engine: Engine, cwd: Path | None = None) -> Iterator[BlockingKernelClient]:
    manager = KernelManager(kernel_name="here")
    manager.start_kernel(**({"cwd": str(cwd)} if cwd else {}))
    try:
        with connected(manager.connection_file) as client:
            yield client
    finally:
        manager.shutdown_kernel(now=True)


def test_a_notebooks_own_directory_is_not_worth_a_word(engine: Engine, home: Path) -> None:
    engine.target("here", kernel="python3")
    engine.entry("here", "here")
    (home / "project").mkdir()
    with started(engine, home / "project") as client:
        assert run_cell(client, "import os; print(os.getcwd())").text == f"{home}/project\n"


def test_another_directory_is_said_once(engine: Engine, home: Path) -> None:
    (home / "project").mkdir()
    (home / "data").mkdir()
    engine.target("here", kernel="python3", cwd="~/data")
    engine.entry("here", "here")
    with started(engine, home / "project") as client:
        # Before the kernel is there: it is said after what the waiting room said is cleared.
        text = run_cell(client, "import os; print(os.getcwd())").text
        assert text.splitlines()[-1] == f"{home}/data"
        (said,) = [line for line in text.splitlines() if line.startswith("[farkernel]")]
        assert said.startswith(f"[farkernel] this kernel works in {home}/data on ")
        assert said.endswith(f"(the target's `cwd`; the notebook is in {home}/project)")
        assert run_cell(client, "print(1)").text == "1\n"


def test_it_is_not_said_again_after_a_restart(engine: Engine, home: Path) -> None:
    (home / "data").mkdir()
    engine.target("here", kernel="python3", cwd="~/data")
    engine.entry("here", "here")
    manager = KernelManager(kernel_name="here")
    manager.start_kernel(cwd=str(home))
    with connected(manager.connection_file) as client:
        assert "works in" in run_cell(client, "print(1)").text
    manager.restart_kernel(now=True)
    with connected(manager.connection_file) as client:
        assert run_cell(client, "print(1)").text == "1\n"
    manager.shutdown_kernel(now=True)


def test_a_refusal_stands_in_the_cell(engine: Engine, home: Path) -> None:
    engine.target("here", kernel="python3", modules=["no-such-module"])
    engine.entry("here", "here")
    manager = KernelManager(kernel_name="here")
    manager.start_kernel()
    client = manager.blocking_client()
    client.start_channels()
    wait_until(lambda: engine.kernels()[0]["state"] == "ended", "the refusal")
    error = run_cell(client, "1").error
    assert "the module no-such-module could not be loaded: " in error
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_a_conda_environment_by_name(engine: Engine, home: Path) -> None:
    prefix = home / "miniforge3/envs/torch"
    (prefix / "conda-meta").mkdir(parents=True)
    (prefix / "bin").mkdir()
    (prefix / "bin/python").write_text(f'#!/bin/sh\nexport THROUGH="$0"\nexec {sys.executable} "$@"\n')
    (prefix / "bin/python").chmod(0o755)
    engine.target("here", conda="torch", before="export BEFORE=$CONDA_DEFAULT_ENV")
    engine.entry("here", "here")
    with started(engine) as client:
        code = "import os; print(*(os.environ[name] for name in ('THROUGH', 'CONDA_PREFIX', 'BEFORE')))"
        assert run_cell(client, code).text == f"{prefix}/bin/python {prefix} torch\n"
