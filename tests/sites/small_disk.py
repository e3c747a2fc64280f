"""A disk that a test can fill: a small tmpfs over a directory, in a mount namespace that goes with the test."""

from __future__ import annotations

import subprocess
from pathlib import Path

_MOUNT = 'mount -t tmpfs -o "size=$1,mode=0700" none "$2" && echo ready && exec cat'


class SmallDisk:
    """Needs root.  What runs `inside` sees the disk at ``place``; others reach its files below `root`."""

    def __init__(self, place: Path, size: str = "16m") -> None:
        self._place = place
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", _MOUNT, "sh", size, str(place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        self.root = Path(f"/proc/{self._holder.pid}/root") / place.relative_to("/")
        self._filler = self.root / "filler"

    def inside(self) -> list[str]:
        """The words before a command that shall run with this disk."""
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt"]

    def fill(self) -> None:
        """Until not one byte more goes onto it."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def read_only(self) -> None:
        """From now on, for everybody."""
        subprocess.run([*self.inside(), "mount", "-o", "remount,ro", str(self._place)], check=True)

    def make_room(self) -> None:
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """The disk goes when the last process that ran inside has ended."""
        self._holder.communicate(timeout=10)
