"""The real podman with images and settings of the tests' own; nothing of it is left afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .image import make_rootfs


@contextmanager
def root_file_system() -> Iterator[Path]:
    """An image's content, as a directory; not on a tmpfs or under an overlay's layer, where podman could not use it."""
    place = Path(tempfile.mkdtemp(prefix="farkernel-rootfs-", dir="/var/tmp"))
    try:
        yield make_rootfs(place)
    finally:
        shutil.rmtree(place)


@contextmanager
def podman_settings() -> Iterator[dict[str, str]]:
    """The environment in which podman works here, and all that it has is its test's."""
    place = Path(tempfile.mkdtemp(prefix="farkernel-podman-", dir="/var/tmp"))
    storage = f'[storage]\ndriver = "overlay"\ngraphroot = "{place}/graph"\nrunroot = "{place}/run"\n'
    (place / "storage.conf").write_text(storage)
    # runc also where cgroups are of both versions; modest limits also where we may not raise our own.
    limits = '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\n'
    (place / "containers.conf").write_text(
        limits + '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\n'
    )
    variables = {
        "CONTAINERS_STORAGE_CONF": str(place / "storage.conf"),
        "CONTAINERS_CONF": str(place / "containers.conf"),
    }
    environment = {**os.environ, **variables}
    try:
        yield variables
    finally:
        for clear in (["rm"], ["image", "rm"]):
            command = ["podman", *clear, "--all", "--force"]
            subprocess.run(command, env=environment, check=False, timeout=50, capture_output=True)
        shutil.rmtree(place)


def import_image(rootfs: Path, name: str, variables: dict[str, str]) -> None:
    environment = {**os.environ, **variables}
    with subprocess.Popen(["tar", "-C", rootfs, "-c", "."], stdout=subprocess.PIPE) as tar:
        command = ["podman", "import", "-q", "-", name]
        subprocess.run(command, stdin=tar.stdout, env=environment, check=True, timeout=50)
