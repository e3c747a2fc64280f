"""Slurm of other releases of Debian, on a machine of its own: their daemons and commands, their Python in the job.

A root file system of each is put together once by mmdebstrap (some minutes, 400 MB) and kept in the user's own cache.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .debian_mirror import mirror
from .machines import Machine
from .micropython_build import cache, locked
from .netns import Network
from .slurm import SlurmSite, start_munge
from .ssh import Sshd

VERSIONS = {"bullseye": "20.11.", "trixie": "24.11."}
_PACKAGES = "procps,python3,munge,slurmd,slurmctld,slurm-client,iproute2"
_OPTIONS = ("Acquire::Check-Valid-Until=false", 'APT::Install-Recommends "false"')
# What those releases do not know (any more), or what needs no saying.
_LEFT_OUT = (
    "CryptoType",
    "SwitchType",
    "AccountingStorageType",
    "JobAcctGather",
    "NodeName=gpu1",
    "GresTypes",
)

# $1 root below, $2 layer, $3 what is seen of this machine.
_ROOT = """\
mkdir -p "$layer/upper" "$layer/work" "$layer/root"
mount -t overlay overlay -o "lowerdir=$below,upperdir=$layer/upper,workdir=$layer/work" "$layer/root"
for each in proc dev sys; do mount --rbind "/$each" "$layer/root/$each"; done
mkdir -p "$layer/root$site" "$layer/root$home"
mount --bind "$site" "$layer/root$site"
cp /etc/hosts "$layer/root/etc/hosts"
mount --rbind "$layer/root" /mnt
"""


def root_of(release: str) -> Path:
    """Made if it is not there yet."""
    place = cache() / f"schedulers-{release}"
    cache().mkdir(parents=True, exist_ok=True)
    with locked(cache() / f"schedulers-{release}.lock"):
        if not place.exists():
            fresh = place.with_name(f"{place.name}-making")
            shutil.rmtree(fresh, ignore_errors=True)
            options = [f"--aptopt={line}" for line in _OPTIONS]
            command = ["mmdebstrap", "--mode=root", "--variant=minbase", *options, f"--include={_PACKAGES}"]
            done = subprocess.run(
                [*command, release, str(fresh), mirror()],
                capture_output=True,
                text=True,
                check=False,
                cwd="/",
            )
            assert done.returncode == 0, f"mmdebstrap {release}: {done.stderr[-2000:]}"
            fresh.rename(place)
    return place


class ReleaseSlurm(SlurmSite):
    """Of that release; ``login`` leads into it."""

    def __init__(self, root: Path, network: Network, release: str) -> None:
        super().__init__(root)
        self._release = release
        self._host = "c1"
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o755)
        space = network.host("c1")
        _, address = network.cable(None, space)
        network.segment(space)
        hosts = root / "hosts"
        hosts.write_text("127.0.0.1 localhost c1\n")
        self._layer = root.with_name(f"{root.name}-layer")
        self.machine = Machine(root, space, "c1", {"/etc/hosts": hosts})
        names = {"below": root_of(release), "layer": self._layer, "site": root, "home": "/home"}
        self.machine.daemons = "".join(f"{name}={value}\n" for name, value in names.items()) + _ROOT
        # sshd wants nobody to be able to write above it: /tmp is no such place.
        self.login = Sshd(root / "sshd", {"ChrootDirectory": "/mnt"}, port=22, user="root")
        self.login.address_there = address
        self.login.know()
        # What is in there is another system, with a home of its own.
        inside = {"HOME": "/root", "PATH": "/usr/local/bin:/usr/bin:/bin", **self.environment}
        kept = {name: value for name, value in self.login.environment.items() if name.startswith("FARKERNEL")}
        self.login.environment = {**kept, **inside}
        self.login.write_client_config()

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
        self.machine.boot()
        self.login.before = self.machine.inside()
        self.login.start()
        self._inside("slurmctld")
        for name in ("node1", "node2", "node3"):
            self._inside("slurmd", "-N", name)
        self._wait_idle()

    def stop(self) -> None:
        self.login.stop()
        self.machine.stop()
        subprocess.run(["kill", (self.root / "munged.pid").read_text().strip()], check=False)

    def command(self, *argv: str, check: bool = True) -> str:
        return self._inside(*argv, check=check)

    def _inside(self, *argv: str, check: bool = True) -> str:
        words = [f"{name}={value}" for name, value in self.environment.items()]
        return self.machine.run("chroot", "/mnt", "env", *words, *argv, check=check)

    def _wait_idle(self) -> None:
        self.expected = ("node1", "node2", "node3")
        super()._wait_idle()
