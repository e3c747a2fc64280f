"""Magics: the table, and finding one in it."""

from __future__ import annotations

from collections.abc import Mapping

from .. import cells
from ..context import Context
from ..errors import MagicUsage, UnknownMagic
from ..magic import Form, Magic
from ..usage import Arguments, read
from . import connection, files, information, installing, mounting, plotting, running

_PATHS = "Paths are the board's; a colon in front, as mpremote has it, may be left out."
_LOCAL = "Paths on this side count from the notebook's directory."


async def _lsmagic(context: Context, arguments: Arguments) -> None:
    context.say(information.overview(TABLE))


async def _help(context: Context, arguments: Arguments) -> None:
    name = arguments.one("MAGIC")
    context.say(find(name.lstrip("%")).page() if name else information.overview(TABLE))


_MAGICS = (
    # -- connecting
    Magic("connect", "[--as NAME] [--baud N] [--wait SECONDS] [--resume] [ADDRESS]", "Connect a board, or the present one again.",
          connection.connect, aliases=("serialconnect",),
          more="ADDRESS: /dev/ttyUSB0, serial:///dev/ttyUSB0, webrepl://192.168.4.1, or the name of a target.\n"
               "It becomes the present board; a notebook can have several (%board). --resume keeps what is in its memory."),
    Magic("disconnect", "[NAME]", "Give the board's port free, for other programs.", connection.disconnect),
    Magic("reset", "[--soft] [--hard] [--bootloader]", "Start the board anew.", connection.reset,
          aliases=("soft-reset", "rebootdevice"),
          more="--soft (usual): a fresh interpreter; files stay, variables go.  --hard: as its reset button does.\n"
               "--bootloader: into the firmware's bootloader, to write another firmware."),
    Magic("board", "[NAME…]", "List the boards, choose the present one, or run a cell on several.", connection.board, Form.BOTH,
          aliases=("boards",),
          more="%%board left right: the cell on both at the same time. %%board all: on all. Each line says whose it is."),
    Magic("ports", "", "The serial devices here, and who uses them.", connection.ports, aliases=("devs",)),
    Magic("resume", "", "Connect without resetting anything.", connection.resume),
    Magic("info", "", "Board, firmware and free memory.", connection.info, aliases=("about",)),
    Magic("rtc", "[--set]", "The board's clock; --set sets it from this machine's.", connection.rtc),
    # -- files
    Magic("ls", "[-l|--long] [PATH…]", "List files on the board.", files.ls, aliases=("dir",), more=_PATHS),
    Magic("tree", "[PATH]", "List files on the board, with those in folders.", files.tree, more=_PATHS),
    Magic("cat", "PATH…", "Show files of the board.", files.cat, aliases=("type",), more=_PATHS),
    Magic("load", "PATH", "Put a file of the board into the next cell, to edit it.", files.load, aliases=("edit",), more=_PATHS),
    Magic("put", "LOCAL…", "Copy files to the board: LOCAL… BOARD. As %%put PATH, write the cell itself into a file there.",
          files.put, Form.BOTH, aliases=("sendtofile", "upload", "writefile"),
          more="%put main.py lib/     the file main.py into the folder lib\n%%put main.py         the text below into main.py\n" + _LOCAL),
    Magic("get", "BOARD [LOCAL]", "Copy a file from the board.", files.get, aliases=("fetchfile", "download"), more=_LOCAL),
    Magic("rm", "[-r|--recursive] PATH…", "Remove files on the board.", files.rm, aliases=("del",), more=_PATHS),
    Magic("mkdir", "[-p|--parents] PATH…", "Make folders on the board.", files.mkdir, more=_PATHS),
    Magic("rmdir", "PATH…", "Remove empty folders on the board.", files.rmdir, more=_PATHS),
    Magic("mv", "OLD NEW", "Give a file on the board another name.", files.mv, aliases=("rename",), more=_PATHS),
    Magic("cp", "FROM TO", "Copy as mpremote does: a colon stands before the board's path.", files.cp, aliases=("copy",),
          more="%cp main.py :main.py    to the board\n%cp :data.csv .         from the board"),
    Magic("sync", "[--delete] [--exclude PATTERNS] FOLDER [BOARD]", "Make a folder on the board equal to one here; only what differs is sent.",
          files.sync, more="--delete removes what is not here. --exclude takes patterns with commas between them.\n" + _LOCAL),
    Magic("df", "[PATH]", "How full the board's file system is.", files.df),
    Magic("sha256sum", "PATH…", "Check sums of files on the board.", files.sha256sum, more=_PATHS),
    Magic("touch", "PATH…", "Make empty files on the board.", files.touch, more=_PATHS),
    Magic("cd", "[PATH]", "Change the board's current folder.", files.cd),
    Magic("pwd", "", "The current folders: on the board, and here.", files.pwd),
    Magic("mount", "[--read-only] [FOLDER]", "Let the board use a folder of this machine as /remote; nothing is copied.",
          mounting.mount,
          more="Programs there open, list, write and import from it; it becomes the board's current folder.\n"
               "It stays over resets, until %umount. --read-only: nothing in it can be changed from there.\n"
               "Without FOLDER: what is mounted now.\n" + _LOCAL),
    Magic("umount", "", "End what %mount began.", mounting.umount, aliases=("unmount",)),
    # -- running
    Magic("run", "[--board] FILE", "Run a file of this machine on the board; with --board, or :FILE, one that lies there.", running.run, more=_LOCAL),
    Magic("eval", "TEXT", "An expression's value.", running.evaluate),
    Magic("exec", "TEXT", "Run a statement.", running.execute),
    Magic("local", "[TEXT]", "Run a cell in a Python on this machine. Pictures (matplotlib) and tables are shown; its variables stay.",
          running.local, Form.BOTH),
    Magic("time", "[TEXT]", "How long a statement or a cell takes.", running.timed, Form.BOTH),
    Magic("timeit", "TEXT", "How long a statement takes by the board's own clock, many times over.", running.timeit),
    Magic("capture", "[--append] [--show] FILE", "Write what a cell prints into a file here.", running.capture, Form.CELL, more=_LOCAL),
    Magic("plot", "[--title TITLE] [--names NAMES] [--x SERIES] [--last N] [--low Y] [--high Y] [--text] [STATEMENT…]",
          "Plot the numbers that a cell prints, while it runs.", plotting.plot, Form.BOTH,
          more="Lines such as  3 4.5   (3, 4.5)   light: 3, sound: 4.5  become points, one for each number in a line.\n"
               "--names light,sound: for numbers without names. --last 100: only the newest. --x t: one series is the axis.\n"
               "--text: show the lines too."),
    Magic("mip", "[--target FOLDER] [--from FOLDER] [--index URL] [--no-mpy] PACKAGE…",
          "%mip install PACKAGE: put packages onto the board.", installing.mip,
          more="PACKAGE: a folder or file here, a name (looked for in --from FOLDER, $FARKERNEL_PACKAGES,\n"
               "~/.local/share/farkernel/packages, then in the index), github:owner/repository/path, or a URL.\n"
               "It is fetched by this machine, not by the board. %mip install farkernel: the module for pictures and tables."),
    # -- looking
    Magic("modules", "", "Modules that can be imported on the board.", information.modules),
    Magic("who", "", "The variables on the board.", information.who, aliases=("whos",)),
    Magic("mem", "", "Free memory on the board.", information.mem),
    Magic("history", "", "The cells that were run.", information.history),
    Magic("lsmagic", "", "This list.", _lsmagic),
    Magic("help", "[MAGIC]", "Explain a magic.", _help, aliases=("man",)),
)  # fmt: skip

