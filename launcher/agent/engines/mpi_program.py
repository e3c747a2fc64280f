"""What of MPI runs in the kernel's environment, for an MPI that nobody has named: Open MPI, MPICH and its kin.

Its text lies in the engine's directory on the first node, and travels, with `node`'s, to every process of the MPI:

    check ARGV…        what is needed is there, or this says what is not; becomes ARGV, if there are any
    start ORDER        becomes mpiexec, which starts ORDER's processes on its nodes

Each process gets its request over mpiexec's stdin, which reaches the first of them, and MPI's own broadcast: so neither
a shared home nor a way of ours to the nodes is needed, and nothing secret stands in an argument.  Its program is one:
of a stdin of more than 8 KiB Open MPI 5.0 brings the others nothing.
"""

import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from typing import Any, Callable, Dict, List, Mapping

NO_LAUNCHER = "error: there is no mpiexec"
_PATIENCE = 30.0
#: What a process of the MPI is, before it knows more.  Started by another MPI than mpi4py's, each would be alone.
FIRST_WORDS = """\
import base64, json, sys, zlib
from mpi4py import MPI
world, wanted = MPI.COMM_WORLD, int(sys.argv[1])
if world.size != wanted:
    sys.exit("error: mpiexec started %d processes, and mpi4py sees %d: it works with %s, which is another MPI" % (
        wanted, world.size, MPI.Get_library_version().split(",")[0].split(chr(10))[0]))
request = world.bcast(json.loads(sys.stdin.readline()) if world.rank == 0 else None)
exec(zlib.decompress(base64.b64decode(sys.argv[2])))
"""
Order = Dict[str, Any]


def check(argv: List[str]) -> None:
    absent = [name for name in ("ipyparallel", "mpi4py") if importlib.util.find_spec(name) is None]
    if absent:
        sys.exit("\n".join("error: No module named '%s'" % name for name in absent))
    ipyparallel, mpi4py = importlib.import_module("ipyparallel"), importlib.import_module("mpi4py")
    launcher = find_launcher()
    mpi4py.rc.initialize = False
    world = importlib.import_module("mpi4py.MPI")
    library = re.sub(r"\W*[Vv]ersion:?\s+", " ", re.split(r"[,\n(]", world.Get_library_version())[0]).strip()
    if argv:
        os.execvp(argv[0], argv)
    words = (library, mpi4py.__version__, ipyparallel.__version__, launcher)
    print("by %s, mpi4py %s, ipyparallel %s, %s" % words)


def find_launcher() -> str:
    """One that was installed with the environment belongs to its mpi4py; ends the program if there is none."""
    beside = os.path.dirname(sys.executable)
    for place in (beside, None):
        for name in ("mpiexec", "mpirun"):
            found = shutil.which(name, path=place)
            if found:
                return found
    sys.exit("%s beside %s, and none on PATH" % (NO_LAUNCHER, sys.executable))


def start(path: str) -> None:
    with open(path) as stream:
        order = json.load(stream)
    launcher = find_launcher()
    said = subprocess.run(
        [launcher, "--version"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_PATIENCE,
        check=False,
    ).stdout.decode("utf-8", "replace")
    os.environ.update(variables(order, os.environ, os.geteuid() == 0))
    given = os.open(order["given"], os.O_RDONLY)
    os.dup2(given, 0)
    os.execv(launcher, [launcher] + words(order, said))


def words(order: Order, version: str) -> List[str]:
    """mpiexec's: for Open MPI by its own manual, for all others by Hydra's (MPICH, Intel MPI, MVAPICH)."""
    count = order["each"] * len(order["hosts"])
    if re.search(r"Open MPI|OpenRTE|PRRTE|prte", version):
        hosts = ",".join("%s:%d" % (host, order["each"]) for host in order["hosts"])
        # How many on each node has been decided here, whatever the scheduler has counted.
        place = "ppr:%d:node:oversubscribe" % order["each"]
        found = ["--host", hosts, "-n", str(count), "--map-by", place, "--wdir", "/"]
        # srun and its like bring all variables to the nodes, ssh none.
        found += [word for name in order["variables"] for word in ("-x", name)]
    else:
        found = ["-f", order["machines"], "-n", str(count), "-wdir", "/"]
    return found + [order["python"], "-c", FIRST_WORDS, str(count), order["program"]]


def variables(order: Order, environment: Mapping[str, str], is_root: bool) -> Dict[str, str]:
    """For Open MPI 4 and 5, which others do not look at, and for the srun by which all go to the nodes."""
    found = {
        "SLURM_OVERLAP": "1",
        "SLURM_MPI_TYPE": "none",
    }
    cpus, nodes = environment.get("SLURM_CPUS_PER_TASK"), environment.get("SLURM_JOB_NUM_NODES")
    if cpus:
        found["SRUN_CPUS_PER_TASK"] = cpus  # srun no longer takes it from sbatch (22.05)
    if nodes:
        # With more processes than Slurm counts tasks Open MPI would bind none to a core, and wait more slowly.
        found["SLURM_TASKS_PER_NODE"] = "%d(x%s)" % (order["each"], nodes)
    if order["agent"]:
        agent = " ".join(order["agent"])
        found.update({"OMPI_MCA_plm_rsh_agent": agent, "PRTE_MCA_plm_ssh_agent": agent})
    if is_root:
        found.update({"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"})
        found.update({"PRTE_ALLOW_RUN_AS_ROOT": "1", "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1"})
    return found


def be_engine(node: Any, request: Order) -> None:
    """In a process of the MPI; ``node`` has what `node.py` defines.  It ends with what started it on its node."""
    node["_die_with_parent"]()
    directory = node["private_directory"]()
    try:
        node["write_files"](directory, request["files"])
        os.chdir(os.path.expanduser("~") if os.path.isdir(os.path.expanduser("~")) else "/")
        sys.argv = ["ipengine"] + [word.replace("@OWN@", directory) for word in request["argv"]]
        application = importlib.import_module("ipyparallel.engine.app").IPEngine
        once_registered(application, lambda: shutil.rmtree(directory, ignore_errors=True))
        application.launch_instance()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def once_registered(application: Any, then: Callable[[], None]) -> None:
    """Its files are of no use any more; and mostly it is killed, so that it cannot remove them later."""
    complete = application.complete_registration

    async def wait(registered: Any) -> None:
        await registered
        then()

    def completed(*given: Any) -> Any:
        found = complete(*given)
        if inspect.isawaitable(found):  # since ipyparallel 9
            return wait(found)
        return then()

    application.complete_registration = completed


if __name__ == "__main__" and sys.argv[1:2] == ["check"]:
    check(sys.argv[2:])
elif __name__ == "__main__" and sys.argv[1:2] == ["start"]:
    start(sys.argv[2])
