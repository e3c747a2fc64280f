"""Files: on the board, and between it and here."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path, PurePosixPath

from ...board.contract import Entry
from ...board.errors import BoardException, BoardFileError
from ...text import clean, one_line
from ..context import Context
from ..errors import LocalFileError, MagicUsage
from ..usage import Arguments

_LARGEST_SHOWN = 64 * 1024


def on_board(path: str) -> str:
    """mpremote writes a colon before the board's paths; it may be left out."""
    return path.removeprefix(":")


async def ls(context: Context, arguments: Arguments) -> None:
    held = await context.ready()
    for path in arguments.many("PATH") or [""]:
        entries = await held.files.listdir(on_board(path))
        if len(arguments.many("PATH")) > 1:
            context.say(f"{path}:")
        for entry in entries:
            context.say(_row(entry, arguments.flag("--long")))
        if not entries:
            context.say("(no files)")


def _row(entry: Entry, long: bool) -> str:
    name = one_line(entry.name) + ("/" if entry.directory else "")
    size = "" if entry.directory else f"{entry.size:,}"
    when = ""
    if long and entry.modified is not None:
        when = time.strftime("%Y-%m-%d %H:%M  ", time.gmtime(entry.modified))
    return f"{size:>10}  {when}{name}"


async def tree(context: Context, arguments: Arguments) -> None:
    held = await context.ready()

    async def show(path: str, indent: str) -> None:
        for entry in await held.files.listdir(path):
            context.say(f"{indent}{one_line(entry.name)}{'/' if entry.directory else ''}")
            if entry.directory:
                await show(f"{path.rstrip('/')}/{entry.name}" if path else entry.name, indent + "    ")

    await show(on_board(arguments.one("PATH")), "")


async def cat(context: Context, arguments: Arguments) -> None:
    held = await context.ready()
    for path in arguments.many("PATH"):
        data = await held.files.read(on_board(path))
        text = clean(data[:_LARGEST_SHOWN].decode("utf-8", "replace"), "\n\t")
        context.output.write(text if text.endswith("\n") or not text else text + "\n")
        if len(data) > _LARGEST_SHOWN:
            context.notice(f"… {len(data) - _LARGEST_SHOWN:,} bytes more; %get {path} copies the file here")


async def load(context: Context, arguments: Arguments) -> None:
    """The text becomes the next cell."""
    held = await context.ready()
    path = arguments.one("PATH")
    text = (await held.files.read(on_board(path))).decode("utf-8", "replace")
    context.payload.append({"source": "set_next_input", "text": f"%%put {path}\n{text}", "replace": False})


async def put(context: Context, arguments: Arguments) -> None:
    held = await context.ready()
    if arguments.body is not None:
        path = on_board(arguments.many("LOCAL")[0])
        if len(arguments.many("LOCAL")) != 1:
            raise MagicUsage("%%put needs one path on the board", "put", "PATH")
        text = (
            arguments.body if arguments.body.endswith("\n") or not arguments.body else arguments.body + "\n"
        )
        await held.files.write(path, text.encode())
        context.say(f"{path}: {len(text.encode()):,} bytes written to {held.name}")
        return
    *sources, target = (
        arguments.many("LOCAL") if len(arguments.many("LOCAL")) > 1 else [*arguments.many("LOCAL"), ""]
    )
    folder = len(sources) > 1 or target.endswith("/") or await is_directory(context, on_board(target))
    for source in sources:
        local = local_path(source)
        if is_folder(local):
            raise MagicUsage(f"{source} is a folder: %sync sends folders", "put", "LOCAL… [BOARD]")
        remote = on_board(target)
        remote = str(PurePosixPath(remote) / local.name) if folder or not remote else remote
        data = read_local(local)
        await held.files.write(remote, data)
        context.say(f"{remote}: {len(data):,} bytes")


async def is_directory(context: Context, path: str) -> bool:
    """Whether there is a directory of that name on the board; the top one always is."""
    if path in ("", "/", "."):
        return True
    try:
        return (await context.held.files.stat(path)).directory
    except BoardFileError:
        return False


def local_path(text: str) -> Path:
    """On this side; it counts from the notebook's directory."""
    return Path(text).expanduser()


def is_folder(path: Path) -> bool:
    return path.is_dir()


