"""Kernels in jobs of a real HTCondor, of the releases of two Debians."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..sites.accounts import account
from ..sites.batch_notebook import Notebook
from ..sites.condor import VERSIONS, CondorSite
from ..sites.engine import Engine, collect, wait_until
from ..sites.netns import Network

pytestmark = [pytest.mark.servers, pytest.mark.long, pytest.mark.timeout(1200)]

IDLE, RUNNING, HELD = 1, 2, 5


@pytest.fixture(scope="module", params=VERSIONS)
def site(request: pytest.FixtureRequest, session_home: Path) -> Iterator[CondorSite]:
    # Not beside pytest's own directories: these are closed to other users whenever some pytest begins.
    root = session_home.parent / f"condor-{request.param}"
    root.mkdir()
    with Network() as network, account(root) as user:
        site = CondorSite(root, network, request.param, user)
        try:
            site.start()
            assert VERSIONS[request.param] in site.command("condor_version")
            yield site
        finally:
            site.stop()


@pytest.fixture
def condor(site: CondorSite, engine: Engine) -> Iterator[CondorSite]:
    target(site, engine)
    engine.entry("batch", "batch")
    yield site
    engine.close()
    wait_until(lambda: not site.jobs(), "the queue to be empty")


def target(site: CondorSite, engine: Engine, **resources: str) -> None:
    engine.target(
        "batch",
        address=f"htcondor://{site.login.user}@{site.login.address_there}",
        ssh_config=str(site.login.client_config),
        python="/usr/bin/python3",
        resources={"memory": "300M", "time": "1h", **resources},
    )


def test_a_kernel_and_the_end_by_somebody_else(
    condor: CondorSite, engine: Engine, notebooks: list[Notebook]
) -> None:
    notebooks.append(Notebook("batch"))
    (notebook,) = notebooks
    notebook.ready()
    assert notebook.run("print(6 * 7)", 120) == "42"
    (job,) = condor.jobs(RUNNING)
    (held,) = engine.client.request("list")["allocations"]
    assert (held["job"], held["where"]) == (job, "localhost")
    assert 3400 < held["left"] <= 3600
    notebook.manager.restart_kernel()
    notebook.ready(60)
    msg_id = notebook.client.execute("import time; print('now', flush=True); time.sleep(100)")
    notebook.said("now", 60)
    assert list(condor.jobs(RUNNING)) == [job]
    notebook.manager.interrupt_kernel()
    assert "KeyboardInterrupt" in collect(notebook.client, msg_id).error
    msg_id = notebook.client.execute("import time; time.sleep(100)")
    condor.command("condor_rm", "-reason", "the room is closed", job)
    error = collect(notebook.client, msg_id, 60).error
    assert (
        f"the HTCondor job {job} is over: it was cancelled (the room is closed (by user condor))" in error
    )  # root, for it


def test_a_queue_and_a_hold(condor: CondorSite, engine: Engine, notebooks: list[Notebook]) -> None:
    notebooks.append(Notebook("batch"))
    wait_until(lambda: condor.jobs(RUNNING), "the first job to run", 60)
    notebooks.append(Notebook("batch"))
    waiting = notebooks[1]
    waiting.ready()
    msg_id = waiting.client.execute("print('at last')")
    waiting.said("is queued: ", 60)
    (job,) = condor.jobs(IDLE)
    condor.as_user("condor_hold", "-reason", "not today", job)
    assert "is held: not today" in waiting.said("is held", 60)
    condor.as_user("condor_release", job)
    waiting.said("is queued: ", 60)
    notebooks[0].close()
    assert collect(waiting.client, msg_id, 120).text.endswith("at last\n")


def test_cancelled_while_it_waits(condor: CondorSite, engine: Engine, notebooks: list[Notebook]) -> None:
    target(condor, engine, memory="100G")  # there is no such machine
    notebooks.append(Notebook("batch"))
    (notebook,) = notebooks
    notebook.ready()
    msg_id = notebook.client.execute("1")
    notebook.said("is queued: ", 60)
    notebook.manager.interrupt_kernel()
    assert "interrupted while waiting" in collect(notebook.client, msg_id).error
    assert condor.jobs(IDLE)
    notebook.close()
    wait_until(lambda: not condor.jobs(), "the job to be cancelled")


def test_the_time_limit(condor: CondorSite, engine: Engine, notebooks: list[Notebook]) -> None:
    target(condor, engine, time="1m")
    notebooks.append(Notebook("batch"))
    (notebook,) = notebooks
    notebook.ready()
    msg_id = notebook.client.execute("import time; time.sleep(300)")
    error = collect(notebook.client, msg_id, 240).error
    assert "is over: its time limit was reached" in error
    wait_until(lambda: not condor.jobs(), "the job to leave the queue", 60)
