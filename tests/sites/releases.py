"""Other releases of Debian as far ends: their sshd, their Python and ipykernel, their ssh program.

A root file system of each is put together once by mmdebstrap (half a minute, 250 MB), from the mirror that this
machine's apt uses, and kept in the user's own cache.  A server runs in it under a copy-on-write layer of the test's
own, in namespaces that end with it, and listens on loopback as any other.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psutil

from .debian_mirror import mirror
from .micropython_build import cache, locked
from .ssh import Sshd

OPENSSH = {"bullseye": "OpenSSH_8.4", "trixie": "OpenSSH_10."}
PYTHONS = {"bullseye": "3.9.", "trixie": "3.13."}
RELEASES = tuple(OPENSSH)
_PACKAGES = (
    "base-files",
    "bash",
    "coreutils",
    "dash",
    "dropbear-bin",
    "findutils",
    "grep",
    "libc-bin",
    "libpam-modules",
    "libpam-runtime",
    "openssh-client",
    "openssh-server",
    "python3-ipykernel",
    "sed",
)
_OLD = ('Acquire::Check-Valid-Until "false"', 'APT::Install-Recommends "false"')

# In a mount namespace of its own: $1 root below, $2 layer, $3 what is seen of this machine; then the command.
_INSIDE = """\
set -e
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
mount -t proc proc "$2/root/proc"
mount --rbind /dev "$2/root/dev"
mkdir -p "$2/root$3"
mount --bind "$3" "$2/root$3"
root=$2
shift 3
exec chroot "$root/root" "$@"
"""

_PAM = "auth required pam_unix.so\naccount required pam_unix.so\nsession required pam_permit.so\n"


class BuildError(Exception):
    """The root file system could not be made: what mmdebstrap said."""


def root_of(release: str) -> Path:
    """Made if it is not there yet.  Raises `BuildError`."""
    place = cache() / f"debian-{release}"
    cache().mkdir(parents=True, exist_ok=True)
    with locked(cache() / f"debian-{release}.lock"):
        if not place.exists():
            _make(release, place)
    return place


def _make(release: str, place: Path) -> None:
    """Unpacked only: no package's scripts run, which needs no /proc and no network there."""
    fresh = place.with_name(f"{place.name}-making")
    shutil.rmtree(fresh, ignore_errors=True)
    options = [f"--aptopt={line}" for line in _OLD]
    include = f"--include={','.join(_PACKAGES)}"
    command = [
        "mmdebstrap",
        "--mode=root",
        "--variant=extract",
        *options,
        include,
        release,
        str(fresh),
        mirror(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode != 0:
        raise BuildError(f"mmdebstrap {release}: {done.stderr[-2000:]}")
    fresh.rename(place)


class ReleaseSshd(Sshd):
    """The sshd of that release on loopback; whoever logs in is root there, by key or by this password."""

    password = "correct horse"

    def __init__(self, directory: Path, release: str, options: Mapping[str, str] | None = None) -> None:
        super().__init__(directory, options)
        self.layer = directory.parent / f"{directory.name}-layer"
        for name in ("upper/etc/pam.d", "upper/run/sshd", "work", "root"):
            (self.layer / name).mkdir(parents=True)
        etc = self.layer / "upper" / "etc"
        (etc / "passwd").write_text(
            "root:x:0:0:root:/root:/bin/bash\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
        )
        (etc / "group").write_text("root:x:0:\ntty:x:5:\nshadow:x:42:\nnogroup:x:65534:\n")
        (etc / "shadow").write_text(f"root:{_hashed(self.password)}:19000:0:99999:7:::\n")
        (etc / "shadow").chmod(0o600)
        (etc / "hosts").write_text("127.0.0.1 localhost\n")
        for name in ("sshd", "other"):
            (etc / "pam.d" / name).write_text(_PAM)
        # Its Python is not this one, and its home is its own.
        self.environment = {
            **{
                name: value
                for name, value in self.environment.items()
                if not name.startswith(("JUPYTER", "IPYTHON"))
            },
            "HOME": "/root",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
        }
        unshared = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        shown = [str(root_of(release)), str(self.layer), str(directory)]
        self.before = [*unshared, "/bin/sh", "-c", _INSIDE, "sh", *shown]

    def stop(self) -> None:
        """All that runs in there ends with its first process."""
        if self._process is None:
            return
        inside = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()  # unshare does not listen to SIGTERM
        self._process.wait()
        self._process = None
        psutil.wait_procs(inside, timeout=10)


def _hashed(password: str) -> str:
    command = ["openssl", "passwd", "-6", "-stdin"]
    return subprocess.run(command, input=password, capture_output=True, text=True, check=True).stdout.strip()


def program_of(release: str, path: str, directory: Path) -> Path:
    """A script that runs that release's program: its own loader and libraries, this machine's files."""
    root = root_of(release)
    libraries = sorted(
        {
            path.parent
            for pattern in ("lib/*/libc.so.6", "usr/lib/*/libc.so.6", "usr/lib/*/libcrypto.so.*")
            for path in root.glob(pattern)
        }
    )
    loader = next(
        path for place in libraries for path in sorted(place.glob("ld-*.so*")) if not path.is_symlink()
    )
    directory.mkdir(exist_ok=True)
    program = directory / Path(path).name
    places = os.pathsep.join(map(str, libraries))
    program.write_text(f'#!/bin/sh\nexec {loader} --library-path {places} {root}{path} "$@"\n')
    program.chmod(0o755)
    return program
