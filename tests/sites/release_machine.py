"""A machine with another release of Debian in it: what its packages bring runs there, in namespaces that end with it.

A root file system of each is put together once by mmdebstrap (some minutes, 400 MB and more), from the mirror that this
machine's apt uses, and kept in the user's own cache.  What a test writes there goes into a layer of its own.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .accounts import Account
from .debian_mirror import mirror
from .machines import Machine
from .micropython_build import cache, locked
from .netns import Network
from .ssh import Sshd

_OPTIONS = ('Acquire::Check-Valid-Until "false"', 'APT::Install-Recommends "false"')

# In the machine's own mount namespace: the release's root under a layer is what /mnt is.
_ROOT = """\
mkdir -p "$layer/upper" "$layer/work" "$layer/root"
mount -t overlay overlay -o "lowerdir=$below,upperdir=$layer/upper,workdir=$layer/work" "$layer/root"
for each in proc dev sys; do mount --rbind "/$each" "$layer/root/$each"; done
mkdir -p "$layer/root$site" "$layer/root/home"
mount --bind "$site" "$layer/root$site"
cp /etc/hosts "$layer/root/etc/hosts"
for each in passwd group shadow; do
  grep "^$user:" "/etc/$each" | sed "s|:$home:|:/home/$user:|" >>"$layer/root/etc/$each" || :
done
if [ -n "$home" ]; then
  mkdir "$layer/root/home/$user"
  mount --bind "$home" "$layer/root/home/$user"
fi
mount --rbind "$layer/root" /mnt
"""


def root_of(name: str, release: str, packages: str) -> Path:
    """The release with these packages (and what they depend on); made if it is not there yet."""
    place = cache() / f"schedulers-{name}"
    cache().mkdir(parents=True, exist_ok=True)
    with locked(cache() / f"schedulers-{name}.lock"):
        if not place.exists():
            fresh = place.with_name(f"{place.name}-making")
            shutil.rmtree(fresh, ignore_errors=True)
            options = [f"--aptopt={line}" for line in _OPTIONS]
            command = ["mmdebstrap", "--mode=root", "--variant=minbase", *options, f"--include={packages}"]
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


class ReleaseMachine:
    """``login`` leads into it, as root or as that account, whose home is in /home there.  ``site`` is seen by the same name
    as here.
    """

    def __init__(
        self, site: Path, network: Network, below: Path, user: Account | None = None, name: str = "c1"
    ) -> None:
        site.mkdir(parents=True, exist_ok=True)
        site.chmod(0o755)
        space = network.host(name)
        _, address = network.cable(None, space)
        network.segment(space)
        hosts = site / "hosts"
        hosts.write_text(f"127.0.0.1 localhost {name}\n")
        self.layer = site.with_name(f"{site.name}-layer")
        self.machine = Machine(site, space, name, {"/etc/hosts": hosts})
        self.user = user.name if user else "root"
        self.home = f"/home/{user.name}" if user else "/root"
        names: dict[str, object] = {"below": below, "layer": self.layer, "site": site}
        names |= {"user": user.name if user else "-", "home": user.home if user else ""}
        self.machine.daemons = "".join(f"{name}={value}\n" for name, value in names.items()) + _ROOT
        # sshd wants nobody to be able to write above it: /tmp is no such place.
        self.login = Sshd(site / "sshd", {"ChrootDirectory": "/mnt"}, port=22, user=self.user)
        self.login.address_there = address
        self.login.know()
        # What is in there is another system, with a home and a /tmp of its own.
        kept = ("FARKERNEL_TEST", "FARKERNEL_AGENT_IDLE")
        self.login.environment = {
            **{name: value for name, value in self.login.environment.items() if name in kept},
            "HOME": self.home,
            "PATH": "/usr/local/bin:/usr/bin:/bin",
        }
        self.login.write_client_config()

    def start(self) -> None:
        self.machine.boot()
        self.login.before = self.machine.inside()
        self.login.start()

    def stop(self) -> None:
        """All that runs there ends."""
        self.login.stop()
        self.machine.stop()

    def run(self, *argv: str, check: bool = True) -> str:
        """What a command of that release says, run by root."""
        return self.machine.run("chroot", "/mnt", *argv, check=check)

    def as_user(self, *argv: str, check: bool = True) -> str:
        words = ("runuser", "-u", self.user, "--", "env", f"HOME={self.home}")
        return self.run(*words, *argv, check=check)
