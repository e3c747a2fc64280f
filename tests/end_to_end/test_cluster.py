"""What becomes of jobs on a cluster of whole machines, and which ways lead into them: a real Slurm with accounts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ..sites import cluster_engines
from ..sites.accounts import account
from ..sites.batch_notebook import Notebook, kill_keeper
from ..sites.cluster import ClusterSite, NodeSshd, UserSshd
from ..sites.engine import Engine, collect, run_cell, wait_until
from ..sites.netns import Network

# One after the other: the machines' control groups and names are there once.
pytestmark = [pytest.mark.servers, pytest.mark.timeout(150), pytest.mark.xdist_group("cluster")]


@pytest.fixture(scope="module")
def site() -> Iterator[ClusterSite]:
    # Sockets lie in it: pytest's own directories have longer paths than those may have.
    root = Path(tempfile.mkdtemp(prefix="c", dir=os.environ["FARKERNEL_TEST"]))
    with Network() as network:
        site = ClusterSite(root, network, accounts=True)
        try:
            site.start()
            yield site
        finally:
            site.stop()


@pytest.fixture
def cluster(site: ClusterSite, engine: Engine) -> Iterator[ClusterSite]:
    target(site, engine)
    engine.entry("batch", "batch")
    yield site
    engine.close()
    wait_until(lambda: not site.jobs(), "the jobs to be gone", deadline=20)


def target(site: ClusterSite, engine: Engine, partition: str = "debug", **settings: object) -> None:
    engine.target(
        "batch",
        **{
            "address": f"slurm://root@{site.address}/{partition}",
            "ssh_config": str(site.login.client_config),
            "python": sys.executable,
            "resources": {"memory": "300M", "time": "30m"},
            **settings,
        },
    )


@pytest.fixture
def start(cluster: ClusterSite, notebooks: list[Notebook]) -> Callable[[], Notebook]:
    def start() -> Notebook:
        notebook = Notebook("batch")
        notebooks.append(notebook)
        notebook.ready(60)
        return notebook

    return start


def way(engine: Engine) -> str:
    (held,) = engine.client.request("list")["allocations"]
    return str(held["way"])


def test_a_kernel_on_a_node(cluster: ClusterSite, start: Callable[[], Notebook], engine: Engine) -> None:
    notebook = start()
    assert notebook.run("import os; print(os.uname().nodename)") == "c1"
    assert way(engine) == "step"


# -- what becomes of jobs --------------------------------------------------------------------------


def only_job(cluster: ClusterSite) -> str:
    (job,) = cluster.jobs("RUNNING")
    return str(job)


def busy(notebook: Notebook) -> str:
    """A cell that runs until the end."""
    msg_id = notebook.client.execute("print('at it', flush=True); import time; time.sleep(1000)")
    notebook.said("at it")
    return str(msg_id)


def test_who_cancelled_it(cluster: ClusterSite, start: Callable[[], Notebook]) -> None:
    notebook = start()
    msg_id, job = busy(notebook), only_job(cluster)
    cluster.command("scancel", job)
    error = collect(notebook.client, msg_id).error
    assert f"the Slurm job {job} is over: it was cancelled by root" in error


def test_a_kernel_takes_too_much_memory(cluster: ClusterSite, start: Callable[[], Notebook]) -> None:
    """The system ends the kernel and not the job: a restart goes on in it."""
    notebook = start()
    job = only_job(cluster)
    msg_id = notebook.client.execute("hog = bytearray(500 << 20)")
    error = collect(notebook.client, msg_id).error
    assert "Out of memory: the system killed it (the limit is 300 MiB, the peak was " in error
    notebook.manager.restart_kernel()
    notebook.ready()
    assert notebook.run("import os; print(os.environ['SLURM_JOB_ID'])") == job


GREEDY = """
import os
for each in filter(str.isdigit, os.listdir("/proc")):
    try:
        command = open(f"/proc/{each}/cmdline").read()
    except OSError:
        continue
    if "fk-" in command and "sys.path.pop" in command:
        open(f"/proc/{each}/oom_score_adj", "w").write("1000")
