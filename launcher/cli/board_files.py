"""`farkernel board ls|put|get|rm|mkdir`: the files on a board."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path

from ..board.contract import Entry
from ..board.errors import BoardError, BoardFileError
from ..board.files import BoardFiles, join
from ..board.session import Board
from . import table
from .arguments import add_json
from .asking import Progress
from .board_where import add_where, with_board
from .output import emit, say


class NoSuchFile(BoardError):
    """What should be copied onto the board is not here."""

    kind = "board-file"

    def __init__(self, path: Path) -> None:
        super().__init__(f"there is no file or folder {str(path)!r} here", "Look at its spelling")


class UnfitName(BoardError):
    """A name on a board that cannot be one here."""

    kind = "board-file"

    def __init__(self, name: str) -> None:
        super().__init__(f"{name!r} on the board cannot be the name of a file here", "Rename it on the board")


def configure_ls(parser: argparse.ArgumentParser) -> None:
    add_where(parser)
    parser.add_argument("path", metavar="PATH", nargs="?", default="", help="a directory on the board")
    add_json(parser)


def run_ls(arguments: argparse.Namespace) -> int:
    async def act(board: Board) -> list[Entry]:
        return await BoardFiles(board).listdir(arguments.path)

    with Progress("asking the board"):
        entries = with_board(arguments.where, act)
    if arguments.json:
        emit([asdict(entry) for entry in entries])
        return 0
    rows = [
        {
            "name": entry.name + ("/" if entry.directory else ""),
            "size": "" if entry.directory else f"{entry.size:,}",
        }
        for entry in entries
    ]
    if rows:
        table.show((table.Column("size", "BYTES", right=True), table.Column("name", "NAME")), rows)
    return 0


def configure_put(parser: argparse.ArgumentParser) -> None:
    parser.description = "Copy a file onto a board, or make a folder there equal to one here."
    add_where(parser)
    parser.add_argument("local", metavar="LOCAL", type=Path, help="a file or a folder here")
    parser.add_argument(
        "remote",
        metavar="REMOTE",
        nargs="?",
        help="its path on the board; its own name unless given, for a folder: the board's root",
    )
    parser.add_argument("--delete", action="store_true", help="remove what the folder here has not got")
    parser.add_argument("--exclude", metavar="PATTERN", action="append", default=[], help="left alone")


def run_put(arguments: argparse.Namespace) -> int:
    local: Path = arguments.local
    if not local.exists():
        raise NoSuchFile(local)

    is_folder = local.is_dir()
    data = b"" if is_folder else local.read_bytes()

    async def act(board: Board) -> str:
        files = BoardFiles(board)
        if not is_folder:
            remote = arguments.remote or local.name
            await files.write(join(remote, local.name) if remote.endswith("/") else remote, data)
            return f"{local.name} is on the board: {table.size(len(data))}."
        done = await files.sync_folder(local, arguments.remote or "", arguments.delete, arguments.exclude)
        removed = f", {len(done.removed)} removed" if done.removed else ""
        sent = f"{len(done.sent)} files sent ({table.size(done.bytes_sent)})"
        return f"{sent}, {len(done.unchanged)} were there already{removed}."

    with Progress("writing"):
        said = with_board(arguments.where, act)
    say(said)
    return 0


def configure_get(parser: argparse.ArgumentParser) -> None:
    add_where(parser)
    parser.add_argument("remote", metavar="REMOTE", help="a file or a directory on the board")
    parser.add_argument(
        "local",
        metavar="LOCAL",
        nargs="?",
        type=Path,
        help="where to; its own name in this folder unless given",
    )


def run_get(arguments: argparse.Namespace) -> int:
    remote: str = arguments.remote
    local: Path = arguments.local or Path(fit_name(remote.rstrip("/").rpartition("/")[2]))
    if local.is_dir() and arguments.local is not None:
        local /= fit_name(remote.rstrip("/").rpartition("/")[2])

    async def act(board: Board) -> int:
        return await fetch(BoardFiles(board), remote, local)

    with Progress("reading"):
        size = with_board(arguments.where, act)
    say(f"{local} is here: {table.size(size)}.")
    return 0


async def fetch(files: BoardFiles, remote: str, local: Path) -> int:
    """A file, or a directory with all that is in it; returns its bytes."""
    if (await files.stat(remote)).directory:
        _make_folder(local)
        entries = await files.listdir(remote)
        return sum(
            [await fetch(files, join(remote, one.name), local / fit_name(one.name)) for one in entries]
        )
    data = await files.read(remote)
    _save(local, data)
    return len(data)


def _make_folder(local: Path) -> None:
    local.mkdir(parents=True, exist_ok=True)


def _save(local: Path, data: bytes) -> None:
    """Whole or not at all."""
    part = local.with_name(local.name + ".part")
    part.write_bytes(data)
    part.replace(local)


def fit_name(name: str) -> str:
    """A board's name as one of ours, or UnfitName: it must not lead out of the folder."""
    if name in ("", ".", "..") or os.sep in name or "\0" in name or not name.isprintable():
        raise UnfitName(name)
    return name


def configure_rm(parser: argparse.ArgumentParser) -> None:
    add_where(parser)
    parser.add_argument("paths", metavar="PATH", nargs="+", help="files on the board")
    parser.add_argument(
        "-r", "--recursive", action="store_true", help="also directories, with what is in them"
    )


def run_rm(arguments: argparse.Namespace) -> int:
    async def act(board: Board) -> None:
        files = BoardFiles(board)
        for path in arguments.paths:
            if not (await files.stat(path)).directory:
                await files.remove(path)
            elif arguments.recursive:
                await files.rmdir(path, recursive=True)
            else:
                raise BoardFileError(f"{path!r} is a directory", "With -r it goes, and all that is in it")

    with Progress("removing"):
        with_board(arguments.where, act)
    return 0


def configure_mkdir(parser: argparse.ArgumentParser) -> None:
    add_where(parser)
    parser.add_argument("path", metavar="PATH", help="the new directory")
    parser.add_argument("-p", "--parents", action="store_true", help="also those above it")


def run_mkdir(arguments: argparse.Namespace) -> int:
    async def act(board: Board) -> None:
        await BoardFiles(board).mkdir(arguments.path, arguments.parents)

    with Progress("asking the board"):
        with_board(arguments.where, act)
    return 0
