"""A littlefs file system from files, as MicroPython makes it (extmod/vfs_lfs.c): it mounts it without converting.

All data lies at the beginning, so that an image can end where the data ends: the file system is made as small as the
files allow, and then told its real size (lfs_fs_grow).  Made anew from the same files it has the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .errors import DoesNotFit, ImageError, ToolMissing
from .folder import BoardFile
from .region import BLOCK

if TYPE_CHECKING:
    from littlefs import LittleFS

DISK_VERSION = 0x00020000  # 2.0: what MicroPython's littlefs reads since 1.12
NO_SPACE = -28


def begins_at(data: bytes, start: int) -> bool:
    """Whether a file system does: the name is in its first block (littlefs: SPEC.md, superblock)."""
    return data[start + 8 : start + 16] == b"littlefs"


@dataclass(frozen=True)
class Geometry:
    """As MicroPython mounts it: the cache limits what may stand inside a directory's block instead of its own."""

    program_size: int = 32

    def options(self, blocks: int) -> dict[str, int]:
        return {
            "block_size": BLOCK,
            "block_count": blocks,
            "read_size": 32,
            "prog_size": self.program_size,
            "cache_size": min(BLOCK, 4 * max(32, self.program_size)),
            "lookahead_size": 32,
            "block_cycles": 100,
            "disk_version": DISK_VERSION,
        }


class BadFileSystem(ImageError):
    kind = "file-system"

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the file system cannot be made or read: {reason}",
            "Please report this, with the files that are in it",
        )


@dataclass(frozen=True)
class FileSystem:
    """`data` ends with the last block in use; what follows up to the region's end counts as erased."""

    data: bytes
    blocks: int
    used_blocks: int


class _Flash:
    """What littlefs-python writes to: memory that is erased to 0xff."""

    def __init__(self, blocks: int, data: bytes = b"") -> None:
        self.buffer = bytearray(data.ljust(blocks * BLOCK, b"\xff"))

    def read(self, _config: Any, block: int, offset: int, size: int) -> bytearray:
        start = block * BLOCK + offset
        return self.buffer[start : start + size]

    def prog(self, _config: Any, block: int, offset: int, data: bytes) -> int:
        start = block * BLOCK + offset
        self.buffer[start : start + len(data)] = data
        return 0

    def erase(self, _config: Any, block: int) -> int:
        self.buffer[block * BLOCK : (block + 1) * BLOCK] = b"\xff" * BLOCK
        return 0

    def sync(self, _config: Any) -> int:
        return 0


def make(
    files: Iterable[BoardFile], folders: Iterable[str], blocks: int, geometry: Geometry | None = None
) -> FileSystem:
    """Raises DoesNotFit, ToolMissing, BadFileSystem."""
    geometry = geometry or Geometry()
    files, folders = list(files), list(folders)
    if sum(len(file.data) for file in files) > blocks * BLOCK:
        raise DoesNotFit(blocks * BLOCK, [(file.path, len(file.data)) for file in files])
    for size in _sizes(files, folders, blocks):
        flash = _Flash(blocks)
        if _fill(flash, files, folders, size, blocks, geometry):
            break
    else:
        raise DoesNotFit(blocks * BLOCK, [(file.path, len(file.data)) for file in files])
    if read_files(bytes(flash.buffer), blocks, geometry) != {file.path: file.data for file in files}:
        raise BadFileSystem("it does not give back the files that were put into it")
    used = len(bytes(flash.buffer).rstrip(b"\xff"))
    end = -(-used // BLOCK) * BLOCK
    return FileSystem(bytes(flash.buffer[:end]), blocks, end // BLOCK)


def read_files(data: bytes, blocks: int, geometry: Geometry | None = None) -> dict[str, bytes]:
    """What a board would find in it; raises BadFileSystem."""
    littlefs = _littlefs()
    geometry = geometry or Geometry()
    try:
        mounted = _mounted(_Flash(blocks, data[: blocks * BLOCK]), blocks, geometry)
        found = {}
        for folder, _, names in mounted.walk("/"):
            for name in names:
                path = f"{folder.rstrip('/')}/{name}"
                with mounted.open(path, "rb") as file:
                    found[path[1:]] = file.read()
        mounted.unmount()
    except (littlefs.LittleFSError, OSError, UnicodeDecodeError) as error:
        raise BadFileSystem(str(error)) from error
    return found


def _sizes(files: list[BoardFile], folders: list[str], blocks: int) -> Iterable[int]:
    """Numbers of blocks to try, from what is needed at least; the last one is all there are."""
    least = 2 + 2 * len(folders) + sum(-(-len(file.data) // BLOCK) for file in files if len(file.data) > 512)
    size = least + 2
    while size < blocks:
        yield size
        size += max(2, size // 8)
    yield blocks


def _fill(
    flash: _Flash, files: list[BoardFile], folders: list[str], size: int, blocks: int, geometry: Geometry
) -> bool:
    """Whether they fit into that many blocks."""
    littlefs = _littlefs()
    mounted = _mounted(flash, size, geometry, make_new=True)
    try:
        for folder in folders:
            mounted.mkdir("/" + folder)
        for file in files:
            with mounted.open("/" + file.path, "wb") as out:
                out.write(file.data)
        if size < blocks:
            mounted.fs_grow(blocks)
        mounted.unmount()
    except littlefs.LittleFSError as error:
        if error.code == NO_SPACE:
            return False
        raise BadFileSystem(str(error)) from error
    except OSError as error:
        if error.errno == -NO_SPACE:
            return False
        raise BadFileSystem(str(error)) from error
    return True


def _mounted(flash: _Flash, blocks: int, geometry: Geometry, make_new: bool = False) -> LittleFS:
    options = geometry.options(blocks)
    if not make_new:
        # Newer littlefs in a board raises the version to 2.1 when it writes; that is read too.
        del options["disk_version"]
    mounted: LittleFS = _littlefs().LittleFS(context=flash, mount=False, **options)
    if make_new:
        mounted.format()
    mounted.mount()
    return mounted


def _littlefs() -> ModuleType:
    try:
        import littlefs
    except ImportError:
        raise ToolMissing("littlefs-python", "make a file system for the board") from None
    return littlefs