hog = bytearray(500 << 20)
"""


def test_a_job_ends_for_want_of_memory(cluster: ClusterSite, start: Callable[[], Notebook]) -> None:
    """What the system ends is the agent, and the job with it."""
    notebook = start()
    job = only_job(cluster)
    error = collect(notebook.client, notebook.client.execute(GREEDY), 60).error
    assert f"the Slurm job {job} is over: it ran out of memory (it had 300M and used " in error


def test_preempted(cluster: ClusterSite, start: Callable[[], Notebook]) -> None:
    notebook = start()
    msg_id, job = busy(notebook), only_job(cluster)
    wanted = ["--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--chdir=/"]
    cluster.command("sbatch", *wanted, "--wrap=sleep 5")
    error = collect(notebook.client, msg_id, 60).error
    assert f"the Slurm job {job} is over: a job of higher priority took its place (preempted)" in error
    cluster.command("scancel", "--partition=urgent")


def test_requeued(cluster: ClusterSite, start: Callable[[], Notebook], engine: Engine) -> None:
    """The same job runs again, later; a kernel that is started again begins anew in it."""
    target(cluster, engine, options=["--requeue"])
    notebook = start()
    msg_id, job = busy(notebook), only_job(cluster)
    cluster.command("scontrol", "requeue", job)
    error = collect(notebook.client, msg_id, 60).error
    assert (
        f"the Slurm job {job} was put back into the queue (requeued), and all that ran in it has ended"
        in error
    )
    notebook.manager.restart_kernel()
    notebook.ready()
    msg_id = notebook.client.execute("import os; print('job', os.environ['SLURM_JOB_ID'])")
    notebook.said(f"Slurm job {job} is queued")
    cluster.command("scontrol", "update", f"jobid={job}", "StartTime=now")
    assert f"job {job}\n" in collect(notebook.client, msg_id, 90).text
    assert list(cluster.jobs()) == [job]


@pytest.mark.long
def test_the_login_host_is_rebooted(
    cluster: ClusterSite, start: Callable[[], Notebook], notebooks: list[Notebook]
) -> None:
    """And with it the controller and the accounts.  The job runs on and so does its kernel; one that is asked for
    meanwhile gets one job; and in the end the accounts tell who cancelled it."""
    notebook = start()
    job = only_job(cluster)
    assert notebook.run("x = 41; print(x)") == "41"
    cluster.save_state()
    msg_id = notebook.client.execute("import time; time.sleep(3); print('through')")
    with ThreadPoolExecutor(1) as beside:
        rebooted = beside.submit(cluster.reboot_login)
        wait_until(lambda: not cluster.login_machine.is_up, "the power to go")
        notebooks.append(Notebook("batch"))
        notebooks[1].ready()
        rebooted.result(timeout=90)
    assert "through\n" in collect(notebook.client, msg_id, 60).text
    assert notebook.run("print(x + 1)", 60) == "42"
    other = notebooks[1].run("import os; print(os.environ['SLURM_JOB_ID'])", 90)
    assert set(cluster.jobs()) == {job, other}
    msg_id = busy(notebook)
    cluster.command("scancel", job)
    error = collect(notebook.client, msg_id).error
    assert f"the Slurm job {job} is over: it was cancelled by root" in error


@pytest.mark.long
def test_a_node_crashes(cluster: ClusterSite, start: Callable[[], Notebook]) -> None:
    notebook = start()
    msg_id, job = busy(notebook), only_job(cluster)
    node = cluster.nodes["c1"]
    node.crash()
    try:
        error = collect(notebook.client, msg_id, 90).error
        assert f"the Slurm job {job} is over: its node c1 failed" in error
        assert not cluster.jobs()
        notebook.manager.restart_kernel()
        notebook.ready()
        assert notebook.run("import os; print(os.uname().nodename)", 60) == "c2"
    finally:
        node.power_on()
        cluster.wait_idle("c1")


MPI = """\
import ipyparallel as ipp
view = ipp.Client()[:]
def place():
    import os
    return mpi_rank, MPI.COMM_WORLD.size, os.uname().nodename, len(os.sched_getaffinity(0))
