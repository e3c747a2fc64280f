"""How a program is started on the other nodes: one row for each scheduler, and ssh where there is none.

| launcher | tells the nodes | starts a program there |
| --- | --- | --- |
| slurm | `scontrol show hostnames` of SLURM_JOB_NODELIST | one `srun --overlap` for all of them |
| pbs, torque | PBS_NODEFILE | `ssh` |
| sge | PE_HOSTFILE | `qrsh -inherit` |
| lsf | LSB_DJOB_HOSTFILE, or LSB_HOSTS | `blaunch` |
| oar | OAR_NODEFILE | `oarsh` |
| ssh | the target's engine_hosts | `ssh` |

Each passes stdin on.  pbsdsh does not, so it cannot hand over a secret that nobody else may see.  Names of nodes are
data: those that could be taken for an option, or for anything but a name, are refused.
"""

import re
import shlex
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional

_HOST = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]{0,63}@)?[A-Za-z0-9\[][A-Za-z0-9_.:\]%-]{0,254}\Z")
# Nothing is asked, a host key that is not known is refused (DESIGN §3, promise 5), and silence is the end.
_SSH = [
    "ssh",
    "-T",
    "-q",
    "-o",
    "BatchMode=yes",
    "-o",
    "StrictHostKeyChecking=yes",
    "-o",
    "ConnectTimeout=15",
    "-o",
    "ServerAliveInterval=10",
    "-o",
    "ServerAliveCountMax=3",
]
Environment = Mapping[str, str]


class NoNodes(Exception):
    """It cannot be told which nodes there are; the text is for people."""


Launcher = NamedTuple(
    "Launcher",
    [
        ("look", Callable[[Environment], List[str]]),  # a command that prints the nodes, or nothing to be run
        ("nodes", Callable[[Environment, str], List[str]]),  # from what that printed
        ("words", Callable[[List[str], Environment], List[str]]),  # before the command, for these nodes
        ("together", bool),  # one for all nodes
        ("joins_words", bool),  # a shell at the other end reads all words as one line
        ("program", str),
        ("resolve", Callable[[str], List[str]]),  # a command that says by which address a node is reached
        (
            "by",
            Callable[[Environment], List[str]],
        ),  # words before a node's name, where they go to one by a shell
    ],
)


def checked(hosts: List[str]) -> List[str]:
    """Each once, in their order; raises `NoNodes`."""
    for host in hosts:
        if not _HOST.match(host):
            raise NoNodes("%r cannot be the name of a node" % host[:80])
    return list(dict.fromkeys(hosts))


def others(hosts: List[str], environment: Environment, machine: str) -> List[str]:
    """Without the node where we are: by its name, or else the first."""
    for mine in (environment.get("SLURMD_NODENAME"), machine):
        if mine and mine in hosts:
            return [host for host in hosts if host != mine]
    short = machine.partition(".")[0].lower()
    left = [host for host in hosts if host.partition(".")[0].lower() != short]
    return left if len(left) < len(hosts) else hosts[1:]


def command(launcher: Launcher, hosts: List[str], boot: List[str], environment: Environment) -> List[str]:
    """What starts `boot` on these nodes (one, unless the launcher takes them together)."""
    words = launcher.words(hosts, environment)
    if launcher.joins_words:
        return words + ["exec " + " ".join(shlex.quote(word) for word in boot)]
    return words + boot


def resolved(said: List[str]) -> str:
    """From the words that `Launcher.resolve` printed; what the node is called need not be known to the network."""
    for word, following in zip(said, said[1:] + [""]):
        if word.startswith("NodeAddr="):  # scontrol show node
            return word.partition("=")[2]
        if word == "hostname":  # ssh -G
            return following
    return ""


def _no_look(host: str) -> List[str]:
    return []


def _ssh_look(host: str) -> List[str]:
    return ["ssh", "-G", "--", host]


