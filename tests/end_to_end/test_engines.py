"""Engines across several nodes of a real Slurm, from the notebook's side: Dask and ipyparallel as they are."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from farkernel.launcher.agent.engines import node
from farkernel.launcher.errors import FarkernelError

from ..sites import cluster_engines
from ..sites.batch_notebook import Notebook
from ..sites.engine import Engine, run_cell, wait_until
from ..sites.slurm import SlurmSite

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]


@pytest.fixture
def slurm(slurm_here: SlurmSite, engine: Engine) -> Iterator[SlurmSite]:
    yield slurm_here
    engine.close()
    wait_until(lambda: not slurm_here.jobs(), "the jobs to be gone", deadline=30)


def target(engine: Engine, cluster: str, **settings: object) -> None:
    resources = {"nodes": 3, "cpus": 2, "memory": "600M", "time": "1h"}
    engine.target(
        "lab",
        **{
            "address": "slurm:///debug",
            "python": str(cluster_engines.small()),
            "resources": resources,
            "cluster": cluster,
            **settings,
        },
    )
    if not (Path(os.environ["JUPYTER_DATA_DIR"]) / "kernels" / "lab").exists():
        engine.entry("lab", "lab")


HELD = ".zip start /"  # the program that holds an engine
OURS = (
    HELD,
    "distributed.cli",
    "ipyparallel",
    "apache.spark",
    "ray.scripts",
    "raylet",
    "gcs_server",
    "ray::",
    "mpiexec",
    "orted",
    "prted",
    "hydra_pmi_proxy",
    "mpi4py",
)


def of_engines(site: SlurmSite) -> list[psutil.Process]:
    """Whatever runs for an engine on any node, its supervisor and launchers included."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = " ".join(process.cmdline())
            ours = process.environ().get("SLURM_CONF") == site.environment["SLURM_CONF"]
            if ours and any(each in words for each in OURS):
                found.append(process)
    return found


def named(site: SlurmSite, words: str) -> psutil.Process:
    return next(each for each in of_engines(site) if words in " ".join(each.cmdline()))


def agent_of(kernel: int) -> list[psutil.Process]:
    """Guard and worker in the job: the kernel's parent, and that one's other child."""
    guard = psutil.Process(kernel).parent()
    assert guard is not None
    return [guard, *(child for child in guard.children() if child.pid != kernel)]


def first_cell(notebook: Notebook, code: str, deadline: float = 60) -> str:
    notebook.ready(120)
    outcome = run_cell(notebook.client, code, deadline)
    assert not outcome.error
    return outcome.text


CONNECT = """\
from dask.distributed import Client
client = Client()
client.wait_for_workers(2, timeout=60)
print(client.scheduler.address, client.submit(lambda x: x + 1, 41).result())
"""


def test_dask(slurm: SlurmSite, engine: Engine, notebooks: list[Notebook]) -> None:
    """From the first cell to the last: told, connected to, looked at, kept by a restart, and ended with the job."""
    target(engine, "dask")
    notebook = Notebook("lab")
    notebooks.append(notebook)
    text = first_cell(notebook, CONNECT)
    (row,) = engine.kernels()
    url = row["engine"]["url"]
    assert (
        f"[farkernel] Dask runs on node2, node3: dask.distributed.Client() connects to it. Dashboard: {url}\n"
        in text
    )
    address, result = text.splitlines()[-1].split()
    assert address.startswith("tls://")
    assert result == "42"
    with urllib.request.urlopen(url, timeout=30) as page:
        assert b"Dask" in page.read()
    with pytest.raises(OSError, match=r"."):  # nobody gets in without the engine's own certificate
        knock(address)

    notebook.manager.restart_kernel()
    text = first_cell(notebook, CONNECT)
    assert text.splitlines()[-1] == f"{address} 42"

    named(slurm, "distributed.cli.dask_worker").kill()
    assert "it was ended by the signal SIGKILL" in notebook.told("Restart the kernel for a whole one")
    notebook.manager.restart_kernel()
    text = first_cell(notebook, CONNECT)
    assert text.splitlines()[-1].split()[0] != address  # a fresh one, and whole

    (job,) = slurm.jobs()
    notebook.manager.shutdown_kernel()
    wait_until(lambda: not of_engines(slurm), "the engine to end", deadline=20)
    wait_until(lambda: job not in slurm.jobs(), "the job to be given back", deadline=20)


