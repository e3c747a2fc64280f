"""Whole machines for tests: a network namespace with processes, name, mounts and control groups of its own.

The files are this machine's, but for what is private to each.  A machine that crashes takes all its processes with it,
at once, and its cable is pulled before: nobody is told.  They need root, and control groups of the first version.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import psutil

from .engine import wait_until
from .netns import inside, ip

_CGROUPS = Path("/sys/fs/cgroup")
_CONTROLLERS = ("freezer", "memory", "cpu", "cpuacct", "cpuset", "devices", "pids")
_UNSHARE = "unshare --uts --ipc --mount --cgroup --pid --fork --kill-child"

# The machine's first process: it collects orphans, and all others end with it.
_FIRST = """\
set -eu
mount --make-rprivate /
mount -t proc proc /proc
hostname "$FK_NAME"
mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
for each in $FK_CONTROLLERS; do
  mkdir "/sys/fs/cgroup/$each"
  mount -t cgroup -o "$each" cgroup "/sys/fs/cgroup/$each"
done
for each in $FK_FILES; do mount --bind "${each#*=}" "${each%%=*}"; done
for each in $FK_PRIVATE; do
  mkdir -p "$each"
  mount -t tmpfs -o mode=700 private "$each"
done
trap : CHLD
eval "$FK_DAEMONS"
echo booted >"$FK_BOOTED"
while :; do sleep 3600 & wait $! || :; done
"""


class Machine:
    """One of them.  ``files``: what lies in the place of this machine's; ``private``: directories that are empty, and
    its own; ``daemons``: the shell's lines at its boot.
    """

    def __init__(
        self,
        directory: Path,
        space: str,
        name: str,
        files: Mapping[str, Path],
        private: Sequence[Path] = (),
    ) -> None:
        self.name = name
        self.space = space
        self.daemons = ""
        self._directory = directory
        self._files = files
        self._private = private
        self._group = f"farkernel-test-{secrets.token_hex(4)}"
        self._outer: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Machine {self.name}, {'up' if self._outer else 'down'}>"

    def boot(self) -> None:
        booted = self._directory / f"{self.name}-booted"
        booted.unlink(missing_ok=True)
        self._make_groups()
        environment = {
            **os.environ,
            "FK_NAME": self.name,
            "FK_CONTROLLERS": " ".join(self._controllers()),
            "FK_FILES": " ".join(f"{place}={path}" for place, path in self._files.items()),
            "FK_PRIVATE": " ".join(map(str, self._private)),
            "FK_DAEMONS": self.daemons,
            "FK_BOOTED": str(booted),
            "FK_FIRST": _FIRST,
        }
        # The groups are entered before `unshare --cgroup`, which makes them the root of what is seen inside.
        where = " ".join(inside(self.space))
        enter = f'for each; do echo $$ >$each/cgroup.procs; done; exec {where} {_UNSHARE} bash -c "$FK_FIRST"'
        console = self._directory / f"{self.name}-console"
        with console.open("ab") as log:
            self._outer = subprocess.Popen(
                ["bash", "-c", enter, "bash", *map(str, self._groups())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd="/",
            )
        wait_until(lambda: booted.exists() or self._failed(console), f"{self.name} to boot")

    def _failed(self, console: Path) -> bool:
        if self._outer is not None and self._outer.poll() is not None:
            raise AssertionError(f"{self.name} did not boot: {console.read_text()[-2000:]}")
        return False

    @property
    def first_process(self) -> int:
        """As this machine numbers it."""
        assert self._outer is not None, f"{self.name} is down"
        (child,) = psutil.Process(self._outer.pid).children()
        return child.pid

    @property
    def is_up(self) -> bool:
        return self._outer is not None

    def inside(self) -> list[str]:
        """The words before a command that shall run there."""
        return ["nsenter", f"--target={self.first_process}", "--all", "--wd=/", "--"]

    def run(self, *argv: str, check: bool = True) -> str:
        done = subprocess.run(
            [*self.inside(), *argv], capture_output=True, text=True, timeout=60, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{argv} on {self.name}: {done.stderr.strip()}")
        return done.stdout

    def crash(self) -> None:
        """The power goes: silence, no reset."""
        ip("-n", self.space, "link", "set", "in", "down")
        self._kill()

    def power_on(self) -> None:
        """After a crash."""
        ip("-n", self.space, "link", "set", "in", "up")
        self.boot()

    def stop(self) -> None:
        """For good."""
        self._kill()
        for group in reversed(self._groups()):
            places = [place for place, _, _ in os.walk(group)] if group.exists() else []
            for place in reversed(places):
                # What was killed a moment ago leaves its group when the system comes to it.
                wait_until(partial(_removed, Path(place)), f"{place} to be empty")

    def _kill(self) -> None:
        outer, self._outer = self._outer, None
        if outer is None:
            return
        everything = psutil.Process(outer.pid).children(recursive=True) if outer.poll() is None else []
        outer.kill()
        outer.wait()
        psutil.wait_procs(everything, timeout=10)

    # inside

    def _controllers(self) -> list[str]:
        found = [name for name in _CONTROLLERS if (_CGROUPS / name / "cgroup.procs").exists()]
        assert "memory" in found, (
            "control groups of the first version are needed, as the kernel has them on request"
        )
        return found

    def _groups(self) -> list[Path]:
        return [_CGROUPS / name / self._group for name in self._controllers()]

    def _make_groups(self) -> None:
        for group in self._groups():
            with contextlib.suppress(FileExistsError):
                group.mkdir()
                for name in ("cpuset.cpus", "cpuset.mems"):
                    if group.parent.name == "cpuset":
                        (group / name).write_text((group.parent / name).read_text())


def _removed(group: Path) -> bool:
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()
