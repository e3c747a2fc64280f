"""A card's files onto its boot partition, and read back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from .boot import Boot
from .card import FOLDER, Card, Release, boot_files
from .errors import NoBootPartition, NoRoom, NotWhatWasWritten

_CLUSTER = 32 * 1024  # the largest that FAT has: what a file may take more than its size


class Furnished(NamedTuple):
    release: Release
    files: tuple[str, ...]
    bytes: int


def furnish(
    boot: Boot,
    card: Card,
    wheels: Sequence[Path],
    release: Release | None,
    progress: Callable[[str], None] = lambda path: None,
) -> Furnished:
    """Raises NoBootPartition, NoRoom, BootPartitionFailed, NotWhatWasWritten.  ``release``: None: as the card is."""
    release = release or release_of(boot)
    files = boot_files(card, release, boot.read("cmdline.txt").decode("ascii", "replace"))
    boot.remove(FOLDER)
    sizes = [*map(len, files.values()), *(wheel.stat().st_size for wheel in wheels)]
    needed = sum(sizes) + len(sizes) * _CLUSTER
    if boot.free() < needed:
        raise NoRoom(boot.name, needed, boot.free())
    for wheel in wheels:
        path = f"{FOLDER}/wheels/{wheel.name}"
        progress(path)
        boot.copy(wheel, path)
        _check(boot, path, wheel.read_bytes())
    for path, data in files.items():
        progress(path)
        boot.write(path, data)
        _check(boot, path, data)
    paths = (*files, *(f"{FOLDER}/wheels/{wheel.name}" for wheel in wheels))
    return Furnished(release, paths, sum(sizes))


def release_of(boot: Boot) -> Release:
    """By what lies there already.  Raises NoBootPartition."""
    names = boot.names()
    if not {"cmdline.txt", "config.txt"} <= names:
        raise NoBootPartition(boot.name, "there is no cmdline.txt or no config.txt")
    return Release.CLOUD_INIT if "user-data" in names else Release.FIRST_RUN


def _check(boot: Boot, path: str, data: bytes) -> None:
    if boot.read(path) != data:
        raise NotWhatWasWritten(boot.name, path)