def read_local(path: Path) -> bytes:
    """Raises `LocalFileError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise LocalFileError(path, error) from None


def write_local(path: Path, data: bytes) -> None:
    """Raises `LocalFileError`."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise LocalFileError(path, error) from None


async def get(context: Context, arguments: Arguments) -> None:
    held = await context.ready()
    remote = on_board(arguments.one("BOARD"))
    name = PurePosixPath(remote).name
    target = local_path(arguments.one("LOCAL", name))
    if is_folder(target):
        target /= name
    data = await held.files.read(remote)
    write_local(target, data)
    context.say(f"{target}: {len(data):,} bytes")


async def rm(context: Context, arguments: Arguments) -> None:
    held = await context.ready()
    for path in map(on_board, arguments.many("PATH")):
        if arguments.flag("--recursive") and await is_directory(context, path):
            await held.files.rmdir(path, recursive=True)
        else:
            await held.files.remove(path)


async def mkdir(context: Context, arguments: Arguments) -> None:
    held = await context.ready()
    for path in map(on_board, arguments.many("PATH")):
        await held.files.mkdir(path, parents=arguments.flag("--parents"))


async def rmdir(context: Context, arguments: Arguments) -> None:
    held = await context.ready()
    for path in map(on_board, arguments.many("PATH")):
        await held.files.rmdir(path)


async def mv(context: Context, arguments: Arguments) -> None:
    held = await context.ready()
    await held.files.rename(on_board(arguments.one("OLD")), on_board(arguments.one("NEW")))


async def cp(context: Context, arguments: Arguments) -> None:
    """As mpremote has it: a colon says which side is the board's."""
    source, target = arguments.one("FROM"), arguments.one("TO")
    if source.startswith(":") and target.startswith(":"):
        held = await context.ready()
        await held.files.write(on_board(target), await held.files.read(on_board(source)))
    elif source.startswith(":"):
        await get(context, Arguments({"BOARD": [source], "LOCAL": [target]}))
    elif target.startswith(":"):
        await put(context, Arguments({"LOCAL": [source, target]}))
    else:
        raise MagicUsage("write a colon before the path that is on the board", "cp", "FROM TO")


async def sync(context: Context, arguments: Arguments) -> None:
    held = await context.ready()
    folder = local_path(arguments.one("FOLDER"))
    if not is_folder(folder):
        raise LocalFileError(folder, "it is not a folder")
    exclude = [each for each in arguments.option("--exclude").split(",") if each]
    report = await held.files.sync_folder(
        folder, on_board(arguments.one("BOARD")), delete=arguments.flag("--delete"), exclude=exclude
    )
    for path in report.sent:
        context.say(f"sent      {one_line(path)}")
    for path in report.removed:
        context.say(f"removed   {one_line(path)}")
    context.say(
        f"{len(report.sent)} sent ({report.bytes_sent:,} bytes), {len(report.unchanged)} were the same"
    )


async def df(context: Context, arguments: Arguments) -> None:
    held = await context.ready()
    usage = await held.files.disk_usage(on_board(arguments.one("PATH", "/")))
    context.say(f"{usage.used:,} of {usage.total:,} bytes are used, {usage.free:,} are free")


async def sha256sum(context: Context, arguments: Arguments) -> None:
    held = await context.ready()
    for path in map(on_board, arguments.many("PATH")):
        context.say(f"{hashlib.sha256(await held.files.read(path)).hexdigest()}  {one_line(path)}")


async def touch(context: Context, arguments: Arguments) -> None:
    held = await context.ready()
    for path in map(on_board, arguments.many("PATH")):
        data = b"" if not await _exists(context, path) else await held.files.read(path)
        await held.files.write(path, data)


async def _exists(context: Context, path: str) -> bool:
    try:
        await context.held.files.stat(path)
    except BoardFileError:
        return False
    return True


async def cd(context: Context, arguments: Arguments) -> None:
    held = await context.ready()
    await held.files.chdir(on_board(arguments.one("PATH", "/")))


async def pwd(context: Context, arguments: Arguments) -> None:
    held = await context.ready()
    try:
        path = str(await held.board.evaluate("__import__('os').getcwd()"))
    except BoardException:
        path = "/ (it has no directories)"
    context.say(f"on {held.name}: {one_line(path)}")
    context.say(f"here: {os.getcwd()}")
