"""How other nodes are found and reached: exact commands, and names that are no names."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from farkernel.launcher.agent.engines import launchers, node

BOOT = ["/bin/sh", "-c", 'exec "$1"', "sh", "/usr/bin/true"]


def test_slurm_takes_all_nodes_in_one_step() -> None:
    slurm = launchers.find("slurm")
    assert slurm.look({"SLURM_JOB_NODELIST": "n[1-3]"}) == ["scontrol", "show", "hostnames", "n[1-3]"]
    assert slurm.look({}) == []
    assert slurm.nodes({}, "n1\nn2\nn3\n") == ["n1", "n2", "n3"]
    words = launchers.command(slurm, ["n2", "n3"], ["x"], {"SLURM_CPUS_PER_TASK": "4"})
    assert words[:2] == ["srun", "--overlap"]
    assert {"--nodelist=n2,n3", "--nodes=2", "--ntasks=2", "--kill-on-bad-exit=0", "--no-kill"} < set(words)
    assert words[-2:] == ["--cpus-per-task=4", "x"]
    assert "--cpus-per-task=4; id" not in launchers.command(
        slurm, ["n2"], ["x"], {"SLURM_CPUS_PER_TASK": "4; id"}
    )


@pytest.mark.parametrize(
    ("name", "variable", "content", "words"),
    [
        ("pbs", "PBS_NODEFILE", "n1\nn1\nn2\n", ["ssh", "--", "n2"]),
        ("torque", "PBS_NODEFILE", "n1\nn1\nn2\n", ["ssh", "--", "n2"]),
        ("oar", "OAR_NODEFILE", "n1\nn2\n", ["oarsh", "-T", "n2"]),
        ("sge", "PE_HOSTFILE", "n1 2 all.q@n1 <NULL>\nn2 2 all.q@n2 <NULL>\n", ["qrsh", "-inherit", "n2"]),
        ("lsf", "LSB_DJOB_HOSTFILE", "n1\nn2\nn2\n", ["blaunch", "n2"]),
    ],
)
def test_schedulers_with_a_file_of_nodes(
    tmp_path: Path, name: str, variable: str, content: str, words: list[str]
) -> None:
    launcher = launchers.find(name)
    file = tmp_path / "nodes"
    file.write_text(content)
    environment = {variable: str(file)}
    said = subprocess.run(launcher.look(environment), capture_output=True, text=True, check=True).stdout
    hosts = launchers.checked(launcher.nodes(environment, said))
    assert hosts == ["n1", "n2"]
    others = launchers.others(hosts, environment, "n1.cluster")
    assert others == ["n2"]
    command = launchers.command(launcher, others, BOOT, environment)
    places = [command.index(word) for word in words]
    assert places == sorted(places)
    if launcher.joins_words:
        assert shlex.split(command[-1]) == ["exec", *BOOT]
        assert "\\" not in command[-1]
        assert (
            "'\"'" not in command[-1]
        )  # a quote within quotes, which not every login shell reads as we mean it
    else:
        assert command[-len(BOOT) :] == BOOT
    assert launcher.look({}) == []


def test_a_nodes_address() -> None:
    slurm, ssh = launchers.find("slurm"), launchers.find("ssh")
    assert slurm.resolve("n1") == ["scontrol", "--oneliner", "show", "node", "n1"]
    assert launchers.resolved(["NodeName=n1", "Arch=x", "NodeAddr=10.0.0.7", "NodeHostName=h"]) == "10.0.0.7"
    assert ssh.resolve("pi@pi2") == ["ssh", "-G", "--", "pi@pi2"]
    assert launchers.resolved(["user", "pi", "hostname", "10.0.0.2", "port", "22"]) == "10.0.0.2"
    assert launchers.resolved([]) == launchers.resolved(["hostname"]) == ""
    assert launchers.find("lsf").resolve("n1") == []


def test_lsf_without_a_file() -> None:
    assert launchers.find("lsf").nodes({"LSB_HOSTS": "n1 n1 n2"}, "") == ["n1", "n1", "n2"]


def test_where_we_are_is_left_out() -> None:
    hosts = ["a", "b", "c"]
    assert launchers.others(hosts, {"SLURMD_NODENAME": "b"}, "x") == ["a", "c"]
    assert launchers.others(hosts, {}, "c.example.org") == ["a", "b"]
    assert launchers.others(["a.x", "b.x"], {}, "B") == ["a.x"]
    assert launchers.others(hosts, {}, "somewhere") == ["b", "c"]


@pytest.mark.parametrize(
    "host", ["-oProxyCommand=id", "a b", "a;id", "$(id)", "", "a\nb", "x@-y", "../a", "a,b"]
)
def test_a_name_that_is_none(host: str) -> None:
    with pytest.raises(launchers.NoNodes, match="cannot be the name of a node"):
        launchers.checked(["good", host])


@pytest.mark.parametrize("host", ["n1", "pi@10.0.0.2", "node-3.cluster.local", "fe80::1%eth0"])
def test_a_name_that_is_one(host: str) -> None:
    assert launchers.checked([host, host]) == [host]


def test_a_scheduler_without_a_launcher() -> None:
    with pytest.raises(launchers.NoNodes, match="on other nodes of htcondor"):
        launchers.find("htcondor")


@pytest.mark.parametrize("shell", ["sh", "bash", "tcsh", "fish"])
def test_every_login_shell_starts_a_node(shell: str) -> None:
    """What ssh hands to the login shell of the node runs the program that comes on stdin."""
    words = node.boot_words(["/nonexistent/python", "python3"])
    line = launchers.command(launchers.find("ssh"), ["h"], words, {})[-1]
    program = 'import os; os.write(1, b"here %d" % r["number"])'
    given = b'["%s", {"number": 7}]\n' % program.replace('"', '\\"').encode()
    path = shutil.which(shell)
    assert path is not None
    done = subprocess.run([path, "-c", line], input=given, capture_output=True, check=True, timeout=30)
    assert done.stdout == b"here 7"
