"""`farkernel fleet ACTION …`: a table; an action's module has `configure_NAME(parser)` and `run_NAME(arguments)`."""

from __future__ import annotations

import argparse
import importlib
from typing import NamedTuple

from .arguments import ActionParser


class Action(NamedTuple):
    """What can be done with many hosts, and the module that does it."""

    name: str
    summary: str
    module: str
    examples: str


ACTIONS = (
    Action(
        "diff",
        "what `apply` would change",
        "fleet_apply",
        "farkernel fleet diff class.csv",
    ),
    Action(
        "apply",
        "make targets, a pool and menu entries from a roster; take away what is no longer in it",
        "fleet_apply",
        "farkernel fleet apply class.csv\nfarkernel fleet apply cluster.toml --system",
    ),
    Action(
        "remove",
        "take away all that a roster made",
        "fleet_apply",
        "farkernel fleet remove class",
    ),
    Action(
        "status",
        "how the hosts are: up, temperature, who is on them, kernels",
        "fleet_status",
        "farkernel fleet status\nfarkernel fleet status class --watch",
    ),
    Action(
        "reset",
        "end a host's kernels and set its lesson back",
        "fleet_reset",
        "farkernel fleet reset pi07\nfarkernel fleet reset --all --yes --reboot",
    ),
)


def configure_fleet(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(
        dest="action", metavar="ACTION", title="actions", required=True, parser_class=ActionParser
    )
    for action in ACTIONS:
        module = importlib.import_module(f".{action.module}", __package__)
        summary = action.summary[0].upper() + action.summary[1:] + "."
        added = actions.add_parser(
            action.name, help=action.summary, description=summary, examples=action.examples
        )
        getattr(module, f"configure_{action.name}")(added)
        added.set_defaults(run=getattr(module, f"run_{action.name}"))


def run_fleet(arguments: argparse.Namespace) -> int:
    return int(arguments.run(arguments))
