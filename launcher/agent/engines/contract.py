"""What an engine must offer: pure answers, no I/O.  One file each, one row in `table`."""

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

#: What a program's argv, environment and files may hold, to be filled in by the node where it runs (`node.filled`):
#: @ADDRESS@ (its own, on the network that leads to the first node), @DIRECTORY@ (private), @CPUS@, @MEMORY@ (bytes),
#: @SHARE@ (three quarters of it, in MiB), @QUARTER@ (bytes), @NODE@ (its name), @PID@.
Program = NamedTuple(
    "Program",
    [
        ("argv", List[str]),
        ("environment", Dict[str, str]),  # nothing secret: it goes through `env`, where others can read it
        ("files", Dict[str, str]),  # private; secrets go here
        ("up", str),  # a pattern: the line that says that it works
        ("copies", str),  # "one" or "cpus": how many of it on a node
    ],
)
First = NamedTuple(
    "First",
    [
        ("address", str),  # of the first node, on the network that leads to the others
        ("directory", str),  # private, the engine's own on the first node
        ("python", str),  # the kernel's
        ("environment", Mapping[str, str]),  # the kernel's, before the engine
        ("secrets", Mapping[str, str]),  # made for this engine alone: certificate, key, word
        ("nodes", List[str]),  # where its workers run
        ("memory", int),  # bytes that the job has on this node
        ("cpus", int),  # cores that the job has on this node, and so on the others
        ("names", List[str]),  # of variables that target and kernelspec set
        ("by", List[str]),  # words before a node's name, for those whose scheduler has no way of its own
    ],
)
Dashboard = NamedTuple("Dashboard", [("port", int), ("path", str)])
Facts = Dict[str, Any]


class Engine(object):
    """One kind of engine: a head on the first node, workers on the others (on the first, if there are no others)."""

    name = ""
    title = ""  # for people
    worker = "worker"  # what its vendor calls what runs on the nodes
    package = ""  # what is to be installed where it is missing
    module = ""  # what is imported by its processes
    connects = ""  # what to write in a cell
    joined = ""  # a pattern: the head's line that says that one more worker is with it; empty: `Program.up` is enough
    spreads = False  # its workers are one program on the first node, which goes to the others by itself
    contained = True  # it can run in containers
    reads: Sequence[str] = ()  # files of its directory whose content is put into the facts once it is ready

    def head(self, first: First) -> Program:
        """`Program.up` is not looked at: `read` is."""
        raise NotImplementedError

    def read(self, line: str, facts: Facts) -> None:
        """One line of the head's output: what it tells goes into `facts`."""
        raise NotImplementedError

    def ready(self, facts: Facts) -> bool:
        """Whether all is known that workers and clients need."""
        return "address" in facts

    def workers(self, first: First, facts: Facts) -> Program:
        """On each node of theirs."""
        raise NotImplementedError

    def processes(self, first: First) -> int:
        """How many workers will join, of one that `spreads`."""
        raise NotImplementedError

    def files(self, first: First, facts: Facts) -> Dict[str, str]:
        """Written into the engine's directory once the head is ready, for the kernel."""
        return {}

    def links(self, first: First) -> Dict[str, str]:
        """Directories of its own that hold links to all that is in another one, which is made if it is not there."""
        return {}

    def version_words(self, python: str) -> List[str]:
        """The command that prints its version."""
        code = "import %s; print(%s.__version__)" % (self.module, self.module)
        return [python, "-c", code]

    def environment(self, first: First, facts: Facts) -> Dict[str, str]:
        """What the kernel needs to connect."""
        raise NotImplementedError

    def dashboard(self, facts: Facts) -> Optional[Dashboard]:
        """A port on the first node's 127.0.0.1."""
        return None

    def missing(self, lines: List[str]) -> str:
        """Which package these last lines of a process say is not there; empty: they say something else."""
        words = ("No module named '%s" % self.module.split(".")[0], "No module named %s" % self.module)
        return self.package if any(word in line for line in lines for word in words) else ""

    def lack(self, package: str) -> Tuple[str, str]:
        """That it is not there, and what to do."""
        text = "%s is not installed in the kernel's environment" % self.title
        return text, "Install %s there, on all nodes" % package


def join(directory: str, name: str) -> str:
    """The far end is a Unix system, and the node's directory a placeholder."""
    return "%s/%s" % (directory, name)