TABLE: Mapping[str, Magic] = {magic.name: magic for magic in _MAGICS}
_BY_NAME = {name: magic for magic in _MAGICS for name in (magic.name, *magic.aliases)}
# What people of other kernels and of mpremote write, and what does that here.
_ELSEWHERE = {
    "pip": "Packages for boards are installed by %mip install NAME",
    "esptool": "Firmware is written by `farkernel board flash`, in a terminal",
    "mpycross": "`farkernel image` compiles modules when it makes a file system",
    "websocketconnect": "Write %connect webrepl://ADDRESS",
    "socketconnect": "Write %connect webrepl://ADDRESS",
    "matplotlib": "The board has no matplotlib: %%plot draws what it prints, %%local runs Python here",
    "bash": "%%local runs Python on this machine",
    "sh": "%%local runs Python on this machine",
    "python": "Write %%local for Python on this machine",
    "fs": "File commands stand alone here: %ls, %cat, %cp, %rm, %mkdir, %tree",
    "repl": "`farkernel board repl` is a terminal on the board; disconnect it here first (%disconnect)",
}


def find(name: str) -> Magic:
    """Raises `UnknownMagic`, with the nearest name."""
    magic = _BY_NAME.get(name)
    if magic is None:
        raise UnknownMagic(name, _BY_NAME, _ELSEWHERE.get(name.lower(), ""))
    return magic


def completions() -> list[str]:
    """All names with their percent signs."""
    lines = [f"%{magic.name}" for magic in _MAGICS if magic.form is not Form.CELL]
    return lines + [f"%%{magic.name}" for magic in _MAGICS if magic.form is not Form.LINE]


def explain(text: str) -> str | None:
    """The help for ``%name`` or ``%%name``."""
    magic = _BY_NAME.get(text.lstrip("%"))
    return magic.page() if magic else None


async def run_magic(context: Context, part: cells.Magic) -> None:
    """Raises `UnknownMagic`, `MagicUsage`, and what the magic raises."""
    magic = find(part.name)
    if part.body is not None and magic.form is Form.LINE:
        raise MagicUsage(
            f"%%{part.name} is for one line: write it with one percent sign", magic.name, magic.usage
        )
    if part.body is None and magic.form is Form.CELL:
        raise MagicUsage(
            f"%{part.name} is for a whole cell: write %%{part.name} in its first line",
            magic.name,
            magic.usage,
        )
    arguments = read(magic.name, magic.parsed, part.arguments, part.body, part.line)
    await magic.run(context, arguments)
