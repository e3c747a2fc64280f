"""`farkernel install`, `uninstall`: menu entries."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ...backends.archive import cache_directory, stored_archive
from ...kernelspecs import entries, logos
from .. import configuration
from ..agent import scans, specs
from ..agent.problems import Problem
from ..configuration import Target
from ..errors import FarkernelError
from .arguments import add_json
from .asking import Asking
from .output import emit, say

LOOK_DEADLINE = 10.0


def configure_install(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a target")
    parser.add_argument(
        "--kernel", metavar="K", help="a kernelspec there, instead of the target's own choice"
    )
    parser.add_argument(
        "--as", dest="entry", metavar="ENTRY", help="the menu entry's name, if not the target's"
    )
    parser.add_argument("--display-name", metavar="D", help="what the menu shows")
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--user", dest="where", action="store_const", const="user", help="for you (the default)"
    )
    place.add_argument(
        "--sys-prefix",
        dest="where",
        action="store_const",
        const="sys-prefix",
        help="for this Python environment",
    )
    place.add_argument(
        "--system", dest="where", action="store_const", const="system", help="for every user here"
    )
    place.add_argument("--prefix", metavar="P", help="below P/share/jupyter")
    add_json(parser)


def run_install(arguments: argparse.Namespace) -> int:
    target = configuration.load().target(arguments.name)
    settings: dict[str, Any] = {"target": arguments.name}
    if arguments.kernel is not None:
        settings["kernel"] = arguments.kernel
    kernel = arguments.kernel or target.kernel
    name = arguments.entry or arguments.name
    spec = entries.build(
        name,
        arguments.display_name or entries.default_display_name(name, kernel),
        entries.guess_language(kernel),
        settings,
    )
    data = entries.data_directory(arguments.where or "user", arguments.prefix)
    kind = logos.kind_of(str(target.address))
    pictures = logos.files(kind, str(spec["language"]), own_logos(target, arguments.kernel, kind))
    directory = entries.install(name, spec, data, pictures)
    # A first kernel need not wait for what takes a quarter of a second to make.
    stored_archive(cache_directory())
    if arguments.json:
        emit({"entry": entries.check_name(name), "directory": directory, "spec": spec})
    else:
        say(f"{spec['display_name']} is in the menu ({directory}).")
    return 0


def own_logos(target: Target, kernel: str | None, kind: str) -> dict[str, bytes]:
    """Those of the kernel's own kernelspec; none where it cannot be asked now (nothing is queued for a picture)."""
    if kind not in ("local", "host") or (target.python and not kernel):
        return {}
    try:
        if kind == "local":
            spec = specs.find(kernel or target.kernel or "python3", os.environ)
            return logos.decoded(scans.logos(spec.directory))
        with Asking(start=False) as client:  # a picture is not worth a keeper
            answer = client.request("look", LOOK_DEADLINE, target=target.name, kernel=kernel)
        return logos.decoded(answer.get("logos"))
    except (FarkernelError, Problem):
        return {}


def configure_uninstall(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "entry", metavar="ENTRY", help="as `farkernel list` and `jupyter kernelspec list` show it"
    )
    add_json(parser)


def run_uninstall(arguments: argparse.Namespace) -> int:
    directories = entries.uninstall(arguments.entry)
    if arguments.json:
        emit({"entry": arguments.entry, "directories": directories})
    else:
        for directory in directories:
            say(f"{directory} is removed.")
    return 0
