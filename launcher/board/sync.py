"""A folder here, and the same on a board."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from .contract import Entry, OnProgress, SyncReport
from .errors import BoardFileError

#: What nobody wants on a board.
ALWAYS_LEFT = ("__pycache__", ".git", ".ipynb_checkpoints", ".DS_Store", "*.pyc")


class Files(Protocol):
    """What is needed of `files.BoardFiles`."""

    async def listdir(self, path: str = "") -> list[Entry]: ...
    async def read(self, path: str, on_progress: OnProgress | None = None) -> bytes: ...
    async def write(self, path: str, data: bytes, on_progress: OnProgress | None = None) -> None: ...
    async def digest(self, path: str) -> str | None: ...
    async def mkdir(self, path: str, parents: bool = False) -> None: ...
    async def remove(self, path: str) -> None: ...
    async def rmdir(self, path: str, recursive: bool = False) -> None: ...


def is_excluded(path: str, exclude: Iterable[str]) -> bool:
    """By the pattern of a whole path, or of any name in it."""
    parts = path.split("/")
    return any(
        fnmatchcase(path, pattern) or any(fnmatchcase(part, pattern) for part in parts)
        for pattern in (*ALWAYS_LEFT, *exclude)
    )


def local_files(folder: Path, exclude: Iterable[str] = ()) -> dict[str, Path | None]:
    """Path below the folder, with slashes → the file, or None for a directory; parents come first.

    Links are followed to files, not to directories.
    """
    found: dict[str, Path | None] = {}
    for place, directories, files in os.walk(folder):
        base = Path(place).relative_to(folder)
        kept = [name for name in sorted(directories) if not is_excluded((base / name).as_posix(), exclude)]
        directories[:] = [name for name in kept if not (Path(place) / name).is_symlink()]
        found.update({(base / name).as_posix(): None for name in directories})
        for name in sorted(files):
            path = (base / name).as_posix()
            if not is_excluded(path, exclude) and (Path(place) / name).is_file():
                found[path] = Path(place) / name
    return found


async def synchronise(
    files: Files,
    wanted: Mapping[str, Path | None],
    remote: str,
    delete: bool,
    exclude: Iterable[str],
    on_progress: OnProgress | None,
) -> SyncReport:
    """See `files.BoardFiles.sync_folder`."""
    exclude = tuple(exclude)
    base = remote.rstrip("/") + "/" if remote else ""
    if remote.strip("/"):
        await files.mkdir(remote.rstrip("/"), parents=True)
    there = await remote_tree(files, remote, exclude)
    await _make_room(files, wanted, there, base)
    sent, unchanged, sizes = [], [], {}
    total = sum(path.stat().st_size for path in wanted.values() if path is not None)
    done = 0
    for name, path in wanted.items():
        if path is None:
            if name not in there or not there[name].directory:
                await files.mkdir(base + name)
            continue
        data = path.read_bytes()
        sizes[base + name] = len(data)
        if await _is_same(files, base + name, there.get(name), data):
            unchanged.append(base + name)
        else:
            await files.write(base + name, data)
            sent.append(base + name)
        done += len(data)
        if on_progress is not None:
            on_progress(min(done, total), total)
    removed = await _remove_others(files, wanted, there, base) if delete else ()
    return SyncReport(tuple(sent), tuple(unchanged), tuple(removed), sum(sizes[name] for name in sent), sizes)


async def remote_tree(files: Files, remote: str, exclude: Iterable[str]) -> dict[str, Entry]:
    """Everything below a directory of the board; parents come first."""
    found: dict[str, Entry] = {}
    folders = [""]
    for folder in folders:
        place = "/".join(part for part in (remote.rstrip("/") or remote, folder) if part)
        for entry in await files.listdir(place):
            path = f"{folder}/{entry.name}" if folder else entry.name
            if not is_excluded(path, exclude):
                found[path] = entry
                if entry.directory:
                    folders.append(path)
    return found


async def _make_room(
    files: Files, wanted: Mapping[str, Path | None], there: dict[str, Entry], base: str
) -> None:
    """A file where a directory is wanted, or the other way round, has to go first."""
    for name, path in wanted.items():
        entry = there.get(name)
        if entry is None or entry.directory is (path is None):
            continue
        if entry.directory:
            await files.rmdir(base + name, recursive=True)
        else:
            await files.remove(base + name)
        for gone in [other for other in there if other == name or other.startswith(f"{name}/")]:
            del there[gone]


async def _is_same(files: Files, path: str, entry: Entry | None, data: bytes) -> bool:
    if entry is None or entry.size != len(data):
        return False
    digest = await files.digest(path)
    if digest is None:  # no SHA-256 there: reading wears the flash less than writing does
        return await files.read(path) == data
    return digest == hashlib.sha256(data).hexdigest()


async def _remove_others(
    files: Files, wanted: Mapping[str, Path | None], there: Mapping[str, Entry], base: str
) -> list[str]:
    removed = []
    for name in sorted(there, reverse=True):  # what is inside comes before its directory
        if name in wanted:
            continue
        try:
            await (files.rmdir(base + name) if there[name].directory else files.remove(base + name))
        except BoardFileError:
            if not there[name].directory:
                raise
            continue  # something in it is excluded
        removed.append(base + name)
    return removed
