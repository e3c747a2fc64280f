"""Environment Modules (the Tcl ones) in the place of Lmod: Debian lets nobody have both.

The package is fetched once from where this machine's apt has its packages, unpacked into the user's own cache, and laid
over the system's directories in a mount namespace that goes with the test.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .micropython_build import cache, locked

_PACKAGE = "environment-modules"
# $1: the package's files, $2: files of the test's own.
_MOUNT = """\
set -e
mount -t overlay overlay -o "lowerdir=$1/usr:/usr" /usr
mount -t overlay overlay -o "lowerdir=$2/etc:$1/etc:/etc" /etc
mount -t tmpfs none /usr/share/lmod
echo ready
exec cat
"""


class TclModules:
    """Needs root.  What runs `inside` has these modules and no Lmod."""

    def __init__(self, directory: Path, modulefiles: Path) -> None:
        own = directory / "tcl-modules"
        (own / "etc/profile.d").mkdir(parents=True)
        (own / "etc/profile.d/lmod.sh").touch()
        (own / "etc/environment-modules").mkdir()
        (own / "etc/environment-modules/modulespath").write_text(f"{modulefiles}\n")
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _MOUNT, "sh"]
        self._holder = subprocess.Popen(
            [*command, str(unpacked()), str(own)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"

    def inside(self) -> list[str]:
        """The words before a command that shall run with them."""
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt"]

    def close(self) -> None:
        self._holder.communicate(timeout=10)


def unpacked() -> Path:
    place = cache() / _PACKAGE
    cache().mkdir(parents=True, exist_ok=True)
    with locked(cache() / f"{_PACKAGE}.lock"):
        if not place.exists():
            fresh = place.with_name(f"{_PACKAGE}-making")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            # As root, because apt's own user may not write there.
            command = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", _PACKAGE]
            subprocess.run(command, cwd=fresh, check=True, capture_output=True, timeout=50)
            (package,) = fresh.glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", str(package), str(fresh / "files")], check=True, timeout=30)
            (fresh / "files").rename(place)
            shutil.rmtree(fresh)
    return place