def total():
    return MPI.COMM_WORLD.allreduce(mpi_rank + 1)
print(view.apply_sync(place), view.apply_sync(total))
"""


@pytest.fixture
def mpi(cluster: ClusterSite, start: Callable[[], Notebook], engine: Engine) -> Notebook:
    """Its processes are on c2."""
    resources = {"nodes": 2, "cpus": 2, "memory": "800M", "time": "30m"}
    left = {"TMPDIR": tempfile.mkdtemp(prefix="m", dir=os.environ["FARKERNEL_TEST"])}
    python = str(cluster_engines.small())
    target(cluster, engine, python=python, resources=resources, cluster="mpi", env=left)
    notebook = start()
    places, totals = notebook.run(MPI, 90).split("] ")
    assert (places, totals) == ("[(0, 2, 'c2', 1), (1, 2, 'c2', 1)", "[3, 3]")
    return notebook


@pytest.mark.long
def test_mpi_on_another_machine(cluster: ClusterSite, mpi: Notebook) -> None:
    """Where steps are held in control groups: each process has its core, and all of it goes with the kernel."""
    looking = "pgrep -f 'orted|mpi4py' || :"
    assert cluster.nodes["c2"].run("sh", "-c", looking).split()
    mpi.manager.shutdown_kernel()
    wait_until(lambda: not cluster.jobs(), "the job to be given back")
    wait_until(lambda: len(cluster.nodes["c2"].run("sh", "-c", looking).split()) < 2, "its processes to end")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_mpi_whose_node_crashes(cluster: ClusterSite, mpi: Notebook) -> None:
    """The kernel's own node goes on, and with it the kernel."""
    job, node = only_job(cluster), cluster.nodes["c2"]
    began = time.monotonic()
    node.crash()
    try:
        assert "MPI has ended: " in mpi.told("Restart the kernel for a fresh one", 150)
        print(f"said after {time.monotonic() - began:.0f} s")
        assert mpi.run("print(6 * 7)") == "42"
        assert list(cluster.jobs("RUNNING")) == [job]
    finally:
        node.power_on()
        mpi.manager.shutdown_kernel()
        cluster.wait_idle("c2")


# -- accounts --------------------------------------------------------------------------------------


def test_accounts_and_their_limits(cluster: ClusterSite) -> None:
    """As slurmdbd's administrator has set them, and sacctmgr of this release prints them."""
    for words in (
        "add account chem",
        "add user root account=chem partition=urgent",
        "add qos night",
        "modify qos normal set MaxWall=12:00:00 MaxTRESPerUser=cpu=8,mem=6G,gres/gpu:a100=2 MaxJobsPerUser=5",
        "modify qos night set MaxTRESPerJob=node=2 GrpTRES=cpu=64",
        "modify user root where account=test set MaxJobs=7 MaxSubmitJobs=9 MaxWall=1-12:00:00 "
        "MaxTRESPerJob=cpu=4,mem=1500M GrpTRES=node=3 QOS+=night DefaultQOS=night",
    ):
        cluster.command("sacctmgr", "--immediate", *words.split())
    try:
        found = resources()
    finally:
        cluster.command("sacctmgr", "--immediate", "delete", "user", "root", "account=chem")
        cleared = (
            "MaxJobs=-1 MaxSubmitJobs=-1 MaxWall=-1 MaxTRESPerJob=cpu=-1,mem=-1 GrpTRES=node=-1 DefaultQOS=-1"
        )
        where = ("modify", "user", "root", "where", "account=test", "set")
        cluster.command("sacctmgr", "--immediate", *where, *cleared.split())
    accounts = {(each["name"], each["queue"]): each for each in found["accounts"]}
    assert accounts.keys() == {("root", None), ("test", None), ("chem", "urgent")}
    assert accounts["test", None]["qos"] == ["night", "normal"]
    assert limits(accounts["test", None]) == [
        ("all", "cpus", 64, "QOS night"),
        ("job", "cpus", 4, "test"),
        ("job", "memory", 1500 << 20, "test"),
        ("job", "nodes", 2, "QOS night"),
        ("job", "time", 36 * 3600, "test"),
        ("user", "jobs", 7, "test"),
        ("user", "nodes", 3, "test"),
        ("user", "waiting", 9, "test"),
    ]
    assert limits(accounts["chem", "urgent"]) == [
        ("job", "time", 12 * 3600, "QOS normal"),
        ("user", "a100", 2, "QOS normal"),
        ("user", "cpus", 8, "QOS normal"),
        ("user", "jobs", 5, "QOS normal"),
        ("user", "memory", 6 << 30, "QOS normal"),
    ]


