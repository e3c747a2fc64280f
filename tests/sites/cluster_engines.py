"""Python environments with the engines that run across several nodes, as users have them where their kernels run.

    python -m tests.sites.cluster_engines           installs what the default tests need, and says where it is
    python -m tests.sites.cluster_engines --long    also Spark and Ray, which are large, and other MPIs

They are kept in the user's own cache (not that of a test), under a hash of what was asked for.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from .micropython_build import cache, locked

SMALL = ("ipykernel", "distributed", "bokeh", "ipyparallel", "mpi4py")
LARGE = ("ipykernel", "pyspark>=4", "ray[default]", "setuptools")
_PATIENCE = 1200


def small() -> Path:
    """A Python with Dask (its dashboard included), ipyparallel and mpi4py (MPI itself is the system's)."""
    return environment(SMALL)


def with_mpi(name: str) -> Path:
    """A Python with an MPI of its own: mpich, or openmpi."""
    return environment(("ipykernel", "ipyparallel", "mpi4py", name))


def large() -> Path:
    """A Python with Spark and Ray: over a gigabyte."""
    return environment(LARGE)


def environment(packages: tuple[str, ...]) -> Path:
    """Its Python; raises `CalledProcessError` with pip's words on stderr."""
    wanted = hashlib.sha256("\n".join([sys.version, *packages]).encode()).hexdigest()[:12]
    place = cache() / f"engines-{wanted}"
    done = place / "complete"
    if not done.exists():
        cache().mkdir(parents=True, exist_ok=True)
        with locked(cache() / "engines.lock"):
            if not done.exists():
                print(f"installing {', '.join(packages)} into {place} (once)", flush=True)
                subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
                pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet"]
                words = [*pip, "--disable-pip-version-check", *packages]
                subprocess.run(words, check=True, timeout=_PATIENCE)
                done.touch()
    return place / "bin" / "python"


if __name__ == "__main__":
    print(small())
    if "--long" in sys.argv[1:]:
        print(large(), with_mpi("mpich"), with_mpi("openmpi"))
