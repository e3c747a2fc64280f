"""MPI by itself: what is checked before it, how it is started by which mpiexec, and what is said when it cannot be."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from farkernel.launcher.agent.engines import mpi_program
from farkernel.launcher.agent.engines.contract import First
from farkernel.launcher.agent.engines.ipyparallel import ENGINE_FILE
from farkernel.launcher.agent.engines.state import State, Status
from farkernel.launcher.agent.engines.table import find

from ....sites import cluster_engines

SECRETS = {"certificate": "C", "key": "K", "word": "W"}
ENVIRONMENT = {"HOME": "/home/me", "PATH": "/opt/mpi/bin:/bin", "SECRET": "x"}
FIRST = First("10.0.0.1", "/run/e", "/env/bin/python", ENVIRONMENT, SECRETS, ["n2", "n3"], 1 << 30, 2, [], [])
FACTS = {ENGINE_FILE: '{"key": "SERVERKEY"}'}
OPEN_MPI = ["mpiexec (OpenRTE) 4.1.4\n", "mpirun (Open MPI) 5.0.7\n", "prterun (PRRTE) 3.0.8\n"]
HYDRA = [
    "HYDRA build details:\n    Version: 4.0.2\n",
    "Intel(R) MPI Library for Linux* OS, Version 2021.12\n",
]


def order(first: First = FIRST) -> mpi_program.Order:
    found: mpi_program.Order = json.loads(find("mpi").workers(first, FACTS).files["order.json"])
    return found


@pytest.mark.parametrize("version", OPEN_MPI)
def test_open_mpi(version: str) -> None:
    words = mpi_program.words(order(), version)
    assert words[:6] == ["--host", "n2:2,n3:2", "-n", "4", "--map-by", "ppr:2:node:oversubscribe"]
    assert words[6:8] == ["--wdir", "/"]
    assert words[8:] == ["/env/bin/python", "-c", mpi_program.FIRST_WORDS, "4", order()["program"]]


@pytest.mark.parametrize("version", HYDRA)
def test_mpich_and_its_kin(version: str) -> None:
    words = mpi_program.words(order(), version)
    assert words[:6] == ["-f", "@DIRECTORY@/machines", "-n", "4", "-wdir", "/"]
    assert words[6:8] == ["/env/bin/python", "-c"]
    assert find("mpi").workers(FIRST, FACTS).files["machines"] == "n2:2\nn3:2\n"


def test_variables() -> None:
    plain = mpi_program.variables(order(), {}, False)
    assert plain == {"SLURM_OVERLAP": "1", "SLURM_MPI_TYPE": "none"}
    slurm = mpi_program.variables(order(), {"SLURM_CPUS_PER_TASK": "8", "SLURM_JOB_NUM_NODES": "3"}, False)
    assert slurm == {**plain, "SRUN_CPUS_PER_TASK": "8", "SLURM_TASKS_PER_NODE": "2(x3)"}
    assert mpi_program.variables(order(), {}, True)["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] == "1"
    by = order(FIRST._replace(by=["ssh", "-T"], names=["OMP_NUM_THREADS", "OMPI_MCA_btl", "PATH"]))
    assert by["variables"] == ["PATH", "OMP_NUM_THREADS"]
    assert mpi_program.words(by, OPEN_MPI[0])[8:12] == ["-x", "PATH", "-x", "OMP_NUM_THREADS"]
    assert mpi_program.variables(by, {}, False)["OMPI_MCA_plm_rsh_agent"] == "ssh -T"


def test_its_processes_keep_what_their_own_node_fills_in() -> None:
    """The program's own placeholders are filled on the first node; those of the others stand until they are there."""
    given = find("mpi").workers(FIRST, FACTS).files["given"]
    assert len(given) < 8192
    request = json.loads(given)
    assert request["argv"][:2] == ["--file=@OWN@/engine.json", "--profile-dir=@OWN@/profile"]
    assert request["argv"][-1] == "--mpi"
    assert request["files"]["engine.json"] == FACTS[ENGINE_FILE]
    program = zlib.decompress(base64.b64decode(order()["program"])).decode()
    assert "def private_directory" in program
    assert "SERVERKEY" not in program
    assert program.endswith("be_engine(globals(), request)\n")
    assert find("mpi").processes(FIRST) == 4


def test_an_agent_is_named_for_those_who_go_by_a_shell() -> None:
    from farkernel.launcher.agent.engines import launchers

    words = launchers.find("pbs").by({})
    assert words[:2] == ["ssh", "-T"]
    assert "StrictHostKeyChecking=yes" in words
    assert "--" not in words  # Open MPI's own -x comes after them
    assert launchers.find("oar").by({}) == ["oarsh", "-T"]
    assert [launchers.find(name).by({}) for name in ("slurm", "sge", "lsf")] == [[], [], []]


# -- what is missing ---------------------------------------------------------------------------------------


