"""The files on a board, through `session.Board` alone: everything is built on running code there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .contract import DiskUsage, Entry, OnProgress, SyncReport
from .session import Board


class BoardFiles:
    """File functions.  Paths are the board's, with slashes; relative ones count from its current directory.

    All raise `BoardFileError` (no such file, …), `BoardFull`, `Unsupported` (this firmware has no such thing), and what
    `Board.execute` raises.
    """

    def __init__(self, board: Board) -> None:
        self.board = board

    async def listdir(self, path: str = "") -> list[Entry]:
        """Sorted by name."""
        raise NotImplementedError

    async def stat(self, path: str) -> Entry:
        raise NotImplementedError

    async def read(self, path: str, on_progress: OnProgress | None = None) -> bytes:
        raise NotImplementedError

    async def write(self, path: str, data: bytes, on_progress: OnProgress | None = None) -> None:
        """Whole or not at all: into a temporary file beside it, checked, renamed (where the board can rename)."""
        raise NotImplementedError

    async def remove(self, path: str) -> None:
        raise NotImplementedError

    async def rmdir(self, path: str, recursive: bool = False) -> None:
        raise NotImplementedError

    async def mkdir(self, path: str, parents: bool = False) -> None:
        """Nothing happens if it is a directory already."""
        raise NotImplementedError

    async def rename(self, old: str, new: str) -> None:
        raise NotImplementedError

    async def sync_folder(
        self,
        local: Path,
        remote: str = "",
        delete: bool = False,
        exclude: Iterable[str] = (),
        on_progress: OnProgress | None = None,
    ) -> SyncReport:
        """Make a folder on the board equal to a local one: what has the same size and SHA-256 is not sent again."""
        raise NotImplementedError

    async def disk_usage(self, path: str = "/") -> DiskUsage:
        raise NotImplementedError
