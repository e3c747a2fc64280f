"""MicroPython 1.25 for QEMU, built from Debian's source with the port beside this file; 25 s, once for each content.

    python -m tests.sites.micropython_build         builds it if need be, and says where it is

What is built is kept in the user's own cache (not that of a test), under a hash of all that went into it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .debian_mirror import mirror

VERSION = "1.25.0"
ARCHIVE = f"micropython_{VERSION}+ds.orig.tar.xz"
SHA256 = "7b25be99a502f070b2de81dafc08da7051d992325d6e67daa9045a918fffdbea"
PLACE = f"pool/main/m/micropython/{ARCHIVE}"
PORT = Path(__file__).parent / "micropython_port"
EPOCH = "1744675200"  # 2025-04-15: the date that the firmware shows


class BuildError(Exception):
    """The firmware could not be built: what failed and what it said."""


def cache() -> Path:
    """The user's own: ``HOME`` and ``XDG_CACHE_HOME`` are a test's."""
    return Path(pwd.getpwuid(os.getuid()).pw_dir) / ".cache" / "farkernel-tests"


def firmware() -> Path:
    """The firmware (an ELF file) for `boards.mps2`."""
    return built() / "firmware.elf"


def mpy_cross() -> Path:
    """The compiler that belongs to it: from ``.py`` to ``.mpy``."""
    return built() / "mpy-cross"


def built() -> Path:
    """The directory with both; builds them if they are not there.  Raises `BuildError`."""
    place = cache() / f"micropython-{VERSION}-{fingerprint()[:16]}"
    if not place.exists():
        cache().mkdir(parents=True, exist_ok=True)
        with locked(cache() / "micropython.lock"):
            if not place.exists():
                build(place)
    return place


def fingerprint() -> str:
    """Of all that goes into the build, this file included."""
    total = hashlib.sha256(SHA256.encode())
    for path in [Path(__file__), *sorted(PORT.iterdir())]:
        total.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return total.hexdigest()


def build(place: Path) -> None:
    """In a directory that stays when it fails or is killed: then the next try goes on from there."""
    work = place.with_suffix(".work")
    source = work / f"micropython-{VERSION}"
    if not (work / "unpacked").exists():
        work.mkdir(exist_ok=True)
        archive = download(work)
        with tarfile.open(archive) as file:
            file.extractall(work, filter="data")
        # py/mkrules.mk asks for it, and nothing that is frozen here comes from it.
        (source / "lib/micropython-lib").mkdir(exist_ok=True)
        (source / "lib/micropython-lib/README.md").touch()
        (work / "unpacked").touch()
    shutil.copytree(PORT, work / "port", dirs_exist_ok=True)
    for path in (work / "port").glob("*.in"):  # for MicroPython, and for no checker of this repository
        path.replace(path.with_suffix(""))
    make(["-C", str(source / "mpy-cross")])
    make(["-C", str(work / "port"), f"TOP={source}", f"BUILD={work}/build"])
    result = work / "result"
    result.mkdir(exist_ok=True)
    shutil.copy2(work / "build/firmware.elf", result)
    shutil.copy2(source / "mpy-cross/build/mpy-cross", result)
    result.rename(place)
    shutil.rmtree(work)


def download(work: Path) -> Path:
    """By apt's own helper: it knows the machine's proxy and checks the hash."""
    archive = work / ARCHIVE
    place = f"{mirror()}/{PLACE}"
    done = subprocess.run(
        ["/usr/lib/apt/apt-helper", "download-file", place, str(archive), f"SHA256:{SHA256}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BuildError(f"{ARCHIVE} could not be had from {place}:\n{done.stdout}{done.stderr}")
    return archive


def make(arguments: Sequence[str]) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH, "LC_ALL": "C"}
    done = subprocess.run(
        ["make", "-s", f"-j{os.cpu_count()}", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BuildError(f"make {' '.join(arguments)} failed:\n{done.stdout[-4000:]}")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    print(built())
