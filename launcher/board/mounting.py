"""A folder of this side as a file system on a board: nothing is copied, programs there open, list and import from it.

Over every way to a board that carries stdin, also for programs that run while nothing of ours does (a timer's).
"""

from __future__ import annotations

from . import mount_code
from .errors import BoardException, Unsupported, file_error
from .session import Board
from .shared_folder import SharedFolder

POINT = "/remote"  # where mpremote has it


async def mount(board: Board, folder: SharedFolder, point: str = POINT) -> None:
    """From now on the board's programs see the folder at ``point``, which becomes their current directory.

    To be said again after each reset.  Raises `Unsupported` on firmware without file systems, and what
    `Board.execute` raises.
    """
    lacks = bytearray()
    await board.execute(mount_code.CHECK, lacks.extend)
    if lacks:
        raise NoFolders(board.transport.describe(), lacks.decode("ascii", "replace").split())
    folder.close()
    board.serve(folder)
    try:
        await _run(board, mount_code.mount(point), point)
    except BaseException:
        board.serve(None)
        raise


async def unmount(board: Board, point: str = POINT) -> None:
    """Raises what `Board.execute` raises; then the folder is not served any more all the same."""
    try:
        await _run(board, mount_code.unmount(point), point)
    finally:
        board.serve(None)


async def _run(board: Board, code: str, point: str) -> None:
    traceback = await board.execute(code, lambda output: None)
    if traceback:
        raise file_error(BoardException(traceback), point)


class NoFolders(Unsupported):
    """The firmware cannot mount anything."""

    def __init__(self, where: str, lacks: list[str]) -> None:
        super().__init__(
            f"the firmware of the board at {where} cannot show a folder of this side (it has no {lacks[0]})",
            "Copy the files to it: %put, or %sync for a whole folder",
        )
