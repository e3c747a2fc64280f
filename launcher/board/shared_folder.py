"""A folder of this side as a board may use it: whatever a board asks for is data, and stays inside that folder."""

from __future__ import annotations

import base64
import binascii
import errno
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Programs on boards leave it to the garbage collector to close files, which closes none of these: those that were not
# used for longest are closed here, opened again when they are wanted, and at last forgotten.
_MOST_OPEN, _MOST_KNOWN = 32, 1000
_MOST_READ = 4096
_PAGE = 12  # entries of a folder in one answer
_MODES: Mapping[str, int] = {
    "r": os.O_RDONLY,
    "r+": os.O_RDWR,
    "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "w+": os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    "a": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    "a+": os.O_RDWR | os.O_CREAT | os.O_APPEND,
    "x": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    "x+": os.O_RDWR | os.O_CREAT | os.O_EXCL,
}
# A pipe that somebody put there must not stop us, and a link that appears this moment is not followed.
_ALWAYS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass
class _File:
    """What a board has open; ``descriptor`` is -1 while we have not."""

    place: str
    flags: int
    descriptor: int
    failed: OSError | None = None

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class SharedFolder:
    """`ask` does what a board wants.  Links are followed as long as they lead to something inside."""

    def __init__(self, folder: Path, read_only: bool = False) -> None:
        self.folder = folder
        self.read_only = read_only
        self._root = os.path.realpath(folder)
        self._files: dict[int, _File] = {}  # by the board's handles; what was used last stands last
        self._listed: tuple[str, list[tuple[str, int, int, int]]] = ("", [])
        self._next = 1

    def __repr__(self) -> str:
        return f"<SharedFolder {self.folder}, {sum(file.descriptor >= 0 for file in self._files.values())} files open>"

    def close(self) -> None:
        """The board has forgotten what it had open."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def ask(self, wanted: str, arguments: tuple[Any, ...]) -> Any:
        """Bytes or a literal; None: no answer is waited for.  Raises OSError with a number that boards know."""
        known = _OPERATIONS.get(wanted)
        if known is None or not _fit(arguments, known[1]):
            raise OSError(errno.EINVAL, "no such request")
        try:
            return known[0](self, *arguments)
        except (ValueError, OverflowError):  # a name with a NUL in it, a number that no file has
            raise OSError(errno.EINVAL, "not a path or number") from None

    # -- paths --------------------------------------------------------------------------------------------------

    def _parts(self, path: str) -> list[str]:
        parts: list[str] = []
        for part in path.split("/"):
            if part == "..":
                parts = parts[:-1]
            elif part not in ("", "."):
                parts.append(part)
        return parts

    def _inside(self, *parts: str) -> str:
        """Where that really is; raises PermissionError outside of the folder."""
        place = os.path.realpath(os.path.join(self._root, *parts))
        if place != self._root and not place.startswith(self._root.rstrip("/") + "/"):
            raise PermissionError(errno.EACCES, "it leads out of the folder")
        return place

    def _place(self, path: str) -> str:
        return self._inside(*self._parts(path))

    def _name(self, path: str) -> str:
        """Of an entry itself, not of what a link leads to."""
        self._must_be_writable()
        parts = self._parts(path)
        if not parts:
            raise PermissionError(errno.EPERM, "the folder itself")
        return os.path.join(self._inside(*parts[:-1]), parts[-1])

    def _must_be_writable(self) -> None:
        if self.read_only:
            raise OSError(errno.EROFS, "mounted for reading")

    # -- folders ------------------------------------------------------------------------------------------------

    def _enter(self, path: str) -> str:
        if not os.path.isdir(place := self._place(path)):
            raise OSError(errno.ENOTDIR if os.path.exists(place) else errno.ENOENT, "no such folder")
        return "/".join(["", *self._parts(path), ""])

    def _stat(self, path: str) -> tuple[int, int, int]:
        found = os.stat(self._place(path))
        kind = stat.S_IFDIR if stat.S_ISDIR(found.st_mode) else stat.S_IFREG
        return kind, 0 if kind == stat.S_IFDIR else found.st_size, int(found.st_mtime)

    def _list(self, path: str, start: int) -> tuple[int | None, list[tuple[str, int, int, int]]]:
        """A page of it, and where the next begins."""
        if start == 0 or self._listed[0] != path:
            self._listed = (path, self._entries(self._place(path)))
        page = self._listed[1][start : start + _PAGE]
        following = start + _PAGE
        return following if following < len(self._listed[1]) else None, page

    def _entries(self, place: str) -> list[tuple[str, int, int, int]]:
        found = []
        with os.scandir(place) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                try:
                    entry.name.encode()
                    status = os.stat(self._inside(place, entry.name))
                except (OSError, UnicodeError):  # a link to nowhere or out of here, a name that is no text
                    continue
                if stat.S_ISDIR(status.st_mode):
                    found.append((entry.name, stat.S_IFDIR, 0, 0))
                elif stat.S_ISREG(status.st_mode):
                    found.append((entry.name, stat.S_IFREG, 0, status.st_size))
        return found

    def _mkdir(self, path: str) -> int:
        os.mkdir(self._name(path))
        return 0

    def _rmdir(self, path: str) -> int:
        os.rmdir(self._name(path))
        return 0

    def _remove(self, path: str) -> int:
        os.unlink(self._name(path))
        return 0

    def _rename(self, old: str, new: str) -> int:
        os.rename(self._name(old), self._name(new))
        return 0

    def _statvfs(self) -> tuple[int, ...]:
        """Sizes in blocks that a board can count: 30 bits, where integers are small."""
        found = os.statvfs(self._root)
        free = 0 if self.read_only else min(found.f_bavail, 1 << 29)
        return (found.f_bsize, found.f_frsize, min(found.f_blocks, 1 << 29), free, free, 0, 0, 0, 0, 255)

    # -- files --------------------------------------------------------------------------------------------------

    def _open_file(self, path: str, mode: str) -> tuple[int, int]:
        """A handle, and where reading or writing begins."""
        flags = _MODES.get(mode.replace("b", "").replace("t", ""))
        if flags is None:
            raise OSError(errno.EINVAL, "no such mode")
        if flags != os.O_RDONLY:
            self._must_be_writable()
        place = self._place(path)
        descriptor = _opened(place, flags)
        handle, self._next = self._next, self._next + 1
        self._files[handle] = _File(place, flags & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC), descriptor)
        self._keep_few_open()
        return handle, os.fstat(descriptor).st_size if flags & os.O_APPEND else 0

    def _keep_few_open(self) -> None:
        for handle in list(self._files)[:-_MOST_KNOWN]:
            self._files.pop(handle).close()
        for file in [file for file in self._files.values() if file.descriptor >= 0][:-_MOST_OPEN]:
            file.close()

    def _file(self, handle: int) -> _File:
        """Open; raises what went wrong with it before."""
        if handle not in self._files:
            raise OSError(errno.EBADF, "not open")
        file = self._files[handle] = self._files.pop(handle)
        failed, file.failed = file.failed, None
        if failed is not None:
            raise failed
        if file.descriptor < 0:
            file.descriptor = _opened(file.place, file.flags)
            self._keep_few_open()
        return file

    def _read(self, handle: int, position: int, size: int) -> bytes:
        return os.pread(self._file(handle).descriptor, min(size, _MOST_READ), position)

    def _write(self, handle: int, position: int, data: str) -> None:
        """What goes wrong is kept for whoever asks next: nobody waits for this one."""
        if handle not in self._files or self._files[handle].failed is not None:
            return
        try:
            content = memoryview(base64.b64decode(data, validate=True))
            descriptor = self._file(handle).descriptor
            while content:
                written = os.pwrite(descriptor, content, position)
                content, position = content[written:], position + written
        except binascii.Error:
            self._files[handle].failed = OSError(errno.EIO, "damaged on the way")
        except OSError as error:
            self._files[handle].failed = error

    def _sync(self, handle: int) -> int:
        self._file(handle)
        return 0

    def _size(self, handle: int) -> int:
        return os.fstat(self._file(handle).descriptor).st_size

    def _close(self, handle: int) -> int:
        file = self._files.pop(handle, None)
        if file is not None:
            file.close()
            if file.failed is not None:
                raise file.failed
        return 0


def _opened(place: str, flags: int) -> int:
    descriptor = os.open(place, flags | _ALWAYS, 0o666)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EACCES, "not a file")
    return descriptor


def _fit(arguments: tuple[Any, ...], kinds: tuple[type, ...]) -> bool:
    return len(arguments) == len(kinds) and all(map(isinstance, arguments, kinds))


# What is asked → who does it, and its arguments.
_OPERATIONS: Mapping[str, tuple[Callable[..., Any], tuple[type, ...]]] = {
    "enter": (SharedFolder._enter, (str,)),
    "stat": (SharedFolder._stat, (str,)),
    "list": (SharedFolder._list, (str, int)),
    "mkdir": (SharedFolder._mkdir, (str,)),
    "rmdir": (SharedFolder._rmdir, (str,)),
    "remove": (SharedFolder._remove, (str,)),
    "rename": (SharedFolder._rename, (str, str)),
    "statvfs": (SharedFolder._statvfs, ()),
    "open": (SharedFolder._open_file, (str, str)),
    "read": (SharedFolder._read, (int, int, int)),
    "write": (SharedFolder._write, (int, int, str)),
    "sync": (SharedFolder._sync, (int,)),
    "size": (SharedFolder._size, (int,)),
    "close": (SharedFolder._close, (int,)),
}
