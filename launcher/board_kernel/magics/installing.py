"""`%mip`: packages onto the board."""

from __future__ import annotations

from pathlib import PurePosixPath

from ...board.errors import BoardException
from ..context import Context
from ..errors import MagicUsage
from ..held import HeldBoard
from ..packages import INDEX, Finder, package_folders
from ..usage import Arguments
from .files import on_board


async def mip(context: Context, arguments: Arguments) -> None:
    verb, *packages = arguments.many("PACKAGE")
    if verb != "install" or not packages:
        raise MagicUsage("what mip does is install", "mip", "install PACKAGE…")
    held = await context.ready()
    info = held.info
    compiled = info is not None and info.mpy_version is not None and not arguments.flag("--no-mpy")
    mpy = str(info.mpy_version) if compiled and info is not None else "py"
    target = on_board(arguments.option("--target")) if arguments.flag("--target") else await _library(held)
    given = [arguments.option("--from")] if arguments.flag("--from") else []
    for package in packages:
        finder = Finder(package_folders(given), arguments.option("--index", INDEX), mpy)
        plan = await finder.plan(package)
        for path, data in plan.files.items():
            remote = str(PurePosixPath(target) / path)
            folder = str(PurePosixPath(remote).parent)
            if folder not in (".", "/"):
                await held.files.mkdir(folder, parents=True)
            await held.files.write(remote, data)
            context.say(f"{remote}: {len(data):,} bytes")
        context.say(f"{package} is installed on {held.name} (from {', '.join(plan.sources)})")


async def _library(held: HeldBoard) -> str:
    """Where the board looks for packages; the top where it has no folder for them (the micro:bit has none at all)."""
    try:
        path = await held.board.evaluate("__import__('sys').path")
    except BoardException:
        return ""
    return next(
        (str(each) for each in path if str(each).endswith("lib") and not str(each).startswith(".")), ""
    )
