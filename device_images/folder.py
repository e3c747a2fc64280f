"""The files of a folder that goes onto a board, read with care: a folder may hold anything.

Left out without complaint: hidden files, `__pycache__`, compiled Python.  Refused: what would bring in what is
not in the folder (links out of it), what never ends (pipes, devices), and names that no board can have.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import DoesNotFit, UnfitFile, UnfitName, UnreadableFile

NAME_LIMIT = 255  # bytes: littlefs' LFS_NAME_MAX
DEPTH_LIMIT = 16
FILES_LIMIT = 4096
_LEFT_OUT = {"__pycache__"}


@dataclass(frozen=True)
class BoardFile:
    """`path` is as on the board: relative, parts joined by '/'."""

    path: str
    data: bytes


@dataclass(frozen=True)
class FolderContent:
    files: tuple[BoardFile, ...]
    folders: tuple[str, ...]  # empty ones too, each after the one that it is in
    left_out: tuple[str, ...]


def read_folder(folder: str | os.PathLike[str], limit: int) -> FolderContent:
    """All of it, sorted; raises ImageError.  `limit`: no more bytes than that are read (DoesNotFit)."""
    root = Path(folder)
    try:
        resolved = root.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise UnreadableFile(
            str(root), _reason(error), "Name a folder that holds the board's files"
        ) from error
    if not resolved.is_dir():
        raise UnreadableFile(str(root), "it is not a folder", "Name a folder that holds the board's files")
    reading = _Reading(resolved, limit)
    reading.enter(resolved, "", 1)
    return FolderContent(tuple(reading.files), tuple(reading.folders), tuple(reading.left_out))


class _Reading:
    def __init__(self, root: Path, limit: int) -> None:
        self.root = root
        self.limit = limit
        self.files: list[BoardFile] = []
        self.folders: list[str] = []
        self.left_out: list[str] = []
        self.sizes: list[tuple[str, int]] = []

    def enter(self, folder: Path, prefix: str, depth: int) -> None:
        if depth > DEPTH_LIMIT:
            raise UnfitFile(prefix, f"it is more than {DEPTH_LIMIT} folders deep", "Make the folder flatter")
        for name in sorted(_names(folder)):
            path = prefix + name
            if name.startswith(".") or name in _LEFT_OUT or name.endswith((".pyc", ".pyo")):
                self.left_out.append(path)
                continue
            _check_name(name, path)
            place = self.inside(folder / name, path)
            if place.is_dir():
                if place != folder / name:
                    raise UnfitFile(
                        path, "it is a link to another folder", "Copy that folder to where the link is"
                    )
                self.folders.append(path)
                self.enter(place, path + "/", depth + 1)
            else:
                self.take(place, path)

    def inside(self, place: Path, path: str) -> Path:
        """Where it really is; a link may stand for another file of the folder, but lead nowhere else."""
        try:
            if not place.is_symlink():
                return place
            resolved = place.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise UnreadableFile(path, _reason(error)) from error
        if not resolved.is_relative_to(self.root):
            raise UnfitFile(
                path, "it is a link to something outside the folder", "Copy what it points to into the folder"
            )
        return resolved

    def take(self, place: Path, path: str) -> None:
        if len(self.files) >= FILES_LIMIT:
            raise UnfitFile(
                path, f"it would be one of more than {FILES_LIMIT} files", "Name a smaller folder"
            )
        data = self.read(place, path)
        self.sizes.append((path, len(data)))
        if sum(size for _, size in self.sizes) > self.limit:
            raise DoesNotFit(self.limit, self.sizes)
        self.files.append(BoardFile(path, data))

    def read(self, place: Path, path: str) -> bytes:
        try:
            # What was looked at above may be another thing now: no link is followed, and no pipe waited for.
            descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode):
                    raise UnfitFile(path, "it is not an ordinary file", "Take it out of the folder")
                if found.st_size > self.limit:
                    raise DoesNotFit(self.limit, [*self.sizes, (path, found.st_size)])
                return file.read(self.limit + 1)
        except OSError as error:
            raise UnreadableFile(path, _reason(error)) from error


def _names(folder: Path) -> Iterator[str]:
    try:
        yield from os.listdir(folder)
    except OSError as error:
        raise UnreadableFile(str(folder), _reason(error)) from error


def _check_name(name: str, path: str) -> None:
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        raise UnfitName(path, "its name is not UTF-8") from None
    if not name.isprintable() or "\\" in name:
        raise UnfitName(path, "its name has characters that cannot be typed")
    if len(encoded) > NAME_LIMIT:
        raise UnfitName(path, f"its name has more than {NAME_LIMIT} bytes")


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
