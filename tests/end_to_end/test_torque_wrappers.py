"""Torque's adapter with commands that are not its own: those of slurm-wlm-torque, over a real Slurm."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..sites.batch_notebook import Notebook
from ..sites.engine import Engine, collect, wait_until
from ..sites.slurm import SlurmSite
from ..sites.torque_wrappers import SlurmBelow, commands

pytestmark = [pytest.mark.servers, pytest.mark.long, pytest.mark.timeout(300)]


@pytest.fixture
def slurm(home: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmSite]:
    site = SlurmBelow(home.parent / "slurm")
    environment = {**site.environment, **commands(home.parent / "torque")}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    try:
        site.start()
        yield site
        engine.close()
        wait_until(lambda: not site.jobs(), "the jobs to be gone")
    finally:
        site.stop()


def open_notebook(engine: Engine, queue: str) -> Notebook:
    engine.target(
        "batch",
        address=f"torque:///{queue}",
        python=sys.executable,
        resources={"time": "10m", "memory": "200M"},
    )
    return Notebook("batch")


def test_from_the_queue_to_the_end(slurm: SlurmSite, engine: Engine) -> None:
    engine.entry("batch", "batch")
    queued = open_notebook(engine, "closed")
    queued.ready()
    queued.client.execute("1")
    queued.said("is queued in closed")
    assert slurm.jobs("PENDING")
    queued.close()
    wait_until(lambda: not slurm.jobs(), "the job to be cancelled")
    notebook = open_notebook(engine, "debug")
    try:
        notebook.ready()
        (job,) = slurm.jobs("RUNNING")
        code = "import os; print(os.environ['SLURM_JOB_ID'])"
        assert notebook.run(code) == job
        notebook.manager.restart_kernel()
        notebook.ready()
        assert notebook.run(code) == job
        msg_id = notebook.client.execute("import time; print('now', flush=True); time.sleep(100)")
        notebook.said("now")
        notebook.manager.interrupt_kernel()
        assert "KeyboardInterrupt" in collect(notebook.client, msg_id).error
        msg_id = notebook.client.execute("import time; time.sleep(100)")
        slurm.command("scancel", job)
        error = collect(notebook.client, msg_id, 60).error
        assert f"the Torque job {job} is over: " in error
    finally:
        notebook.close()


def test_a_refusal_is_read_out(slurm: SlurmSite, engine: Engine) -> None:
    engine.entry("batch", "batch")
    notebook = open_notebook(engine, "nosuch")
    try:
        (row,) = wait_until(lambda: [each for each in engine.kernels() if each["reason"]], "the refusal")
        assert "Torque refuses the job: sbatch: error: " in row["reason"]["text"]
        assert "Invalid partition name specified" in row["reason"]["text"]
    finally:
        notebook.close()
