"""Kernels in jobs of a PBS that answers as OpenPBS and Torque do; by the way that needs no command of the scheduler's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from farkernel.launcher.discovery.cluster import read_cluster

from ..sites.batch_notebook import Notebook
from ..sites.engine import Engine, collect, wait_until
from ..sites.pbs import PbsSite

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


@pytest.fixture(params=["pbs", "torque"])
def site(
    request: pytest.FixtureRequest, home: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PbsSite]:
    site = PbsSite(home / "pbs", request.param)
    monkeypatch.setenv("PATH", str(site.bin), prepend=os.pathsep)
    engine.target("batch", address=f"{request.param}:///workq", kernel="python3", resources={"time": "1h"})
    engine.entry("batch", "batch")
    yield site
    engine.close()
    site.stop()


@pytest.fixture
def notebooks() -> Iterator[list[Notebook]]:
    opened: list[Notebook] = []
    yield opened
    for each in opened:
        each.close()


def test_a_kernel_its_restart_and_its_end(site: PbsSite, engine: Engine, notebooks: list[Notebook]) -> None:
    notebook = Notebook("batch")
    notebooks.append(notebook)
    notebook.ready()
    code = "import os; print(os.environ['PBS_JOBID'])"
    (job,) = site.jobs("R")
    assert notebook.run(code) == job
    (held,) = engine.client.request("list")["allocations"]
    assert held["job"] == job
    assert 3000 < held["left"] <= 3600
    notebook.manager.restart_kernel()
    notebook.ready()
    assert notebook.run(code) == job
    notebook.manager.shutdown_kernel()
    wait_until(lambda: not site.jobs(), "the job to be cancelled")
    assert site.calls("qsub") == 1


def test_a_queue_and_the_time_limit(site: PbsSite, engine: Engine, notebooks: list[Notebook]) -> None:
    (site.directory / "slots").write_text("0")
    notebook = Notebook("batch")
    notebooks.append(notebook)
    notebook.ready()
    msg_id = notebook.client.execute("print('at last')")
    notebook.said("is queued in workq: Insufficient amount of resource: ncpus (R: 1 A: 0 T: 2)")
    (site.directory / "slots").write_text("1")
    assert collect(notebook.client, msg_id).text.endswith("at last\n")
    msg_id = notebook.client.execute("import time; time.sleep(100)")
    (job,) = site.jobs("R")
    site.limit_reached(job)
    error = collect(notebook.client, msg_id).error
    assert f"job {job} is over: its time limit was reached (01:00:00)" in error


def test_what_is_free_and_asked_for(site: PbsSite, engine: Engine, notebooks: list[Notebook]) -> None:
    engine.target("batch", address=f"{site.flavour}:///workq", kernel="python3", ask=["time"])
    notebook = Notebook("batch")
    notebooks.append(notebook)
    notebook.ready()
    msg_id = notebook.client.execute("print('there')")
    assert notebook.client.get_stdin_msg(timeout=30)["content"]["prompt"].startswith("Time")
    assert "There now: in workq, 2 of 2 CPUs free; " in notebook.said("There now")
    assert site.calls("qsub") == 0
    notebook.client.input("10m")
    assert collect(notebook.client, msg_id).text.endswith("there\n")
    found = engine.client.request("probe", targets=["batch"], deadline=20)["targets"]["batch"]
    cluster = read_cluster(found["cluster"])
    assert cluster.problems == ()
    assert [(queue.name, queue.time_limit) for queue in cluster.queues] == [("workq", 12 * 3600)]
    assert site.calls("pbsnodes") == 1  # what was looked at for the question is fresh enough
