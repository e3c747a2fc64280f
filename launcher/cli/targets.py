"""`farkernel add`, `list`, `remove`: the targets of the configuration."""

from __future__ import annotations

import argparse
from typing import Any

from .. import configuration
from ..client_protocol import KeeperLacks
from ..targets_file import add_target, parse_assignment, remove_target
from . import table
from .arguments import add_json
from .output import emit, say

REACH_DEADLINE = 20.0

_RESOURCES = ("gpus", "cpus", "memory", "time")


def configure_add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="letters, digits, '.', '_' and '-'")
    parser.add_argument("address", metavar="ADDRESS", help="local: for this machine")
    parser.add_argument("--kernel", metavar="K", help="a kernelspec there")
    parser.add_argument("--python", metavar="P", help="or an interpreter there, with ipykernel in it")
    parser.add_argument("--gpus", metavar="N", type=int, help="resources of each kernel (clusters)")
    parser.add_argument("--cpus", metavar="N", type=int, help="likewise")
    parser.add_argument("--memory", metavar="M", help="likewise, such as 64G")
    parser.add_argument("--time", metavar="T", help="likewise, such as 4h")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="any other key of the configuration; the value as in TOML, or plain text (may be repeated)",
    )
    add_json(parser)


def run_add(arguments: argparse.Namespace) -> int:
    settings: dict[str, Any] = {"address": arguments.address}
    settings |= {key: value for key in ("kernel", "python") if (value := getattr(arguments, key)) is not None}
    resources = {key: value for key in _RESOURCES if (value := getattr(arguments, key)) is not None}
    if resources:
        settings["resources"] = resources
    for text in arguments.set:
        put(settings, text)
    path = add_target(arguments.name, settings)
    if arguments.json:
        emit({"target": arguments.name, "settings": settings, "file": str(path)})
    else:
        say(f"{arguments.name} is in {path}.")
        say(f"Put it into the notebook's menu: farkernel install {arguments.name}")
    return 0


def put(settings: dict[str, Any], text: str) -> None:
    """Put `KEY=VALUE` into the settings; dots in the key lead into tables.  Raises `ConfigurationError`."""
    path, value = parse_assignment(text)
    place = settings
    for part in path[:-1]:
        inner = place.get(part)
        if not isinstance(inner, dict):
            inner = place[part] = {}
        place = inner
    place[path[-1]] = value


def configure_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-check", action="store_true", help="do not look whether the targets can be reached"
    )
    add_json(parser)


def run_list(arguments: argparse.Namespace) -> int:
    from ...kernelspecs import entries

    targets = configuration.load().targets
    reach = {} if arguments.no_check or not targets else reachable(list(targets))
    menu: dict[str, list[str]] = {}
    for entry in entries.installed():
        menu.setdefault(str(entry.settings.get("target")), []).append(entry.name)
    rows = [
        {
            "target": name,
            "address": str(target.address),
            "kernel": target.kernel or target.python,
            "presets": list(target.presets),
            "entries": list(dict.fromkeys(menu.get(name, []))),
            "reach": reach.get(name),
        }
        for name, target in targets.items()
    ]
    if arguments.json:
        emit(rows)
    elif rows:
        table.show(COLUMNS, [_cells(row) for row in rows], aside="why")
    else:
        say("There are no targets yet. Add one: farkernel add here local:")
    return 0


COLUMNS = (
    table.Column("target", "TARGET"),
    table.Column("address", "ADDRESS", shrinks=True),
    table.Column("kernel", "KERNEL", shrinks=True),
    table.Column("presets", "PRESETS", shrinks=True),
    table.Column("entries", "MENU ENTRIES", shrinks=True),
    table.Column("state", "REACHED"),
    table.Column("why", "WHY", shrinks=True),
)


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    reach = row["reach"] if isinstance(row["reach"], dict) else {}
    state = "" if "ok" not in reach else "ok" if reach["ok"] else "failed"
    what, advice = (str(reach.get(key) or "") for key in ("what", "advice"))
    why = f"{what.rstrip('.')}. {advice}" if advice else what
    names = {key: ", ".join(row[key]) for key in ("presets", "entries")}
    return {**row, **names, "state": state, "why": why}


def reachable(names: list[str]) -> dict[str, Any]:
    """What the keeper found when it tried to reach each target; empty if it cannot say."""
    from .asking import Asking

    with Asking() as client:
        try:
            answer = client.request(
                "reach", timeout=REACH_DEADLINE + 10, targets=names, deadline=REACH_DEADLINE
            )
        except KeeperLacks:  # the rest of the list is worth having
            return {}
    found = answer.get("targets")
    return found if isinstance(found, dict) else {}


def configure_remove(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    add_json(parser)


def run_remove(arguments: argparse.Namespace) -> int:
    from ...kernelspecs import entries

    path = remove_target(arguments.name)
    left = sorted(
        {entry.name for entry in entries.installed() if entry.settings.get("target") == arguments.name}
    )
    if arguments.json:
        emit({"target": arguments.name, "file": str(path), "entries": left})
        return 0
    say(f"{arguments.name} is no longer in {path}.")
    for name in left:
        say(f"Its menu entry {name} is still there: farkernel uninstall {name}")
    return 0
