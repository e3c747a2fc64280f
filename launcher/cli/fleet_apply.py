"""`farkernel fleet diff|apply|remove`: what a roster makes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import chain

from .. import configuration
from ..fleet import here
from ..fleet.plan import Change
from ..fleet.roster import Roster
from ..fleet.roster_file import parse_roster, read_file, read_roster
from . import fleet_hosts, fleet_servers
from .arguments import add_json
from .output import complain, emit, say

_SIGNS = {"add": "+", "change": "~", "remove": "-"}
_DONE = {"add": "added", "change": "changed", "remove": "removed"}


def configure_diff(parser: argparse.ArgumentParser) -> None:
    _configure_roster(parser)


def configure_apply(parser: argparse.ArgumentParser) -> None:
    _configure_roster(parser)


def _configure_roster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "roster",
        metavar="ROSTER",
        help="a CSV file with a column `host`, or a TOML file; - is stdin, in TOML",
    )
    parser.add_argument(
        "--only-servers", action="store_true", help="only on the roster's `servers`, and not here"
    )
    parser.add_argument(
        "--hosts",
        action="store_true",
        help="also the [environment] on the hosts themselves, which must be up",
    )
    _configure_place(parser)


def configure_remove(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("fleet", metavar="FLEET", help="its name, as `farkernel fleet status` shows it")
    _configure_place(parser)


def _configure_place(parser: argparse.ArgumentParser) -> None:
    place = parser.add_mutually_exclusive_group()
    for option, words in (
        ("user", "for you (the default)"),
        ("sys-prefix", "for this Python environment"),
        ("system", "for every user here"),
    ):
        place.add_argument(f"--{option}", dest="where", action="store_const", const=option, help=words)
    parser.set_defaults(where="user")
    add_json(parser)


def run_diff(arguments: argparse.Namespace) -> int:
    roster = _roster(arguments)
    changes = [] if arguments.only_servers else here.diff(roster, here.place(arguments.where))
    _show(arguments, changes)
    changes += _elsewhere("diff", roster, arguments)
    if arguments.json:
        emit(_as_json(roster.name, changes))
    else:
        say(_summary(changes, "would be ") if changes else "Nothing would change: all is as the roster says.")
    return 0


def run_apply(arguments: argparse.Namespace) -> int:
    roster = _roster(arguments)
    changes = [] if arguments.only_servers else here.apply(roster, here.place(arguments.where))
    _show(arguments, changes)
    changes += _elsewhere("apply", roster, arguments)
    if arguments.json:
        emit(_as_json(roster.name, changes))
        return 0
    say(_summary(changes, "") if changes else "Nothing to do: all is as the roster says.")
    for warning in configuration.load().warnings:
        if f"fleet-{roster.name}.toml" in warning:
            say(f"Note: {warning}.")
    if any(change.how == "add" and not change.place for change in changes):
        say(f"Next: farkernel fleet status {roster.name}")
    return 0


def _elsewhere(action: str, roster: Roster, arguments: argparse.Namespace) -> list[Change]:
    """On servers and hosts: those that fail are told, and the others done; raises SomeFailed in the end."""
    changes: list[Change] = []
    failed = []
    answers = [fleet_servers.on_servers(action, roster)]
    if arguments.hosts:
        answers.append(fleet_hosts.on_hosts(action, roster))
    for answer in chain.from_iterable(answers):
        if answer.error is not None:
            failed.append(answer.name)
            complain(f"{answer.name}: {answer.error}")
        changes += answer.changes
        _show(arguments, answer.changes)
    if failed:
        raise fleet_servers.SomeFailed(failed)
    return changes


def run_remove(arguments: argparse.Namespace) -> int:
    changes = here.remove(arguments.fleet, here.place(arguments.where))
    if arguments.json:
        emit(_as_json(arguments.fleet, changes))
        return 0
    _show(arguments, changes)
    say(_summary(changes, "") if changes else "Nothing was left of it.")
    return 0


def _roster(arguments: argparse.Namespace) -> Roster:
    if arguments.roster == "-":
        roster = parse_roster(sys.stdin.buffer.read(), "stdin.toml", read_file)
    else:
        roster = read_roster(arguments.roster)
    if not arguments.json:
        for note in roster.notes:
            say(note)
    return roster


def _show(arguments: argparse.Namespace, changes: Sequence[Change]) -> None:
    for change in () if arguments.json else changes:
        name = f"{change.place}: {change.name}" if change.place else change.name
        print(f"{_SIGNS[change.how]} {change.kind} {name}  {change.detail}".rstrip())


def _summary(changes: Sequence[Change], would: str) -> str:
    counts = {how: sum(change.how == how for change in changes) for how in _DONE}
    said = [f"{count} {would}{_DONE[how]}" for how, count in counts.items() if count]
    return f"{', '.join(said)}."


def _as_json(fleet: str, changes: Sequence[Change]) -> dict[str, object]:
    return {"fleet": fleet, "changes": [change._asdict() for change in changes]}
