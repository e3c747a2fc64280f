"""Kernels in jobs of a PBS that answers as OpenPBS and Torque do; by the way that needs no command of the scheduler's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from farkernel.launcher.discovery.cluster import read_cluster

from ..sites.batch_notebook import Notebook
from ..sites.engine import Engine, collect, wait_until
from ..sites.pbs import PbsSite
from ..sites.ssh import Sshd

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


def test_the_stand_in_says_what_the_real_ones_said(site: PbsSite, tmp_path: Path) -> None:
    """As the transcripts have it (tests/backends/batch/fixtures): unknown, finished, no such queue."""

    def run(*argv: str) -> tuple[int, str]:
        program, *arguments = argv
        done = subprocess.run(
            [site.bin / program, *arguments], input="exit 0\n", capture_output=True, text=True, check=False
        )
        return done.returncode, done.stderr.strip()

    torque = site.flavour == "torque"
    assert run("qsub", "-N", "x", "-q", "nosuch") == (170, "qsub: Unknown queue")
    error = "Unknown Job Id Error" if torque else "Unknown Job Id"
    assert run("qstat", "-f", "99999") == (153, f"qstat: {error} 99999.ctl")
    unknown = "nonexistent job id: 99999" if torque else "Unknown Job Id 99999.ctl"
    assert run("qdel", "99999") == (153, f"qdel: {unknown}")
    run("qsub", "-N", "x")
    wait_until(lambda: not site.jobs(), "the job to end")
    if torque:
        why = "Request invalid for state of job MSG=invalid state for job - COMPLETE"
        assert run("qdel", "0") == (170, f"qdel: {why} 0.ctl")
        assert run("qstat", "-f", "0.ctl") == (0, "")
    else:
        assert run("qdel", "0") == (35, "qdel: Job has finished 0.ctl")
        history = "use -x or -H to obtain historical job information"
        assert run("qstat", "-f", "0.ctl") == (35, f"qstat: 0.ctl Job has finished, {history}")
        assert run("qstat", "-x", "-f", "0.ctl") == (0, "")


@pytest.fixture
def login(site: PbsSite, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    """The commands are there, and not here."""
    monkeypatch.setenv("PATH", os.environ["PATH"].replace(f"{site.bin}{os.pathsep}", ""))
    with Sshd(home.parent / "sshd") as host:
        host.environment["PATH"] = f"{site.bin}:{host.environment['PATH']}"
        host.write_client_config()
        host.restart()
        engine.target(
            "batch",
            address=host.address.replace("ssh://", f"{site.flavour}://") + "/workq",
            ssh_config=str(host.client_config),
            kernel="python3",
            resources={"time": "1h"},
        )
        yield host
        engine.close()


def test_through_a_login_host(login: Sshd, site: PbsSite, engine: Engine, notebooks: list[Notebook]) -> None:
    """Queue, kernel, restart, somebody else's qdel: all over one login."""
    (site.directory / "slots").write_text("0")
    notebook = Notebook("batch")
    notebooks.append(notebook)
    notebook.ready()
    msg_id = notebook.client.execute("import os; print(os.environ['PBS_JOBID'])")
    notebook.said("is queued in workq: Insufficient amount of resource: ncpus (R: 1 A: 0 T: 2)")
    (site.directory / "slots").write_text("1")
    assert collect(notebook.client, msg_id).text.endswith("0.ctl\n")
    notebook.manager.restart_kernel()
    notebook.ready()
    assert site.jobs("R") == ["0.ctl"]
    msg_id = notebook.client.execute("import time; time.sleep(100)")
    subprocess.run([str(site.bin / "qdel"), "0"], check=True)
    error = collect(notebook.client, msg_id).error
    assert "job 0.ctl is over: it was cancelled by root@login" in error
    assert (site.calls("qsub"), login.logins(), login.agents()) == (1, 1, [])


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
