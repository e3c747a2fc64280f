"""Slurm of other releases of Debian, on a machine of its own: their daemons and commands, their Python in the job."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .netns import Network
from .release_machine import ReleaseMachine, root_of
from .slurm import SlurmSite, start_munge

VERSIONS = {"bullseye": "20.11.", "trixie": "24.11.", "forky": "26.05."}
_PACKAGES = "procps,python3,munge,slurmd,slurmctld,slurm-client,iproute2"
# What those releases do not know (any more), or what needs no saying.
_LEFT_OUT = (
    "CryptoType",
    "SwitchType",
    "AccountingStorageType",
    "JobAcctGather",
    "NodeName=gpu1",
    "GresTypes",
)


class ReleaseSlurm(SlurmSite):
    """Of that release; ``login`` leads into it."""

    def __init__(self, root: Path, network: Network, release: str) -> None:
        super().__init__(root)
        self._release = release
        self._host = "c1"
        self._machine = ReleaseMachine(root, network, root_of(release, release, _PACKAGES))
        self.login = self._machine.login
        self.login.environment.update(self.environment)

    def start(self) -> None:
        for each in ("state", "munge", "dev", *(f"spool/{name}" for name in ("node1", "node2", "node3"))):
            (self.root / each).mkdir(parents=True, exist_ok=True)
        self._write_configuration()
        path = self.root / "slurm.conf"
        lines = [line for line in path.read_text().splitlines() if not line.startswith(_LEFT_OUT)]
        path.write_text("\n".join(line for line in lines if "Nodes=gpu1" not in line) + "\n")
        (self.root / "gres.conf").unlink()
        if self._release != "bullseye":  # where it is not known, and not needed
            (self.root / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
        start_munge(self.root)
        self._machine.start()
        self.command("slurmctld")
        for name in ("node1", "node2", "node3"):
            self.command("slurmd", "-N", name)
        self._wait_idle()

    def stop(self) -> None:
        self._machine.stop()
        subprocess.run(["kill", (self.root / "munged.pid").read_text().strip()], check=False)

    def command(self, *argv: str, check: bool = True) -> str:
        words = [f"{name}={value}" for name, value in self.environment.items()]
        return self._machine.run("env", *words, *argv, check=check)

    def _wait_idle(self) -> None:
        self.expected = ("node1", "node2", "node3")
        super()._wait_idle()
