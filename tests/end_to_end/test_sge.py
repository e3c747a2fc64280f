"""Kernels in jobs of a real Grid Engine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from farkernel.launcher.discovery.cluster import Gpus, read_cluster

from ..sites.batch_notebook import Notebook
from ..sites.engine import Engine, collect, wait_until
from ..sites.sge import GridEngineSite

# Grid Engine gives jobs an environment of their own, and the home of the password file.
PASSED = ["-v", "FARKERNEL_RUN_DIR,FARKERNEL_TEST,IPYTHONDIR"]

pytestmark = [pytest.mark.servers, pytest.mark.timeout(150)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridEngineSite]:
    site = GridEngineSite(tmp_path_factory.mktemp("sge"), gpus=2)
    try:
        site.start()
        yield site
    finally:
        site.stop()


@pytest.fixture
def sge(site: GridEngineSite, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[GridEngineSite]:
    for name, value in site.environment.items():
        monkeypatch.setenv(name, value)
    engine.target(
        "batch",
        address="sge:///all.q",
        python=sys.executable,
        resources={"time": "1h"},
        options=PASSED,
    )
    engine.entry("batch", "batch")
    yield site
    engine.close()
    wait_until(lambda: not site.jobs(), "the jobs to be gone", deadline=30)


def test_queue_restart_and_shutdown(sge: GridEngineSite, engine: Engine, notebooks: list[Notebook]) -> None:
    for _ in range(2):
        notebooks.append(Notebook("batch"))
        notebooks[-1].ready(60)
        assert notebooks[-1].run("print('here')", 60) == "here"
    notebooks.append(Notebook("batch"))
    first, _, third = notebooks
    code = "import os; print(os.environ['JOB_ID'])"
    job = first.run(code)
    assert job in sge.jobs()
    third.ready()
    msg_id = third.client.execute("print('at last')")
    third.said("is queued: it waits for free slots")
    first.manager.restart_kernel()
    first.ready()
    assert first.run(code) == job
    first.manager.shutdown_kernel()
    assert "at last\n" in collect(third.client, msg_id, 60).text
    assert job not in sge.jobs()
    assert os.environ["SGE_ROOT"]


def test_what_is_free(sge: GridEngineSite, engine: Engine, notebooks: list[Notebook]) -> None:
    engine.target("one", address="sge:///all.q", python=sys.executable, resources={"gpus": 1}, options=PASSED)
    engine.entry("one", "one")
    notebooks.append(Notebook("one"))
    notebooks[0].ready(60)
    notebooks[0].run("1", 60)
    found = engine.client.request("probe", targets=["one", "batch"], deadline=20)["targets"]
    assert found["one"] == found["batch"]  # one cluster, one question
    cluster = read_cluster(found["one"]["cluster"])
    assert cluster.problems == ()
    queue = cluster.queue("all.q")
    assert queue is not None
    assert (queue.cpus, queue.cpus_free, queue.gpus) == (2, 1, (Gpus(None, 2, 1),))
    (job,) = cluster.jobs
    assert (job.state, job.ours) == ("running", True)


def test_cancelled_by_somebody_else(sge: GridEngineSite, engine: Engine, notebooks: list[Notebook]) -> None:
    notebooks.append(Notebook("batch"))
    notebooks[0].ready(60)
    job = notebooks[0].run("import os; print(os.environ['JOB_ID'])")
    msg_id = notebooks[0].client.execute("import time; time.sleep(100)")
    sge.command("qdel", job)
    error = collect(notebooks[0].client, msg_id, 60).error
    assert f"the Grid Engine job {job} is over: it was killed by signal" in error
