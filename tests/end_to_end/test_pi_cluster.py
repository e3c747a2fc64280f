"""The recipe of docs/pi-cluster.md: hosts on a network of their own, without a scheduler, and a notebook elsewhere."""

from __future__ import annotations

import os
import pwd
import re
import signal
import tempfile
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from farkernel.launcher.errors import FarkernelError

from ..sites import cluster_engines
from ..sites.batch_notebook import Notebook
from ..sites.engine import Engine, run_cell, wait_until
from ..sites.netns import Network, inside
from ..sites.ssh import Sshd

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

RECIPE = Path(__file__).parents[2] / "docs" / "pi-cluster.md"
NAMES = ("pi1", "pi2", "pi3")


def recipe(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", RECIPE.read_text(), re.DOTALL | re.MULTILINE)


class Pis:
    """Each has a network interface and an sshd of its own; pi1 knows how to get to the others."""

    def __init__(self, directory: Path, network: Network, stack: ExitStack) -> None:
        self.network = network
        self.spaces = [network.host(name) for name in NAMES]
        self.addresses = network.segment(*self.spaces)
        _, door = network.cable(None, self.spaces[0])  # the first can be reached from the notebook's machine
        # ssh looks for its files where passwd(5) says, whatever HOME is: each Pi sees another directory there.
        own = directory / "dot-ssh"
        own.mkdir(mode=0o700, parents=True)
        home = pwd.getpwuid(os.getuid()).pw_dir
        see = f'mkdir -p {home}/.ssh && mount --bind "$0" {home}/.ssh && exec "$@"'
        self.hosts = []
        for name, space, address in zip(NAMES, self.spaces, [door, *self.addresses[1:]], strict=True):
            host = Sshd(directory / name)
            host.address_there = address
            host.before = [*inside(space), "sh", "-c", see, str(own)]
            host.know()
            self.hosts.append(stack.enter_context(host))
        first, *others = self.hosts
        first.write_client_config()
        lines = []
        for name, host in zip(NAMES[1:], others, strict=True):
            lines += [f"Host {name}", f"HostName {host.address_there}", f"Port {host.port}"]
            lines += [f"IdentityFile {host.key}", f"UserKnownHostsFile {host.known_hosts}"]
        (own / "config").write_text("\n".join(lines) + "\n")

    def has(self, process: psutil.Process) -> bool:
        """Whether it runs on one of them, as far as it can be seen."""
        with suppress(psutil.Error):
            return process.environ().get("FARKERNEL_RUN_DIR") in [
                str(each.run_directory) for each in self.hosts
            ]
        return False

    def processes(self) -> list[psutil.Process]:
        """Of an engine, on any of them."""
        found = []
        for process in psutil.process_iter():
            try:
                here = process.environ().get("FARKERNEL_RUN_DIR", "")
                words = " ".join(process.cmdline())
            except psutil.Error:
                continue
            ours = any(here == str(host.run_directory) for host in self.hosts)
            if ours and any(each in words for each in (".zip start /", "distributed.cli", "apache.spark")):
                found.append(process)
        return found


@pytest.fixture
def pis(home: Path) -> Iterator[Pis]:
    with Network() as network, ExitStack() as stack:
        yield Pis(home.parent / "pis", network, stack)


@pytest.fixture
def notebook(engine: Engine, pis: Pis, request: pytest.FixtureRequest) -> Iterator[Notebook]:
    """With the target as the recipe has it, but for what is where in this test."""
    cluster, python = request.param
    (written,) = recipe("toml")
    settings = tomllib.loads(written)["targets"]["pis"]
    assert settings["address"] == "ssh://pi@pi1"
    here = {
        "address": pis.hosts[0].address,
        "python": str(python()),
        "cluster": cluster,
        "engine_hosts": settings["engine_hosts"][: len(NAMES) - 1],
    }
    # The hosts are one machine, whose shared memory an MPI would take for that of each; and it leaves directories.
    left = tempfile.mkdtemp(prefix="p", dir=os.environ["FARKERNEL_TEST"])
    here["env"] = {"OMPI_MCA_btl": "self,tcp", "TMPDIR": left, "MINE": "a b"} if cluster == "mpi" else {}
    engine.target("pis", **{**settings, **here}, ssh_config=str(pis.hosts[0].client_config))
    engine.entry("pis", "pis")
    notebook = Notebook("pis")
    yield notebook
    notebook.close()
    wait_until(lambda: not pis.processes(), "the engine to end", deadline=40)
    engine.close()


@pytest.mark.parametrize("notebook", [("dask", cluster_engines.small)], indirect=True, ids=["dask"])
def test_dask(engine: Engine, notebook: Notebook, pis: Pis) -> None:
    notebook.ready(120)
    cell = next(each for each in recipe("python") if "dask" in each)
    outcome = run_cell(notebook.client, cell, 60)
    assert (
        "Dask runs on pi2, pi3: dask.distributed.Client() connects to it. Dashboard: http://127.0.0.1:"
        in outcome.text
    )
    assert outcome.text.splitlines()[-1] == "45"
    (row,) = engine.kernels()
    with urllib.request.urlopen(row["engine"]["url"], timeout=30) as page:
        assert b"Dask" in page.read()
    found = notebook.run(
        "print(*sorted(each['host'] for each in client.scheduler_info()['workers'].values()))"
    )
    assert found.split() == sorted(pis.addresses[1:])
    scheduler = notebook.run("print(client.scheduler.address)")
    assert scheduler.startswith(f"tls://{pis.addresses[0]}:")

    keeper = engine.keeper_pid()
    os.kill(keeper, signal.SIGKILL)  # the next one goes on with it, dashboard included

    def again() -> str:
        with suppress(FarkernelError):
            (row,) = engine.kernels()
            return (
                str(row["engine"]["url"]) if engine.keeper_pid() != keeper and row["state"] == "live" else ""
            )
        return ""

    with urllib.request.urlopen(wait_until(again, "another keeper"), timeout=30) as page:
        assert b"Dask" in page.read()

    step = engine.client.request("doctor", 90, target="pis", step="engine", deadline=60)
    assert re.fullmatch(r"Dask 20\S+, across 3 nodes", step["what"])

    pis.hosts[2].stop()  # somebody pulls its plug
    text = notebook.told("Dask has 1 of its 2 nodes (pi3: ")
    assert "Restart the kernel for a whole one" in text
    assert notebook.run("print(client.submit(sum, [6, 7]).result())") == "13"


@pytest.mark.long
@pytest.mark.timeout(500)
@pytest.mark.parametrize("notebook", [("spark", cluster_engines.large)], indirect=True, ids=["spark"])
def test_spark(engine: Engine, notebook: Notebook, pis: Pis) -> None:
    notebook.ready(240)
    cell = next(each for each in recipe("python") if "pyspark" in each)
    outcome = run_cell(notebook.client, cell, 240)
    assert "Spark runs on pi2, pi3: SparkSession.builder.getOrCreate() connects to it." in outcome.text
    assert "10" in lines(outcome.text)
    code = "print(spark.sparkContext.parallelize(range(9), 3).map(lambda x: x * x).sum(), spark.sparkContext.master)"
    (row,) = engine.kernels()
    assert f"204 {row['engine']['address']}" in lines(run_cell(notebook.client, code, 120).text)
    assert row["engine"]["address"].startswith(f"spark://{pis.addresses[0]}:")


MPI = """\
import ipyparallel as ipp
view = ipp.Client()[:]
def place():
    import os
    assert os.environ["MINE"] == "a b"
    return mpi_rank, os.environ["SSH_CONNECTION"].split()[2]
def total():
    return MPI.COMM_WORLD.allreduce(1)
places = view.apply_sync(place)
print(len({where for _, where in places}), [rank for rank, _ in places] == list(range(len(places))))
print(view.apply_sync(total) == [len(places)] * len(places))
"""


@pytest.mark.long
@pytest.mark.parametrize("notebook", [("mpi", cluster_engines.small)], indirect=True, ids=["mpi"])
def test_mpi(notebook: Notebook, pis: Pis) -> None:
    """By ssh, in its own way."""
    notebook.ready(120)
    outcome = run_cell(notebook.client, MPI, 60)
    assert "MPI runs on pi2, pi3: ipyparallel.Client() connects to it." in outcome.text
    assert outcome.text.splitlines()[-2:] == ["2 True", "True"]
    daemons = [each for each in psutil.process_iter() if each.name() == "orted" and pis.has(each)]
    assert len(daemons) == 2
    notebook.close()
    wait_until(lambda: not any(each.is_running() for each in daemons), "the daemons to end")


def lines(text: str) -> list[str]:
    """Spark draws bars of progress over one line, again and again, whenever it likes."""
    return [line.strip() for line in text.replace("\r", "\n").splitlines()]