def failed(line: str) -> Status:
    status = Status(find("mpi"), ["n2"], 120)
    status.head_ended("it ended with exit status 1", [line])
    assert status.state is State.FAILED
    return status


def test_what_is_said_when_something_is_not_there() -> None:
    status = failed("error: there is no mpiexec beside /env/bin/python, and none on PATH")
    assert status.text == "There is no mpiexec, neither in the kernel's environment nor on its PATH"
    assert status.advice == (
        "Name the module that has it in the target's modules, or install an MPI there, and restart the kernel"
    )
    status = failed("ModuleNotFoundError: No module named 'mpi4py'")
    assert status.text == "MPI needs mpi4py, missing in the kernel's environment"
    assert status.advice == "Install mpi4py there, on all nodes, and restart the kernel"
    status = failed("ModuleNotFoundError: No module named 'ipyparallel'")
    assert status.text == "MPI needs ipyparallel, missing in the kernel's environment"
    assert "could not be started: it ended with exit status 1 (RuntimeError: cannot load MPI" in (
        failed("RuntimeError: cannot load MPI library").text
    )


def test_its_launcher_ends() -> None:
    """With all of its processes, on all nodes: first before they were there, then later."""
    status = joining()
    status.workers_ended(
        "it ended with exit status 1", ["error: mpiexec started 4 processes, and mpi4py sees 1"]
    )
    assert status.state is State.FAILED
    assert status.text == (
        "MPI could not be started: it ended with exit status 1 (error: mpiexec started 4 processes, and mpi4py sees 1)"
    )
    status = joining()
    for name in ("n2", "n3"):
        status.node_said(name, "starting", processes=1)
        status.node_said(name, "up")
    for number in range(2):
        status.head_line(f"registration::finished registering engine {number}:abc in 5ms")
    assert status.state is State.READY
    said = "mpiexec noticed that process rank 1 with PID 7 on node n3 exited on signal 9 (Killed)."
    status.workers_ended("it ended with exit status 137", [said, "-----"])
    status.head_ended("it was ended by the signal SIGTERM", [])
    assert (status.state, status.text) == (
        State.ENDED,
        f"MPI has ended: it ended with exit status 137 ({said})",
    )
    assert {each["state"] for each in status.as_dict()["nodes"]} == {"ended"}


def joining() -> Status:
    status = Status(find("mpi"), ["n2", "n3"], 120)
    status.head_line("Hub listening on tcp://10.0.0.1:55061 for registration.")
    status.head_line("Heartmonitor beating every 1000ms")
    assert status.state is State.JOINING
    return status


# -- the program itself ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """As it is run there, with no more on PATH than is given."""

    def run(path: str, python: Path) -> subprocess.CompletedProcess[str]:
        words = [*find("mpi").version_words(str(python))]
        return subprocess.run(
            words, env={"PATH": path}, capture_output=True, text=True, timeout=50, check=False
        )

    return run


def test_the_check(check: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    python = cluster_engines.small()
    found = check(os.environ["PATH"], python)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("by Open MPI v4.1.")
    assert found.stdout.endswith(f", {shutil.which('mpiexec')}\n")
    found = check(str(tmp_path), python)
    assert find("mpi").missing(found.stderr.splitlines()) == "mpiexec"
    found = check(os.environ["PATH"], Path(sys.executable))
    assert find("mpi").missing(found.stderr.splitlines()) == "ipyparallel and mpi4py"


def test_the_environments_own_mpiexec_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("environment", "system"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mpiexec").touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "environment" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "system"))
    assert mpi_program.find_launcher() == str(tmp_path / "environment" / "mpiexec")
    (tmp_path / "environment" / "mpiexec").unlink()
    assert mpi_program.find_launcher() == str(tmp_path / "system" / "mpiexec")
    (tmp_path / "system" / "mpiexec").unlink()
    with pytest.raises(SystemExit, match="there is no mpiexec beside"):
        mpi_program.find_launcher()


def test_a_world_of_another_mpi(tmp_path: Path) -> None:
    """mpi4py that works with another MPI than mpiexec's makes each process a world of its own."""
    words = [str(cluster_engines.small()), "-c", mpi_program.FIRST_WORDS, "4"]
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 1
    assert "error: mpiexec started 4 processes, and mpi4py sees 1: it works with Open MPI v" in done.stderr


@pytest.mark.parametrize("later", [False, True], ids=["8", "9"])
def test_its_files_go_once_it_is_registered(later: bool) -> None:
    """ipyparallel 9 registers in a coroutine, 8 did in a function."""
    did: list[str] = []

    class Application:
        def complete_registration(self, message: str) -> object:
            async def answer() -> None:
                did.append(message)

            if later:
                return answer()
            did.append(message)
            return None

    mpi_program.once_registered(Application, lambda: did.append("removed"))
    found = Application().complete_registration("yes")
    if later:
        assert inspect.iscoroutine(found)
        asyncio.run(found)
    assert did == ["yes", "removed"]
