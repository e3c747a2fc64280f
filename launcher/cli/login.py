"""`farkernel login`: authenticate once, at a terminal, for all kernels to come."""

from __future__ import annotations

import argparse

from .. import configuration
from .arguments import add_json
from .asking import Asking
from .output import emit, say

DEADLINE = 120.0  # not counting the time that somebody takes to type


def configure_login(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Open the connection to a target's host now, and be asked here what it asks: whether its key is right, "
        "passwords, codes.  All kernels on that host use the connection then, as long as the keeper holds it."
    )
    parser.add_argument("name", metavar="NAME", help="a target")
    add_json(parser)


def run_login(arguments: argparse.Namespace) -> int:
    target = configuration.load().target(arguments.name)
    with Asking() as client:
        answer = client.request("login", DEADLINE, target=arguments.name)
    node = str(answer.get("what", ""))
    if arguments.json:
        emit({"target": target.name, "address": str(target.address), "node": node})
    else:
        say(f"Logged in to {target.name} ({target.address}; it calls itself {node}).")
    return 0
