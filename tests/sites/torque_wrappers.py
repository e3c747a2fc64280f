"""The commands of slurm-wlm-torque: Torque's qsub, qstat and qdel, in Perl, over a Slurm.

The package must not be installed beside Grid Engine's, which has commands of the same names.  So it is only unpacked,
once, with the Perl modules that it needs, into the user's own cache; each test's directory for PATH has links to it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .micropython_build import cache, locked
from .slurm import SlurmSite

COMMANDS = ("qsub", "qstat", "qdel", "pbsnodes")
_OF_SLURM = ("slurm-wlm-torque", "libslurm-perl", "libslurmdb-perl")


def commands(directory: Path) -> dict[str, str]:
    """Makes that directory; gives the environment in which these commands are found, and nothing else of Slurm's."""
    unpacked = _unpacked()
    directory.mkdir()
    for name in COMMANDS:
        # They look for sbatch in their own directory, and are no links for that reason.
        shutil.copy(unpacked / "usr/bin" / name, directory)
    (directory / "sbatch").symlink_to("/usr/bin/sbatch")
    modules = [unpacked / "usr/share/perl5", *unpacked.glob("usr/lib/*/perl5/*")]
    return {
        "PATH": f"{directory}{os.pathsep}{os.environ['PATH']}",
        "PERL5LIB": os.pathsep.join(map(str, modules)),
    }


class SlurmBelow(SlurmSite):
    """Their qsub lets a job have the environment of a login only, which is asked for by `su -` on the node; here it is
    that of the test, from where such answers are kept (slurm.conf(5), GetEnvTimeout).
    """

    def _write_configuration(self) -> None:
        super()._write_configuration()
        with (self.root / "slurm.conf").open("a") as configuration:
            configuration.write("GetEnvTimeout=0\n")
        kept = self.root / "state" / "env_cache" / "root"
        kept.parent.mkdir()
        names = ("HOME", "PATH", "FARKERNEL_RUN_DIR", "FARKERNEL_TEST", "IPYTHONDIR")
        kept.write_text("".join(f"{name}={os.environ[name]}\n" for name in names))


def _unpacked() -> Path:
    version = _said("dpkg-query", "--show", "--showformat=${Version}", "slurm-client")
    place = cache() / f"slurm-wlm-torque-{version}"
    cache().mkdir(parents=True, exist_ok=True)
    with locked(cache() / "slurm-wlm-torque.lock"):
        if not place.exists():
            fresh = place.with_name(f"{place.name}-making")
            shutil.rmtree(fresh, ignore_errors=True)
            (fresh / "archives").mkdir(parents=True)
            wanted = [*(f"{name}={version}" for name in _OF_SLURM), "libswitch-perl"]
            _said("apt-get", "--quiet", "download", *wanted, directory=fresh / "archives")
            for archive in (fresh / "archives").iterdir():
                _said("dpkg-deb", "--extract", str(archive), str(fresh))
            fresh.rename(place)
    return place


def _said(*argv: str, directory: Path | None = None) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=directory)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout.strip()
