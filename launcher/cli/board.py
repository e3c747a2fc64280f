"""`farkernel board ACTION …`: each action is a module with `configure(parser)` and `run(arguments)`, in a table."""

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


ACTIONS = (Action("flash", "write an image onto a board that is plugged in here", "board_flash"),)


def configure_board(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(
        dest="action", metavar="ACTION", title="actions", required=True, parser_class=ActionParser
    )
    for action in ACTIONS:
        module = importlib.import_module(f".{action.module}", __package__)
        summary = action.summary[0].upper() + action.summary[1:] + "."
        added = actions.add_parser(action.name, help=action.summary, description=summary)
        module.configure(added)
        added.set_defaults(run=module.run)


def run_board(arguments: argparse.Namespace) -> int:
    return int(arguments.run(arguments))