def knock(address: str) -> None:
    """As somebody of the same network who has no certificate of this engine."""
    host, _, port = address.removeprefix("tls://").rpartition(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((host, int(port)), 10) as plain, context.wrap_socket(plain) as link:
        link.settimeout(10)
        link.sendall(b"\0" * 64)
        if link.recv(1):
            raise AssertionError("it answered")


def test_ipyparallel_and_an_agent_that_is_killed(
    slurm: SlurmSite, engine: Engine, notebooks: list[Notebook]
) -> None:
    """Two engines a node; both ways to connect; and with the agent's processes the kernel in its job goes, and all."""
    target(engine, "ipyparallel")
    notebook = Notebook("lab")
    notebooks.append(notebook)
    code = """\
import ipyparallel as ipp, os
client = ipp.Client()
other = ipp.Cluster.from_file().connect_client_sync()
print(client.ids, other.ids, client[:].apply_sync(lambda: 6 * 7), client[:].apply_sync(os.getpid)[0] != os.getpid())
"""
    text = first_cell(notebook, code)
    assert "ipyparallel runs on node2, node3: ipyparallel.Client() connects to it." in text
    assert text.splitlines()[-1] == "[0, 1, 2, 3] [0, 1, 2, 3] [42, 42, 42, 42] True"
    assert of_engines(slurm)
    kernel = psutil.Process(int(notebook.run("print(os.getpid())")))
    guard, *others = agent_of(kernel.pid)
    guard.kill()  # what the job's script waits for; the job's end kills by descent, and this makes orphans of them
    wait_until(lambda: not of_engines(slurm), "the engine to end", deadline=30)
    _, left = psutil.wait_procs([kernel, *others], timeout=30)
    assert not left


MPI = """\
import ipyparallel as ipp
view = ipp.Client()[:]
def place():
    import os
    return mpi_rank, MPI.COMM_WORLD.size, os.environ["SLURMD_NODENAME"]
def total():
    return MPI.COMM_WORLD.allreduce(mpi_rank + 1)
print(view.apply_sync(place), view.apply_sync(total))
"""
PLACES = "[(0, 4, 'node2'), (1, 4, 'node2'), (2, 4, 'node3'), (3, 4, 'node3')] [10, 10, 10, 10]"


def test_mpi(slurm: SlurmSite, engine: Engine, notebooks: list[Notebook]) -> None:
    """One world across the nodes, started by the system's own mpiexec.  It ends with one of its processes, and so it
    does when all that the first node has of it is killed at once."""
    # The site's nodes are one machine, whose shared memory they would take for their own.
    left = tempfile.mkdtemp(prefix="m", dir=os.environ["FARKERNEL_TEST"])
    target(engine, "mpi", env={"OMPI_MCA_btl": "self,tcp", "TMPDIR": left})
    notebook = Notebook("lab")
    notebooks.append(notebook)
    text = first_cell(notebook, MPI)
    assert "MPI runs on node2, node3: ipyparallel.Client() connects to it." in text
    assert text.splitlines()[-1] == PLACES

    world = on_nodes(slurm)
    kept = [file.path for each in world for file in each.open_files() if "farkernel" in file.path]
    assert kept == []  # what they needed to connect is not there any more
    next(each for each in world if each.name() != "orted").kill()
    text = notebook.told("Restart the kernel for a fresh one")
    assert "MPI has ended: it ended with exit status 137 (mpiexec noticed that process rank " in text
    wait_until(lambda: not any(map(lives, world)), "the others to end")
    notebook.manager.restart_kernel()
    assert first_cell(notebook, MPI).splitlines()[-1] == PLACES

    world = on_nodes(slurm)
    rest = [each for each in of_engines(slurm) if each not in world]
    for act in (psutil.Process.suspend, psutil.Process.kill):
        for process in rest:
            with contextlib.suppress(psutil.NoSuchProcess):  # srun goes with its parent
                act(process)
    wait_until(lambda: not of_engines(slurm), "the engine to end")
    shutil.rmtree(node.private_directory())  # which sweeps what those that were killed have left
    assert "MPI has ended: what held it together is gone" in notebook.told("Restart the kernel")


@pytest.mark.long
@pytest.mark.parametrize("name", ["mpich", "openmpi"])
def test_mpi_of_the_environment(
    slurm: SlurmSite, engine: Engine, notebooks: list[Notebook], name: str
) -> None:
    """Other releases, and another make, with an mpiexec that knows nothing of this site."""
    left = tempfile.mkdtemp(prefix="m", dir=os.environ["FARKERNEL_TEST"])
    apart = {"OMPI_MCA_btl": "self,tcp", "MPIR_CVAR_NOLOCAL": "1", "TMPDIR": left}
    target(engine, "mpi", env=apart, python=str(cluster_engines.with_mpi(name)))
    notebook = Notebook("lab")
    notebooks.append(notebook)
    began = time.monotonic()
    assert first_cell(notebook, MPI, 120).splitlines()[-1] == PLACES
    print(f"{name}: first result after {time.monotonic() - began:.0f} s")
    named(slurm, "mpiexec").kill()
    assert "MPI has ended: " in notebook.told("Restart the kernel for a fresh one")
    wait_until(lambda: not [each for each in on_nodes(slurm) if lives(each)], "its processes to end")
    shutil.rmtree(node.private_directory())
    notebook.manager.shutdown_kernel()


def on_nodes(site: SlurmSite) -> list[psutil.Process]:
    """The processes of an MPI, and what started them there."""
    found = of_engines(site)
    daemons = ("orted", "prted", "hydra_pmi_proxy")
    return [each for each in found if each.name() in daemons or each.cmdline()[1:2] == ["-c"]]


def lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_what_holds_it_is_killed(slurm: SlurmSite, engine: Engine, notebooks: list[Notebook]) -> None:
    """Nothing is left on any node, the cell says so, and the kernel lives."""
    target(engine, "ipyparallel")
    notebook = Notebook("lab")
    notebooks.append(notebook)
    first_cell(notebook, "x = 41")
    began = time.monotonic()
    named(slurm, HELD).kill()
    text = notebook.told("ipyparallel has ended: what held it together is gone")
    assert "Restart the kernel for a fresh one" in text
    wait_until(lambda: not of_engines(slurm), "the engine to end", deadline=60)
    print("ended after", time.monotonic() - began)
    assert notebook.run("print(x + 1)") == "42"


def test_one_that_is_not_installed(engine: Engine, notebooks: list[Notebook]) -> None:
    """Also without a scheduler.  The kernel runs without it, and the first cell says what to do."""
    engine.target("here", python=sys.executable, cluster="dask")
    engine.entry("here", "here")
    notebook = Notebook("here")
    notebooks.append(notebook)
    text = first_cell(notebook, "print(6 * 7)")
    assert (
        "[farkernel] Dask is not installed in the kernel's environment. Install distributed there, on all nodes, and "
        "restart the kernel. The kernel runs without it.\n"
    ) in text
    assert text.splitlines()[-1] == "42"
    assert engine.kernels()[0]["engine"]["state"] == "failed"
    with pytest.raises(FarkernelError, match="Dask is not installed in the kernel's environment"):
        engine.client.request("doctor", 90, target="here", step="engine", deadline=60)


@pytest.mark.long
def test_a_node_fails(slurm: SlurmSite, engine: Engine, notebooks: list[Notebook]) -> None:
    """As when its power is gone: said in a cell, and kernel and the other node go on."""
    target(engine, "dask")
    notebook = Notebook("lab")
    notebooks.append(notebook)
    first_cell(notebook, CONNECT)
    steps = [each for each in psutil.process_iter() if each.name() == "slurmstepd"]
    (step,) = [each for each in steps if descends(each, "node3")]
    for process in [step, *step.children(recursive=True)]:
        process.kill()
    text = notebook.told("Dask has 1 of its 2 nodes (node3: nothing has been heard of it for 30 s)", 90)
    assert "Restart the kernel for a whole one" in text
    assert notebook.run("print(client.submit(sum, [6, 7]).result())") == "13"
    notebook.manager.shutdown_kernel()


def descends(step: psutil.Process, node: str) -> bool:
    """Whether the engine's program of that node runs in it."""
    for child in step.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if child.environ().get("SLURMD_NODENAME") == node and "distributed.cli" in " ".join(
                child.cmdline()
            ):
                return True
    return False


SPARK = """\
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
squares = spark.sparkContext.parallelize(range(100), 4).map(lambda x: x * x).sum()
print(spark.sparkContext.master, squares, spark.range(1000).count())
"""
RAY = """\
import ray, logging
ray.init(logging_level=logging.ERROR)
@ray.remote(num_cpus=2)
def answer():
    import socket
    return 41 + 1
print(ray.get_runtime_context().gcs_address, ray.get([answer.remote() for _ in range(4)]), int(ray.cluster_resources()["CPU"]))
"""


@pytest.mark.long
@pytest.mark.timeout(500)
@pytest.mark.parametrize(
    ("cluster", "nodes", "code", "result"),
    # Ray gives each node 30 s to start, which two on one slow machine may not keep.
    [("spark", "node2, node3", SPARK, "328350 1000"), ("ray", "node2", RAY, "[42, 42, 42, 42] 2")],
    ids=["spark", "ray"],
)
def test_large_engines(
    slurm: SlurmSite,
    engine: Engine,
    notebooks: list[Notebook],
    cluster: str,
    nodes: str,
    code: str,
    result: str,
) -> None:
    """The same of those that take half a minute to start, and over a gigabyte to install."""
    resources = {"nodes": 1 + len(nodes.split()), "cpus": 2, "memory": "2500M", "time": "1h"}
    target(engine, cluster, resources=resources, python=str(cluster_engines.large()))
    notebook = Notebook("lab")
    notebooks.append(notebook)
    began = time.monotonic()
    text = first_cell(notebook, code, 240)
    print(f"{cluster}: first result after {time.monotonic() - began:.0f} s")
    (row,) = engine.kernels()
    assert f"runs on {nodes}: " in text
    assert f"Dashboard: {row['engine']['url']}\n" in text
    # Spark draws bars of progress over one line, whenever it likes.
    assert f"{row['engine']['address']} {result}" in [
        line.strip() for line in text.replace("\r", "\n").splitlines()
    ]
    with urllib.request.urlopen(row["engine"]["url"], timeout=60) as page:
        assert cluster in page.read().decode().lower()
    notebook.manager.shutdown_kernel()
    wait_until(lambda: not of_engines(slurm), "the engine to end", deadline=60)
