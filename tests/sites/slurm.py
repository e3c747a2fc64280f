"""A real Slurm on this machine: its own munge, one slurmctld and several slurmd on free loopback ports.

Needs root (a slurmd starts jobs as their user) and the Debian packages slurmctld, slurmd, slurm-client, munge.
"""

from __future__ import annotations

import os
import platform
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

_DAEMONS = "/usr/sbin/"
_NODES = ("node1", "node2", "node3", "gpu1")

_CONFIGURATION = """\
ClusterName=farkernel
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
MpiDefault=none
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
DefMemPerCPU=50
ReturnToService=2
GresTypes=gpu
SlurmctldTimeout=10
SlurmdTimeout=15
InactiveLimit=0
KillWait=2
MinJobAge={job_age}
OverTimeLimit=0
CompleteWait=0
MessageTimeout=5
AccountingStorageType=accounting_storage/none
{nodes}
NodeName=gpu1 NodeHostname={host} NodeAddr=127.0.0.1 Port={gpu_port} CPUs=4 RealMemory=2000 Gres=gpu:a100:2 State=UNKNOWN
PartitionName=debug Nodes=node[1-3] Default=YES MaxTime=60 DefaultTime=10 State=UP
PartitionName=gpu Nodes=gpu1 MaxTime=60 State=UP
PartitionName=closed Nodes=node1 MaxTime=60 State=DOWN
"""
_NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory=4000 State=UNKNOWN"


