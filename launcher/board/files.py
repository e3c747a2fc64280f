"""The files on a board, through `session.Board` alone: everything is built on running code there."""

from __future__ import annotations

import ast
import binascii
import contextlib
import hashlib
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from . import file_code
from .contract import DiskUsage, Entry, OnOutput, OnProgress, SyncReport
from .errors import BoardError, BoardException, BoardFileError, NoSuchFolder, file_error
from .session import Board
from .sync import local_files, synchronise

#: Bytes in one run of code: what a board with little memory can hold twice, as code and as data.
_PIECE, _SMALL_PIECE = 1024, 192
_LITTLE_MEMORY = ("microbit",)
#: A board without raw-paste drops what comes while it is busy.  Our code has none of these errors and does nothing
#: before they could come, so it is sent again.
_GARBLED, _TRIES = ("SyntaxError", "IndentationError", "NameError"), 4


class Damaged(BoardError):
    """Bytes were lost on the way."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"what the board has written to {path!r} is not what was sent",
            "The line loses bytes, or its flash is worn: try again, perhaps with a lower `baud`",
        )


class BoardFiles:
    """File functions.  Paths are the board's, with slashes; relative ones count from its current directory.

    All raise `BoardFileError` (no such file, …), `BoardFull`, `Unsupported` (this firmware has no such thing), and what
    `Board.execute` raises.
    """

    def __init__(self, board: Board) -> None:
        self.board = board

    async def listdir(self, path: str = "") -> list[Entry]:
        """Sorted by name."""
        found = []
        for name, directory, size in await self._ask(file_code.LISTDIR, path):
            if size < 0 and not directory:  # a firmware before 1.12: one question for each file
                size = (await self.stat(join(path, name))).size
            found.append(Entry(str(name), bool(directory), max(int(size), 0) if not directory else 0))
        return sorted(found, key=lambda entry: entry.name)

    async def stat(self, path: str) -> Entry:
        directory, size, modified = (await self._ask(file_code.STAT, path))[0]
        return Entry(
            path.rstrip("/").rpartition("/")[2] or "/",
            bool(directory),
            0 if directory else int(size),
            int(modified) or None,
        )

    async def read(self, path: str, on_progress: OnProgress | None = None) -> bytes:
        progress = on_progress or _no_progress
        size = (await self.stat(path)).size
        data, line = bytearray(), bytearray()

        def take(output: bytes) -> None:
            line.extend(output)
            *whole, rest = bytes(line).split(b"\r\n")
            line[:] = rest
            for one in whole:
                data.extend(decoded(one))
            progress(min(len(data), size), size)

        await self._run(path, file_code.call(file_code.READ, path, self._piece // 4), take)
        if len(data) != size:
            raise BoardError(
                f"{path!r} has {size:,} bytes on the board, but {len(data):,} came from it",
                "Something else writes it, or the line loses bytes: try again",
            )
        progress(size, size)
        return bytes(data)

    async def write(self, path: str, data: bytes, on_progress: OnProgress | None = None) -> None:
        """Whole or not at all: into a temporary file beside it, checked, renamed (where the board can rename)."""
        name = f"_fk{secrets.token_hex(2)}"
        try:
            for _ in range(_TRIES):
                if await self._write_once(name, path, data, on_progress or _no_progress):
                    return
            raise Damaged(path)
        except BaseException as error:
            await self._give_up(name)
            folder = path.rpartition("/")[0]
            if folder and isinstance(error, BoardFileError) and error.reason == "ENOENT":
                raise NoSuchFolder(folder) from None
            raise

    async def remove(self, path: str) -> None:
        await self._ask(file_code.REMOVE, path)

    async def rmdir(self, path: str, recursive: bool = False) -> None:
        if recursive:
            for entry in await self.listdir(path):
                inside = join(path, entry.name)
                await (self.rmdir(inside, True) if entry.directory else self.remove(inside))
        await self._ask(file_code.RMDIR, path)

    async def chdir(self, path: str) -> None:
        await self._ask(file_code.CHDIR, path)

    async def mkdir(self, path: str, parents: bool = False) -> None:
        """Nothing happens if it is a directory already."""
        if parents and (above := path.rstrip("/").rpartition("/")[0]):
            await self.mkdir(above, True)
        try:
            await self._ask(file_code.MKDIR, path)
        except BoardError:
            if not await self._is_directory(path):
                raise

    async def rename(self, old: str, new: str) -> None:
        await self._ask(file_code.RENAME, old, new)

    async def digest(self, path: str) -> str | None:
        """SHA-256 as hex digits; None: the board has no such function."""
        found = (await self._ask(file_code.DIGEST, path))[0]
        return None if found is None else str(found)

    async def sync_folder(
        self,
        local: Path,
        remote: str = "",
        delete: bool = False,
        exclude: Iterable[str] = (),
        on_progress: OnProgress | None = None,
    ) -> SyncReport:
        """Make a folder on the board equal to a local one: what has the same size and SHA-256 is not sent again.

        ``exclude``: patterns of names or paths that are left alone on both sides.  ``on_progress`` counts what is
        compared or sent.
        """
        return await synchronise(self, local_files(local, exclude), remote, delete, exclude, on_progress)

    async def disk_usage(self, path: str = "/") -> DiskUsage:
        numbers = (await self._ask(file_code.STATVFS, path))[0]
        block, fragment, blocks, free = (int(number) for number in numbers[:4])
        size = fragment or block
        return DiskUsage(size * blocks, size * (blocks - free), size * free)

    # -- inside -------------------------------------------------------------------------------------------------

    @property
    def _piece(self) -> int:
        platform = self.board.info.platform if self.board.info else ""
        return _SMALL_PIECE if platform in _LITTLE_MEMORY else _PIECE

    async def _write_once(self, name: str, path: str, data: bytes, progress: OnProgress) -> bool:
        """False: what arrived is not what was sent.  All in one go: over a long way each answer costs its time."""
        total, size, digest = len(data), self._piece, hashlib.sha256(data).hexdigest()
        base64 = self.board.info is not None and self.board.info.base64
        pieces = [written(name, data[place : place + size], base64) for place in range(0, total, size)]
        first = file_code.call(file_code.OPEN, path, name=name)
        last = file_code.call(file_code.FINISH, path, total, digest, name=name)
        output = bytearray()

        def count(done: int) -> None:
            progress(max(min((done - 1) * size, total), 0), total)

        progress(0, total)
        await self._run_all(path, [first, *pieces, last], count, output.extend, total)
        return tuple(_literals(output)[-1]) in ((total, digest), (total, None))

    async def _give_up(self, name: str) -> None:
        """What is there of it, open or closed."""
        with contextlib.suppress(BoardError):  # what went wrong first is what matters
            await self.board.execute(file_code.call(file_code.GIVE_UP, name=name), _no_output)

    async def _is_directory(self, path: str) -> bool:
        try:
            return (await self.stat(path)).directory
        except BoardError:
            return False

    async def _ask(self, definition: str, *arguments: str | int) -> list[Any]:
        """The literals that it prints, one to a line.  Errors speak of the first argument."""
        output = bytearray()
        path = str(arguments[0]) if arguments else ""
        await self._run(path, file_code.call(definition, *arguments), output.extend)
        return _literals(output)

    async def _run(self, path: str, code: str, on_output: OnOutput) -> None:
        for attempt in range(_TRIES):
            traceback = await self.board.execute(code, on_output)
            if not traceback:
                return
            self._judge(traceback, path, 0, attempt)

    async def _run_all(
        self, path: str, codes: list[str], on_done: Callable[[int], None], on_output: OnOutput, size: int
    ) -> None:
        ran = 0

        def count(done: int) -> None:
            nonlocal ran
            ran = before + done
            on_done(ran)

        for attempt in range(_TRIES):
            before = ran
            traceback = await self.board.execute_all(codes[ran:], count, on_output)
            if not traceback:
                return
            self._judge(traceback, path, size, attempt)

    def _judge(self, traceback: bytes, path: str, size: int, attempt: int) -> None:
        """Raises what the traceback means, unless the code should be sent once more."""
        raw_paste = self.board.info is not None and self.board.info.raw_paste
        error = BoardException(traceback)
        if raw_paste or error.exception not in _GARBLED or attempt == _TRIES - 1:
            raise file_error(error, path, size)


def join(directory: str, name: str) -> str:
    """A path on the board."""
    return f"{directory.rstrip('/')}/{name}" if directory else name


def written(name: str, piece: bytes, base64: bool) -> str:
    """The code that writes these bytes to the open file: whichever form is shorter."""
    plain = f"{name}[0]({file_code.literal(piece)})"
    if not base64:
        return plain
    coded = f"{name}[0]({name}[1]('{binascii.b2a_base64(piece, newline=False).decode()}'))"
    return min(plain, coded, key=len)


def decoded(line: bytes) -> bytes:
    """One line of what `file_code.READ` prints."""
    try:
        if line.startswith((b"b'", b'b"')):
            return bytes(ast.literal_eval(line.decode("ascii")))
        return binascii.a2b_base64(line, strict_mode=True)
    except (ValueError, SyntaxError):
        raise BoardError(
            "what the board sent of its file makes no sense",
            "A timer prints in between, or the line loses bytes",
        ) from None


def _literals(output: bytes | bytearray) -> list[Any]:
    lines = output.decode("utf-8", "replace").split("\r\n")
    try:
        return [ast.literal_eval(line) for line in lines if line]
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise BoardError(
            f"the board's answer makes no sense: {lines[0][:80]!r}", "Reset it, and try again"
        ) from None


def _no_progress(done: int, total: int) -> None:
    """Nobody watches."""


def _no_output(data: bytes) -> None:
    """There is none."""
