"""What a roster makes on this machine: one file of targets, menu entries, and a record of the roster.

``fleet-NAME.toml`` beside the other files of the configuration is ours as a whole; a menu entry that a roster made says
so in its kernelspec.  So nothing is removed but what a roster of that name made before.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...kernelspecs import entries, logos
from .. import configuration
from ..configuration import Problem
from ..errors import FarkernelError
from ..targets_file import toml_key, toml_value, write_file
from ..text import one_line
from .plan import Change, Made, differences, wanted
from .record import Recorded, read_records, write_record
from .roster import Roster, RosterError

MARK = "farkernel_fleet"  # in a kernelspec's metadata: the fleet that it is of
_FIRST_LINE = "# Made by `farkernel fleet apply`"


class NotOurs(FarkernelError):
    """Something has that name already, and no roster made it."""

    kind = "fleet-taken"

    def __init__(self, what: str, name: str, where: str, advice: str) -> None:
        super().__init__(
            f"{what} {name!r} is there already ({one_line(where)}), and not made by this roster", advice
        )


class NoSuchFleet(FarkernelError):
    kind = "no-such-fleet"

    def __init__(self, name: str, known: list[str]) -> None:
        shown = f"There are: {', '.join(known)}" if known else "Make one: farkernel fleet apply ROSTER"
        super().__init__(f"there is no fleet {one_line(name)[:80]!r}", shown)


class Place(NamedTuple):
    """For whom: directories of the configuration and of the menu."""

    configuration: Path
    data: str
    mode: int  # of files

    def targets(self, fleet: str) -> Path:
        return self.configuration / f"fleet-{fleet}.toml"

    def record(self, fleet: str) -> Path:
        return self.records / f"{fleet}.json"

    @property
    def records(self) -> Path:
        return self.configuration / "fleets"


def place(where: str) -> Place:
    """`user`, `sys-prefix` or `system`."""
    system, prefix, user = configuration.directories()
    directory = {"user": user, "sys-prefix": prefix, "system": system}[where]
    return Place(directory, entries.data_directory(where), 0o600 if where == "user" else 0o644)


def recorded() -> dict[str, Recorded]:
    """All fleets that were applied here, the user's own before those for everybody."""
    found: dict[str, Recorded] = {}
    for where in ("system", "sys-prefix", "user"):
        found |= read_records(place(where).records)
    return found


# -- what is there -----------------------------------------------------------------------------------------


class Present(NamedTuple):
    targets: Mapping[str, Mapping[str, Any]]
    entries: Mapping[str, Mapping[str, Any]]  # kernel.json of each


def present(at: Place, fleet: str) -> Present:
    """What a roster of that name made before.  Raises NotOurs, RosterError."""
    return Present(_targets(at.targets(fleet)), dict(_entries(at, fleet)))


def _targets(path: Path) -> Mapping[str, Mapping[str, Any]]:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem(str(path), None, f"cannot be read: {error}", "Remove the file, and apply again")
        raise RosterError([problem]) from None
    if not text.startswith(_FIRST_LINE):
        raise NotOurs("the file", path.name, str(path), "Move it away, or give the fleet another name")
    try:
        found = tomllib.loads(text).get("targets", {})
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(keys, dict) for keys in found.values()):
        # Somebody has changed it by hand; it is written anew.
        return {}
    return found


def _entries(at: Place, fleet: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    kernels = os.path.join(at.data, "kernels")
    for name in sorted(os.listdir(kernels)) if os.path.isdir(kernels) else ():
        spec = entries.read_spec(os.path.join(kernels, name))
        if spec is not None and _fleet_of(spec) == fleet:
            yield name, spec


def _fleet_of(spec: Mapping[str, Any]) -> str | None:
    metadata = spec.get("metadata")
    mark = metadata.get(MARK) if isinstance(metadata, dict) else None
    return mark if isinstance(mark, str) else None


# -- what is to be done ------------------------------------------------------------------------------------


def diff(roster: Roster, at: Place) -> list[Change]:
    """Nothing is done.  Raises NotOurs if something else stands in the way."""
    return _compare(roster.name, wanted(roster), at)


def apply(roster: Roster, at: Place) -> list[Change]:
    """Do it; gives what was done."""
    made = wanted(roster)
    changes = _compare(roster.name, made, at)
    if any(change.kind == "target" for change in changes):
        write_file(at.targets(roster.name), _text(roster, made.targets).encode(), at.mode)
    for change in changes:
        if change.kind == "entry":
            _carry_out(change, roster.name, made, at)
    write_record(roster, at.record(roster.name), at.mode)
    return changes


def remove(fleet: str, at: Place) -> list[Change]:
    """Take away all that a roster of that name made."""
    if not at.targets(fleet).exists() and not at.record(fleet).exists():
        raise NoSuchFleet(fleet, list(read_records(at.records)))
    changes = _compare(fleet, Made(), at)
    for change in changes:
        if change.kind == "entry":
            _carry_out(change, fleet, Made(), at)
    at.targets(fleet).unlink(missing_ok=True)
    at.record(fleet).unlink(missing_ok=True)
    return changes


def _compare(fleet: str, made: Made, at: Place) -> list[Change]:
    there = present(at, fleet)
    _see_that_nothing_is_in_the_way(made, at, fleet)
    specs = {name: _spec(name, fleet, made) for name in made.entries}
    return [
        *differences(there.targets, made.targets, "target"),
        *differences(there.entries, specs, "entry"),
    ]


def _see_that_nothing_is_in_the_way(made: Made, at: Place, fleet: str) -> None:
    # The same fleet may be here for one user and for all: both say the same.
    ours = {str(place(where).targets(fleet)) for where in ("user", "sys-prefix", "system")}
    sources = configuration.load().sources
    for name in made.targets:
        for file in sources.get(name, ()):
            if file not in ours:
                advice = f"Take it out of there (farkernel remove {name}), or give the host another name"
                raise NotOurs("a target", name, file, advice)
    for name in made.entries:
        directory = os.path.join(at.data, "kernels", name)
        spec = entries.read_spec(directory)
        if os.path.lexists(directory) and (spec is None or _fleet_of(spec) != fleet):
            advice = f"Take it out (farkernel uninstall {name}), or choose other `entries` in the roster"
            raise NotOurs("a menu entry", name, directory, advice)


def _spec(name: str, fleet: str, made: Made) -> dict[str, Any]:
    entry = made.entries[name]
    language = entries.guess_language(entry.kernel, entry.address)
    spec = entries.build(name, entry.display_name, language, {"target": entry.target})
    spec["metadata"][MARK] = fleet
    return spec


def _carry_out(change: Change, fleet: str, made: Made, at: Place) -> None:
    if change.how == "remove":
        entries.remove(os.path.join(at.data, "kernels", change.name))
        return
    spec = _spec(change.name, fleet, made)
    pictures = logos.files(logos.kind_of(made.entries[change.name].address), str(spec["language"]), {})
    entries.install(change.name, spec, at.data, pictures)


def _text(roster: Roster, targets: Mapping[str, Mapping[str, Any]]) -> str:
    head = (
        f"{_FIRST_LINE} from {one_line(os.path.abspath(roster.file))}.\n"
        "# Change that file and apply it again: what is changed here is lost then.\n"
    )
    tables = []
    for name, keys in targets.items():
        lines = "".join(f"{toml_key(key)} = {toml_value(value)}\n" for key, value in keys.items())
        tables.append(f"\n[targets.{toml_key(name)}]\n{lines}")
    return head + "".join(tables)
