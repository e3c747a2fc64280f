"""Kernels in jobs of a real OAR."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..sites.accounts import account
from ..sites.batch_notebook import Notebook
from ..sites.engine import Engine, collect, wait_until
from ..sites.netns import Network
from ..sites.oar import VERSIONS, OarSite

pytestmark = [pytest.mark.servers, pytest.mark.long, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module", params=VERSIONS)
def site(request: pytest.FixtureRequest, session_home: Path) -> Iterator[OarSite]:
    # Not beside pytest's own directories: these are closed to other users whenever some pytest begins.
    root = session_home.parent / f"oar-{request.param}"
    root.mkdir()
    with Network() as network, account(root) as user:
        site = OarSite(root, network, request.param, user)
        try:
            site.start()
            assert VERSIONS[request.param] in site.command("oarstat", "--version")
            yield site
        finally:
            site.stop()


@pytest.fixture
def oar(site: OarSite, engine: Engine) -> Iterator[OarSite]:
    target(site, engine)
    engine.entry("batch", "batch")
    yield site
    engine.close()
    wait_until(lambda: not site.jobs(), "the queue to be empty")


def target(site: OarSite, engine: Engine, **resources: str) -> None:
    engine.target(
        "batch",
        address=f"oar://{site.login.user}@{site.login.address_there}",
        ssh_config=str(site.login.client_config),
        python="/usr/bin/python3",
        resources={"time": "1h", **resources},
    )


def test_a_kernel_and_the_end_by_somebody_else(
    oar: OarSite, engine: Engine, notebooks: list[Notebook]
) -> None:
    notebooks.append(Notebook("batch"))
    (notebook,) = notebooks
    notebook.ready()
    code = "import os; print(os.environ['OAR_JOB_ID'])"
    job = notebook.run(code, 120)
    assert list(oar.jobs("Running")) == [job]
    (held,) = engine.client.request("list")["allocations"]
    assert (held["job"], held["where"]) == (job, "c1")
    assert 3400 < held["left"] <= 3600
    notebook.manager.restart_kernel()
    notebook.ready(60)
    assert notebook.run(code, 60) == job
    msg_id = notebook.client.execute("import time; print('now', flush=True); time.sleep(100)")
    notebook.said("now", 60)
    notebook.manager.interrupt_kernel()
    assert "KeyboardInterrupt" in collect(notebook.client, msg_id).error
    msg_id = notebook.client.execute("import time; time.sleep(100)")
    oar.command("oardel", job)
    error = collect(notebook.client, msg_id, 60).error
    assert f"the OAR job {job} is over: it was cancelled by root" in error


def test_a_queue_and_a_hold(oar: OarSite, engine: Engine, notebooks: list[Notebook]) -> None:
    notebooks.append(Notebook("batch"))
    wait_until(lambda: oar.jobs("Running"), "the first job to run", 60)
    notebooks.append(Notebook("batch"))
    waiting = notebooks[1]
    waiting.ready()
    msg_id = waiting.client.execute("print('at last')")
    waiting.said("is queued in default: it waits for free resources", 60)
    (job,) = oar.jobs("Waiting")
    oar.as_user("oarhold", job)
    words = waiting.said("is held", 60)
    assert f"launched oarhold on the job {job}; let it go with: oarresume {job}" in words
    oar.as_user("oarresume", job)
    waiting.said("is queued in default: ", 60)
    waiting.manager.interrupt_kernel()
    assert "interrupted while waiting" in collect(waiting.client, msg_id).error
    waiting.close()
    wait_until(lambda: job not in oar.jobs(), "the job that waits to be cancelled")
    assert len(oar.jobs("Running")) == 1


def test_the_time_limit(oar: OarSite, engine: Engine, notebooks: list[Notebook]) -> None:
    target(oar, engine, time="1m")
    notebooks.append(Notebook("batch"))
    (notebook,) = notebooks
    notebook.ready()
    msg_id = notebook.client.execute("import time; time.sleep(300)")
    assert "is over: its time limit was reached" in collect(notebook.client, msg_id, 240).error
