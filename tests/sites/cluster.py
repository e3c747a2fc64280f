"""A cluster of whole machines: a login host, which alone can be reached from here, and nodes that fail like real ones.

The login host also runs the controller (and slurmdbd, if wanted).  Memory is enforced by control groups, jobs of one
partition are preempted by those of the other.  Needs root and the Debian packages of tests/sites/slurm.py, and with
accounts slurmdbd, slurm-wlm-mysql-plugin, mariadb-server-core and mariadb-client-core.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .accounts import Account, own
from .engine import wait_until
from .machines import Machine
from .netns import Network
from .slurm import start_munge
from .slurm_accounts import restart_accounts, start_accounts
from .ssh import Sshd

NODES = ("c1", "c2")

_CONFIGURATION = """\
ClusterName=farkernel
SlurmctldHost=login({address})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=/etc/slurm/munge.socket
CryptoType=crypto/munge
StateSaveLocation=/etc/slurm/state
SlurmdSpoolDir=/etc/slurm/spool/%n
SlurmctldPidFile=/etc/slurm/slurmctld.pid
SlurmdPidFile=/etc/slurm/slurmd-%n.pid
SlurmctldLogFile=/etc/slurm/slurmctld.log
SlurmdLogFile=/etc/slurm/slurmd-%n.log
ProctrackType=proctrack/cgroup
PrologFlags=contain
TaskPlugin=task/cgroup
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
MpiDefault=none
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
DefMemPerCPU=400
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SlurmctldTimeout=10
SlurmdTimeout=6
InactiveLimit=0
KillWait=2
MinJobAge={job_age}
CompleteWait=0
MessageTimeout=5
TCPTimeout=2
{accounts}
{nodes}
PartitionName=debug Nodes=c[1-2] Default=YES MaxTime=60 DefaultTime=10 PriorityTier=1 State=UP
PartitionName=urgent Nodes=c[1-2] MaxTime=60 DefaultTime=10 PriorityTier=10 PreemptMode=OFF State=UP
"""
_NODE = "NodeName={name} NodeHostname={name} NodeAddr={address} CPUs=4 RealMemory=4000 State=UNKNOWN"
_CONTROL_GROUPS = """\
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
CgroupAutomount=no
ConstrainRAMSpace=yes
"""
_ACCOUNTS = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePass=/etc/slurm/munge.socket
GresTypes=gpu
AccountingStorageTRES=gres/gpu,gres/gpu:a100
"""
# Logins only for those who have a job there, and into that job; root is always an exception.
_PAM = """\
auth required pam_permit.so
account required pam_slurm_adopt.so action_no_jobs=deny
session required pam_permit.so
"""
# As sites do it that want no steps from outside.
_SRUN = """\
#!/bin/sh
[ -e /etc/slurm/no-steps ] || exec /usr/bin/srun "$@"
echo "srun: error: steps from the login host are not allowed here" >&2
exit 1
"""


