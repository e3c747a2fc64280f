"""`farkernel board ACTION …`: a table; an action's module has `configure_NAME(parser)` and `run_NAME(arguments)`."""

from __future__ import annotations

import argparse
import importlib
from typing import NamedTuple

from .arguments import ActionParser


class Action(NamedTuple):
    """What can be done with a board, and the module that does it."""

    name: str
    summary: str
    module: str


ACTIONS = (
    Action(
        "list",
        "the boards that are plugged in here and into other machines, and who holds them",
        "board_list",
    ),
    Action("ls", "the files on a board", "board_files"),
    Action("put", "copy a file or a folder onto a board", "board_files"),
    Action("get", "copy a file or a folder from a board", "board_files"),
    Action("rm", "remove files from a board", "board_files"),
    Action("mkdir", "make a directory on a board", "board_files"),
    Action("reset", "a fresh interpreter, or as if the reset button was pressed", "board_repl"),
    Action("repl", "talk to a board at this terminal", "board_repl"),
    Action("flash", "write an image onto a board, where it is plugged in", "board_flash"),
)


def configure_board(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(
        dest="action", metavar="ACTION", title="actions", required=True, parser_class=ActionParser
    )
    for action in ACTIONS:
        module = importlib.import_module(f".{action.module}", __package__)
        summary = action.summary[0].upper() + action.summary[1:] + "."
        added = actions.add_parser(action.name, help=action.summary, description=summary)
        getattr(module, f"configure_{action.name}")(added)
        added.set_defaults(run=getattr(module, f"run_{action.name}"))


def run_board(arguments: argparse.Namespace) -> int:
    return int(arguments.run(arguments))