def limits(account: dict[str, Any]) -> list[tuple[str, str, float, str]]:
    return sorted((each["whom"], each["what"], each["most"], each["source"]) for each in account["limits"])


def resources() -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "farkernel", "resources", "batch", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    (found,) = json.loads(ended.stdout)
    assert found["cluster"]["problems"] == []
    return dict(found["cluster"])


# -- ways into jobs --------------------------------------------------------------------------------


WHERE = "import os; print(os.environ['SLURM_JOB_ID'], os.uname().nodename)"


def doctor(engine: Engine) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "farkernel", "doctor", "batch", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return {step["step"]: step["what"] for step in json.loads(done.stdout)["steps"]}


def test_nodes_without_sshd_and_a_site_without_steps(
    cluster: ClusterSite, start: Callable[[], Notebook], engine: Engine
) -> None:
    """By the door of the job, whose keys are for this job only; and that way is tried first from then on."""
    with cluster.without_steps():
        notebook = start()
        assert notebook.run(WHERE) == f"{only_job(cluster)} c1"
        assert way(engine) == "door"
        code = "import os; data = os.urandom(20_000_000).hex(); print(data)"
        assert len(run_cell(notebook.client, code, 60).text) == 40_000_001
        kill_keeper(engine)
        assert notebook.run(WHERE) == f"{only_job(cluster)} c1"
        notebook.manager.shutdown_kernel()
        wait_until(lambda: not cluster.jobs(), "the job to be given back")
        said = doctor(engine)
    assert said["scheduler"] == "Slurm answers; jobs were last entered by: door"
    assert "on c1, entered by: door" in said["kernel"]


def test_a_node_that_takes_logins_from_those_with_a_job_there(
    cluster: ClusterSite, engine: Engine, home: Path, notebooks: list[Notebook]
) -> None:
    """pam_slurm_adopt puts what comes by ssh into the job."""
    with (
        account(home.parent) as user,
        UserSshd(cluster, user) as login,
        NodeSshd(cluster, "c1", user) as node,
    ):
        target(
            cluster,
            engine,
            address=f"slurm://{user.name}@{cluster.address}:{login.port}/debug",
            ssh_config=str(login.write_client_config()),
            python="/usr/bin/python3",
        )
        ssh = ("su", user.name, "-c", "ssh -o BatchMode=yes c1 cat /proc/self/cgroup")
        cluster.login_machine.run(*ssh, check=False)
        assert f"Access denied for user {user.name} by PAM account configuration" in node.log.read_text()
        with cluster.without_steps():
            notebooks.append(Notebook("batch"))
            # Their Python has no ipykernel, and the agent in the job says so.
            (row,) = wait_until(lambda: [each for each in engine.kernels() if each["reason"]], "its end", 60)
            assert "that Python has no ipykernel" in row["reason"]["text"]
            assert way(engine) == "ssh"
            assert f"/job_{only_job(cluster)}/step_extern" in cluster.login_machine.run(*ssh)
        notebooks[0].close()
        wait_until(lambda: not cluster.jobs(), "the job to be given back")