class ClusterSite:
    """Started by `start`, ended by `stop`.  ``login`` is its sshd."""

    def __init__(self, root: Path, network: Network, accounts: bool = False, job_age: int = 300) -> None:
        self.root = root
        self._accounts = accounts
        self._job_age = job_age
        spaces = [network.host(name) for name in ("lo", *NODES)]
        _, self.address = network.cable(None, spaces[0])
        inner, *addresses = network.segment(*spaces)
        self._inner = inner
        self._addresses = dict(zip(NODES, addresses, strict=True))
        hosts = root / "hosts"
        named = {"login": inner, **self._addresses}
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in named.items())]
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o755)
        hosts.write_text("\n".join(lines) + "\n")
        files = {"/etc/hosts": hosts, "/etc/slurm": root}  # where all of Slurm is looked for
        config = root / "login_ssh_config"
        config.write_text("GlobalKnownHostsFile /etc/slurm/nodes_known\n")
        self.login_machine = Machine(root, spaces[0], "login", {**files, "/etc/ssh/ssh_config": config})
        pam = root / "pam-sshd"
        pam.write_text(_PAM)
        # What is in /tmp and in the run directory belongs to each machine; the home is shared.
        private = [root / "login-sshd" / "far"]
        self.nodes = {
            name: Machine(root, space, name, {**files, "/etc/pam.d/sshd": pam}, private)
            for name, space in zip(NODES, spaces[1:], strict=True)
        }
        self.login = self._login()

    def _login(self) -> Sshd:
        login = Sshd(self.root / "login-sshd", port=22, user="root")
        login.address_there = self.address
        login.know()
        programs = self.root / "bin"
        programs.mkdir()
        (programs / "srun").write_text(_SRUN)
        (programs / "srun").chmod(0o755)
        login.environment["PATH"] = f"/etc/slurm/bin:{login.environment['PATH']}"
        login.write_client_config()
        return login

    def start(self) -> None:
        for each in ("state", "munge", *(f"spool/{name}" for name in NODES)):
            (self.root / each).mkdir(parents=True)
        self._write_configuration()
        start_munge(self.root)
        self.login_machine.boot()
        self.login.before = self.login_machine.inside()
        self.login.start()
        if self._accounts:
            start_accounts(self.root, self._on_login)
        self.start_controller()
        for name, node in self.nodes.items():
            node.daemons = f"/usr/sbin/slurmd -N {name}"
            node.boot()
        self.wait_idle(*NODES)

    def stop(self) -> None:
        self.login.stop()
        for machine in (*self.nodes.values(), self.login_machine):
            machine.stop()
        self._stop_munge()

    def start_controller(self) -> None:
        self._on_login("/usr/sbin/slurmctld")

    def save_state(self) -> None:
        """Returns when the controller has written down which jobs run: it does so within 5 s, and one that starts with
        an older state takes a job that runs for one that waits, and its node ends it then.
        """
        asked = time.time()
        for job in self.jobs("RUNNING"):
            self.command("scontrol", "update", f"jobid={job}", "comment=save")
        saved = self.root / "state" / "job_state"
        wait_until(lambda: saved.exists() and saved.stat().st_mtime > asked, "the state to be saved")

    def reboot_login(self) -> None:
        """All that ran there is gone at once: logins, controller, accounts; and comes back by and by."""
        self.login_machine.crash()
        self.login.stop()
        self.login_machine.power_on()
        self.login.before = self.login_machine.inside()
        self.login.start()
        if self._accounts:
            restart_accounts(self._on_login)
        self.start_controller()

    def command(self, *argv: str, check: bool = True) -> str:
        """What one of Slurm's commands says, on the login host."""
        return self._on_login(*argv, check=check)

    def jobs(self, *states: str) -> dict[str, str]:
        """Job id → state, of the jobs that have not ended (or in the given states)."""
        wanted = ["--states=" + ",".join(states)] if states else []
        lines = self.command("squeue", "--noheader", "--format=%i %T", *wanted).splitlines()
        return dict(line.split() for line in lines)

    @contextmanager
    def without_steps(self) -> Iterator[None]:
        """srun gets nobody into a job."""
        switch = self.root / "no-steps"
        switch.touch()
        try:
            yield
        finally:
            switch.unlink()

    def wait_idle(self, *names: str) -> None:
        deadline = time.monotonic() + 40
        while True:
            said = self.command("sinfo", "--noheader", "--Node", "--states=idle", "--format=%N", check=False)
            if set(said.split()) >= set(names):
                return
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"Slurm did not come up: {(self.root / 'slurmctld.log').read_text()[-2000:]}"
                )
            time.sleep(0.1)

    # inside

    def _on_login(self, *argv: str, check: bool = True) -> str:
        return self.login_machine.run(*argv, check=check)

    def _write_configuration(self) -> None:
        nodes = [_NODE.format(name=name, address=address) for name, address in self._addresses.items()]
        (self.root / "slurm.conf").write_text(
            _CONFIGURATION.format(
                address=self._inner,
                nodes="\n".join(nodes),
                job_age=self._job_age,
                accounts=_ACCOUNTS if self._accounts else "AccountingStorageType=accounting_storage/none",
            )
        )
        (self.root / "cgroup.conf").write_text(_CONTROL_GROUPS)

    def _stop_munge(self) -> None:
        subprocess.run(["kill", (self.root / "munged.pid").read_text().strip()], check=False)


class UserSshd(Sshd):
    """The login host's for somebody who is not root."""

    def __init__(self, site: ClusterSite, user: Account) -> None:
        super().__init__(site.root / "user-sshd", port=2222, user=user.name)
        self.address_there = site.address
        self.know()
        self.before = site.login_machine.inside()
        # Each machine has a /tmp of its own for them.
        del self.environment["FARKERNEL_RUN_DIR"]
        self.environment["PATH"] = "/etc/slurm/bin:/usr/local/bin:/usr/bin:/bin"


class NodeSshd(Sshd):
    """sshd on a node, which that user gets to from the login host without any question while a job of theirs is there."""

    def __init__(self, site: ClusterSite, name: str, user: Account) -> None:
        super().__init__(site.root / f"{name}-sshd", port=22, user=user.name)
        self.address_there = name
        self.options = {"UsePAM": "yes"}
        self.before = site.nodes[name].inside()
        del self.environment["FARKERNEL_RUN_DIR"]
        ssh = user.home / ".ssh"
        ssh.mkdir(mode=0o700)
        shutil.copy(self.key, ssh / "id_ed25519")
        own(ssh, user)
        public = (self.directory / "host_key.pub").read_text().split()
        (site.root / "nodes_known").write_text(f"{name} {public[0]} {public[1]}\n")