def _slurm_look(host: str) -> List[str]:
    return ["scontrol", "--oneliner", "show", "node", host]


def _nothing(environment: Environment) -> List[str]:
    return []


def _in_file(*names: str) -> Callable[[Environment], List[str]]:
    def look(environment: Environment) -> List[str]:
        path = next((environment[name] for name in names if environment.get(name)), None)
        return ["cat", "--", path] if path else []

    return look


def _first_words(environment: Environment, said: str) -> List[str]:
    return [line.split()[0] for line in said.splitlines() if line.strip()]


def _lsf_nodes(environment: Environment, said: str) -> List[str]:
    """A file with one name for each slot, or the same in a variable (bsub(1), LSB_HOSTS)."""
    return _first_words(environment, said) or environment.get("LSB_HOSTS", "").split()


def _hostnames(environment: Environment) -> List[str]:
    nodes = environment.get("SLURM_JOB_NODELIST")
    return ["scontrol", "show", "hostnames", nodes] if nodes else []


def _srun(hosts: List[str], environment: Environment) -> List[str]:
    """One step for all: its stdin goes to each (srun(1), --input), and one that ends leaves the others alone."""
    words = [
        "srun",
        "--overlap",
        "--unbuffered",
        "--nodes=%d" % len(hosts),
        "--ntasks=%d" % len(hosts),
        "--ntasks-per-node=1",
        "--nodelist=%s" % ",".join(hosts),
        "--chdir=/",
        "--mpi=none",
        "--kill-on-bad-exit=0",
        "--no-kill",
        "--wait=0",
        "--quiet",
    ]
    # Since 22.05 srun does not take it from sbatch any more.
    cpus = environment.get("SLURM_CPUS_PER_TASK", "")
    return words + (["--cpus-per-task=%s" % cpus] if cpus.isdigit() else [])


def _ssh(hosts: List[str], environment: Environment) -> List[str]:
    return _SSH + ["--", hosts[0]]


def _row(
    look: Callable[[Environment], List[str]],
    words: Callable[[List[str], Environment], List[str]],
    program: str,
    together: bool = False,
    joins_words: bool = False,
    nodes: Callable[[Environment, str], List[str]] = _first_words,
) -> Launcher:
    resolve = {"ssh": _ssh_look, "srun": _slurm_look}.get(program, _no_look)

    def by(environment: Environment) -> List[str]:
        """Open MPI puts options of its own behind these words."""
        found = words(["a node"], environment)[:-1] if joins_words else []
        return [word for word in found if word != "--"]

    return Launcher(look, nodes, words, together, joins_words, program, resolve, by)


LAUNCHERS: Dict[str, Launcher] = {
    "slurm": _row(_hostnames, _srun, "srun", together=True),
    "pbs": _row(_in_file("PBS_NODEFILE"), _ssh, "ssh", joins_words=True),
    "torque": _row(_in_file("PBS_NODEFILE"), _ssh, "ssh", joins_words=True),
    "sge": _row(
        _in_file("PE_HOSTFILE"), lambda hosts, environment: ["qrsh", "-inherit", "-noshell", hosts[0]], "qrsh"
    ),
    "lsf": _row(
        _in_file("LSB_DJOB_HOSTFILE"),
        lambda hosts, environment: ["blaunch", hosts[0]],
        "blaunch",
        nodes=_lsf_nodes,
    ),
    "oar": _row(
        _in_file("OAR_NODEFILE"),
        lambda hosts, environment: ["oarsh", "-T", hosts[0]],
        "oarsh",
        joins_words=True,
    ),
    "ssh": _row(_nothing, _ssh, "ssh", joins_words=True),
}


def find(name: str) -> Launcher:
    """Raises `NoNodes`."""
    launcher: Optional[Launcher] = LAUNCHERS.get(name)
    if launcher is None:
        raise NoNodes("nothing is known that starts programs on other nodes of %s" % name)
    return launcher
