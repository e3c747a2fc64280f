"""Kernels in jobs of a real Slurm, from the notebook's side."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from ..conftest import MARKER
from ..sites.engine import DEADLINE, Engine, run_cell, wait_until
from ..sites.slurm import SlurmSite

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmSite]:
    site = SlurmSite(tmp_path_factory.mktemp("slurm"))
    try:
        site.start()
        yield site
    finally:
        site.stop()


@pytest.fixture
def slurm(site: SlurmSite, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmSite]:
    for name, value in site.environment.items():
        monkeypatch.setenv(name, value)
    yield site
    engine.close()
    wait_until(lambda: not site.jobs(), "the jobs to be gone", deadline=20)


def start(engine: Engine, name: str = "gpu") -> tuple[KernelManager, BlockingKernelClient]:
    manager = KernelManager(kernel_name=name)
    manager.start_kernel()
    client = BlockingKernelClient()
    client.load_connection_file(manager.connection_file)
    client.start_channels()
    return manager, client


def test_a_kernel_in_a_job(slurm: SlurmSite, engine: Engine) -> None:
    engine.target("gpu", address="slurm:///gpu", kernel="python3", resources={"gpus": 1, "time": "20m"})
    engine.entry("gpu", "gpu")
    manager, client = start(engine)
    client.wait_for_ready(timeout=DEADLINE)
    code = "import os; print(os.environ['SLURM_JOB_ID'], os.environ['CUDA_VISIBLE_DEVICES'])"
    (job,) = slurm.jobs("RUNNING")
    assert run_cell(client, code).text == f"{job} 0\n"
    client.stop_channels()
    manager.shutdown_kernel()
