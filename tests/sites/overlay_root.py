"""This machine's own Debian under a layer that goes away: programs run in it as root, and change nothing here."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

# In a mount namespace of its own: $1 a directory for the layer, $2 what is seen as /boot/firmware; then the command.
# The layer is copied out in the end.
_INSIDE = """\
set -e
place=$1 boot=$2
shift 2
mount -t tmpfs tmpfs "$place/layer"
mkdir "$place/layer/upper" "$place/layer/work"
# A copy, and not a layer: others change accounts of this machine meanwhile, and their locks would be seen.
cp -a /etc "$place/layer/etc"
rm -f "$place/layer/etc/"*.lock
cp -a "$place/before/." "$place/layer/upper/"
mount -t overlay overlay -o "lowerdir=/,upperdir=$place/layer/upper,workdir=$place/layer/work" "$place/root"
[ ! -d "$place/before/etc" ] || cp -a "$place/before/etc/." "$place/layer/etc/"
mount --bind "$place/layer/etc" "$place/root/etc"
mount -t proc proc "$place/root/proc"
mount --bind /dev "$place/root/dev"
mkdir -p "$place/root/boot/firmware" "$place/root/run" "$place/root/tmp"
mount --bind "$boot" "$place/root/boot/firmware"
status=0
chroot "$place/root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@" || status=$?
umount "$place/root/boot/firmware"
rm -rf "$place/layer/upper/etc"
cp -a "$place/layer/etc" "$place/layer/upper/etc"
find "$place/layer/upper" ! -type f ! -type d ! -type l -delete
cp -a "$place/layer/upper/." "$place/after/"
exit $status
"""


class OverlayRoot:
    """``before``: files put there; ``after``: /etc, and all else that was changed, with owners and modes."""

    def __init__(self, place: Path, before: Mapping[str, str]) -> None:
        self._place = place
        self.boot = place / "boot"
        self.after = place / "after"
        for name in ("layer", "root", "before", "after", "boot"):
            (place / name).mkdir(parents=True)
        for path, text in before.items():
            file = place / "before" / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o755 if text.startswith("#!") else 0o644)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        words: Sequence[str] = (
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
        )
        return subprocess.run(
            [*words, "/bin/sh", "-c", _INSIDE, "sh", str(self._place), str(self.boot), *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )

    def read(self, path: str) -> str:
        return (self.after / path.lstrip("/")).read_text()

    def mode(self, path: str) -> int:
        return (self.after / path.lstrip("/")).stat().st_mode & 0o7777
