"""Reading a roster.

A CSV file is a list of hosts; a TOML file has settings too, and its hosts as `[[hosts]]` or in a CSV file that it
names.  Everything that is wrong is told at once, with file and line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ..configuration import Problem
from .roster import COLUMNS, Host, Roster, RosterError, board_name
from .roster_rows import hosts_of_rows
from .roster_settings import Settings, read_settings
from .roster_table import decode, read_table

LARGEST = 4 << 20


def read_roster(path: str | Path) -> Roster:
    """Read and check a roster.  Raises RosterError."""
    path = Path(path)
    return parse_roster(read_file(path), str(path), lambda name: read_file(path.parent / name))


def parse_roster(data: bytes, file: str, read: Callable[[str], bytes]) -> Roster:
    """``read`` gives the content of a file that the roster names (relative to it), or raises RosterError."""
    if Path(file).suffix.lower() in (".csv", ".tsv", ".txt"):
        settings = Settings(Roster(_stem(file), file, ()), {}, None, [])
    else:
        text = decode(data, file)
        if isinstance(text, Problem):
            raise RosterError([text])
        settings = read_settings(text, file, _stem(file))
        if "hosts" in settings.common:
            file = str(Path(file).parent / settings.common["hosts"])
            data = read(settings.common["hosts"])
    roster, common, rows, problems = settings
    if rows is None and not problems:
        table = read_table(data, file, COLUMNS, "host")
        problems, rows = list(table.problems), [(line, cells) for line, cells in table.rows]
        if table.unused:
            roster = replace(roster, notes=(f"Columns that were not used: {', '.join(table.unused)}.",))
        if not rows and not problems:
            problems.append(Problem(file, None, "names no hosts", "Give each host a line"))
    roster = replace(roster, hosts=tuple(hosts_of_rows(rows or [], file, common, problems)))
    problems += _clashes(roster, file)
    if problems:
        raise RosterError(sorted(problems, key=lambda each: (each.file, each.line or 0)))
    return roster


def _clashes(roster: Roster, file: str) -> Iterator[Problem]:
    """Names and places that two want to have."""
    taken: dict[str, str] = {roster.name.lower(): f"the fleet {roster.name!r} itself"}
    places: dict[str, Host] = {}
    for host in roster.hosts:
        for name in (host.name, board_name(host.name))[: 2 if host.board else 1]:
            if name in taken:
                what = f"the name {name!r} is taken by {taken[name]}"
                yield Problem(file, host.line, what, "Every name can be given once")
            taken.setdefault(name, f"line {host.line}" if host.line else f"the host {host.name!r}")
        place = f"{host.address.lower()}:{host.port or 22}"
        if place in places and places[place].name != host.name:
            what = f"{host.name!r} has the address of {places[place].name!r}, {host.address}"
            yield Problem(file, host.line, what, "Every machine stands in the list once")
        places.setdefault(place, host)


def _stem(file: str) -> str:
    """A name for the fleet, from its file's."""
    name = re.sub(r"[^a-z0-9_-]+", "-", Path(file).stem.lower()).strip("-_")
    return name[:50] or "fleet"


def read_file(path: str | Path) -> bytes:
    """Raises RosterError."""
    path = Path(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
    except OSError as error:
        advice = "Name the roster's file: a CSV file with a column `host`, or a TOML file"
        raise RosterError([Problem(str(path), None, f"cannot be read: {error.strerror}", advice)]) from None
    if len(data) > LARGEST:
        raise RosterError(
            [Problem(str(path), None, "is larger than 4 MiB", "A roster has a line for each host")]
        )
    return data