class SlurmSite:
    """Started by `start`, ended by `stop`; `environment` is what its commands need to find it."""

    def __init__(self, root: Path, cpus: int = 8, job_age: int = 300) -> None:
        self.root = root
        self._cpus = cpus
        self._job_age = job_age
        self.expected: Sequence[str] = _NODES
        self._host = platform.node().split(".")[0]

    @property
    def environment(self) -> Mapping[str, str]:
        return {"SLURM_CONF": str(self.root / "slurm.conf")}

    def start(self) -> None:
        for each in ("state", "munge", "dev", *(f"spool/{name}" for name in _NODES)):
            (self.root / each).mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o755)
        self._write_configuration()
        start_munge(self.root)
        self.start_controller()
        for name in _NODES:
            self.start_node(name)
        self._wait_idle()

    def stop(self) -> None:
        """End the daemons that were started here, and whatever jobs they still have."""
        for state in ("RUNNING", "PENDING", "SUSPENDED"):
            self.command("scancel", f"--state={state}", "--user=root", check=False)
        pids = [self._pid(name) for name in [*(f"slurmd-{node}" for node in _NODES), "slurmctld", "munged"]]
        daemons = [psutil.Process(pid) for pid in pids if pid is not None and psutil.pid_exists(pid)]
        steps = [child for daemon in daemons for child in daemon.children(recursive=True)]
        for process in daemons:
            process.resume()
            process.terminate()
        _, left = psutil.wait_procs(daemons + steps + self._steps(), timeout=10)
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=5)

    def _steps(self) -> list[psutil.Process]:
        """slurmstepd leaves its slurmd's process tree."""
        found = []
        for process in psutil.process_iter(["name"]):
            try:
                if process.info["name"] == "slurmstepd" and str(self.root) in " ".join(
                    process.environ().values()
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    # faults

    def start_controller(self) -> None:
        self._run(_DAEMONS + "slurmctld", "-f", str(self.root / "slurm.conf"))

    def stop_controller(self) -> None:
        pid = self._pid("slurmctld")
        if pid is not None:
            process = psutil.Process(pid)
            process.terminate()
            process.wait(15)

    def freeze_controller(self) -> None:
        os.kill(self._pid("slurmctld") or 0, signal.SIGSTOP)

    def thaw_controller(self) -> None:
        os.kill(self._pid("slurmctld") or 0, signal.SIGCONT)

    def controller_runs(self) -> bool:
        pid = self._pid("slurmctld")
        return pid is not None and psutil.pid_exists(pid)

    def start_node(self, name: str) -> None:
        self._run(_DAEMONS + "slurmd", "-f", str(self.root / "slurm.conf"), "-N", name)

    # looking

    def command(self, *argv: str, check: bool = True) -> str:
        """What one of Slurm's commands says."""
        done = subprocess.run(
            argv,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{argv}: {done.stderr.strip()}")
        return done.stdout

    def jobs(self, *states: str) -> dict[str, str]:
        """Job id → state, of the jobs that have not ended (or in the given states)."""
        wanted = ["--states=" + ",".join(states)] if states else []
        lines = self.command("squeue", "--noheader", "--format=%i %T", *wanted).splitlines()
        return dict(line.split() for line in lines)

    # inside

    def _write_configuration(self) -> None:
        ports = free_ports(len(_NODES) + 1)
        nodes = [
            _NODE.format(name=name, host=self._host, port=port, cpus=self._cpus)
            for name, port in zip(_NODES[:-1], ports, strict=False)
        ]
        (self.root / "slurm.conf").write_text(
            _CONFIGURATION.format(
                root=self.root,
                host=self._host,
                controller=ports[-1],
                gpu_port=ports[-2],
                nodes="\n".join(nodes),
                job_age=self._job_age,
            )
        )
        for number in range(2):
            device = self.root / "dev" / f"nvidia{number}"
            if not device.exists():
                os.mknod(device, 0o20666, os.makedev(1, 3))
        (self.root / "gres.conf").write_text(
            f"NodeName=gpu1 Name=gpu Type=a100 File={self.root}/dev/nvidia[0-1]\n"
        )

    def _run(self, *argv: str) -> None:
        _start(argv, self.environment)

    def _wait_idle(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            said = self.command("sinfo", "--noheader", "--Node", "--states=idle", "--format=%N", check=False)
            if set(said.split()) >= set(self.expected):
                return
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"Slurm did not come up: {(self.root / 'slurmctld.log').read_text()[-2000:]}"
                )
            time.sleep(0.1)

    def _pid(self, name: str) -> int | None:
        try:
            return int((self.root / f"{name}.pid").read_text())
        except (OSError, ValueError):
            return None


def start_munge(root: Path) -> None:
    """munged with a key and a socket of its own; its process id is in ``munged.pid``."""
    key = root / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    command = [
        _DAEMONS + "munged",
        "--force",
        f"--key-file={key}",
        f"--socket={root}/munge.socket",
        f"--pid-file={root}/munged.pid",
        f"--log-file={root}/munged.log",
        f"--seed-file={root}/munge/seed",
        "--num-threads=1",
    ]
    _start(command, {})


def _start(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """A daemon, which goes into the background by itself."""
    done = subprocess.run(
        argv, env={**os.environ, **environment}, capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode:
        raise AssertionError(f"{argv[0]}: {done.stderr.strip()}")


class Wrappers:
    """Stand before Slurm's commands on PATH: count the calls, and do something once after (or before) one of them."""

    PROGRAMS = ("sbatch", "sinfo", "squeue", "scancel", "scontrol", "srun", "sacct")

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._log = directory / "calls"
        for program in self.PROGRAMS:
            path = directory / program
            path.write_text(_WRAPPER.format(directory=directory, program=program))
            path.chmod(0o755)

    def once(self, when: str, program: str, lines: str) -> None:
        """``when``: before or after.  The lines are the shell's."""
        temporary = self.directory / "new"
        temporary.write_text(lines + "\n")
        temporary.rename(self.directory / f"{when}-{program}")

    def calls(self, program: str = "") -> list[float]:
        """When that program (or any) was called."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [float(when) for when, name in map(str.split, lines) if program in ("", name)]


_WRAPPER = """\
#!/bin/sh
hook() {{
  if mv {directory}/$1-{program} {directory}/$1-{program}.taken 2>/dev/null; then . {directory}/$1-{program}.taken; fi
}}
echo "$(date +%s.%N) {program}" >>{directory}/calls
hook before
/usr/bin/{program} "$@"
status=$?
hook after
exit $status
"""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()
