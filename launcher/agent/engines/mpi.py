"""MPI: one `mpiexec` that starts an ipyparallel engine for each core of the other nodes, all in one COMM_WORLD.

The controller is `ipyparallel`'s.  mpiexec is the user's own (module, conda, the system's), and goes to the nodes as it
does in any job script: with Slurm's srun, PBS's tm, Grid Engine's qrsh, or ssh.
"""

import base64
import json
import pkgutil
import zlib
from typing import List, Tuple

from .contract import Facts, First, Program, join
from .ipyparallel import IPyParallel
from .mpi_program import NO_LAUNCHER

_PROGRAM = "mpi_program.py"
_MPIEXEC = "mpiexec"
_PACKAGES = ("ipyparallel", "mpi4py")
#: Variables that ssh does not bring to the nodes.
_PASSED = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "CONDA_PREFIX", "VIRTUAL_ENV")


class MPI(IPyParallel):
    name = "mpi"
    title = "MPI"
    connects = "ipyparallel.Client()"
    spreads = True
    contained = False

    def head(self, first: First) -> Program:
        """The controller, if all that its processes need is there."""
        controller = super().head(first)
        argv = [first.python, join(first.directory, _PROGRAM), "check"] + controller.argv
        return controller._replace(argv=argv, files=dict(controller.files, **{_PROGRAM: _text(_PROGRAM)}))

    def workers(self, first: First, facts: Facts) -> Program:
        # The node's own directory is not the first's, by which the words of this program are filled in.
        own = [word.replace("@DIRECTORY@", "@OWN@") for word in self.node_words()]
        request = {"files": self.node_files(facts), "argv": own + ["--mpi"]}
        program = _text("node.py") + _text(_PROGRAM) + "\nbe_engine(globals(), request)\n"
        packed = base64.b64encode(zlib.compress(program.encode("utf-8"), 9)).decode("ascii")
        order = {
            "hosts": first.nodes,
            "each": first.cpus,
            "agent": first.by,
            "variables": self._variables(first),
            "python": first.python,
            "program": packed,
            "given": "@DIRECTORY@/given",
            "machines": "@DIRECTORY@/machines",
        }
        files = {
            "order.json": json.dumps(order),
            "machines": "".join("%s:%d\n" % (host, first.cpus) for host in first.nodes),
            "given": json.dumps(request) + "\n",
        }
        return Program(
            [first.python, join(first.directory, _PROGRAM), "start", "@DIRECTORY@/order.json"],
            {"PYTHONUNBUFFERED": "1"},
            files,
            r"Completed registration with id \d+",
            "one",
        )

    def _variables(self, first: First) -> List[str]:
        """Those that have to be named so that they come along.  Open MPI brings its own."""
        named = [name for name in first.names if not name.startswith(("OMPI_", "PRTE_", "PMIX_"))]
        found = [name for name in _PASSED if name in first.environment] + named
        return list(dict.fromkeys(found)) if first.by else []

    def processes(self, first: First) -> int:
        return first.cpus * len(first.nodes)

    def version_words(self, python: str) -> List[str]:
        return [python, "-c", _text(_PROGRAM), "check"]

    def missing(self, lines: List[str]) -> str:
        text = "\n".join(lines)
        if NO_LAUNCHER in text:
            return _MPIEXEC
        return " and ".join(name for name in _PACKAGES if "No module named '%s" % name in text)

    def lack(self, package: str) -> Tuple[str, str]:
        if package == _MPIEXEC:
            text = "There is no mpiexec, neither in the kernel's environment nor on its PATH"
            return text, "Name the module that has it in the target's modules, or install an MPI there"
        return (
            "MPI needs %s, missing in the kernel's environment" % package,
            super().lack(package)[1],
        )


def _text(name: str) -> str:
    return (pkgutil.get_data(__name__.rpartition(".")[0], name) or b"").decode("utf-8")
