"""`%mount` and `%umount`: a folder of this machine, used by the board's programs as if it was theirs."""

from __future__ import annotations

from ...board.mounting import POINT
from ...board.shared_folder import SharedFolder
from ...text import one_line
from ..context import Context
from ..errors import LocalFileError
from ..usage import Arguments
from .files import is_folder, local_path


async def mount(context: Context, arguments: Arguments) -> None:
    held = await context.ready()
    given = arguments.one("FOLDER")
    if given:
        folder = local_path(given).absolute()
        if not is_folder(folder):
            raise LocalFileError(folder, "it is not a folder")
        await held.mount(SharedFolder(folder, arguments.flag("--read-only")))
    if held.folder is None:
        context.say(f"Nothing is mounted on {held.name}: %mount FOLDER")
        return
    how = " (only to be read)" if held.folder.read_only else ""
    context.say(f"{one_line(held.folder.folder)} is {POINT} on {held.name}{how}")
    if given:
        context.say(
            f"{POINT} is its current folder now: programs open and import from there. %umount ends it."
        )


async def umount(context: Context, arguments: Arguments) -> None:
    held = await context.ready()
    if held.folder is None:
        context.say(f"Nothing is mounted on {held.name}.")
        return
    folder = held.folder.folder
    await held.unmount()
    context.say(f"{one_line(folder)} is no longer mounted on {held.name}.")
