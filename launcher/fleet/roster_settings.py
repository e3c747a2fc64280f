"""A roster in TOML: its settings against their schema, and the rows of `[[hosts]]`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..address import TARGET_NAME
from ..configuration import Problem
from ..configuration_file import check_document
from ..settings import InvalidValue, choice, nearest, shown, switch, text, texts
from ..toml_positions import Positions
from .roster import COLUMNS, Card, Environment, Reset, Roster
from .roster_rows import Row, secret, user_name

Parser = Callable[[object], Any]
_PACKAGE = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*(?:\[[A-Za-z0-9._,-]+\])?(?:[=<>~!]=?[A-Za-z0-9.*+!_,<>=~-]*)?", re.ASCII
)
_ENVIRONMENT_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_TABLES = ("fleet", "target", "pool", "environment", "card", "reset", "hosts")


class Settings(NamedTuple):
    """What a file says that is more than a list."""

    roster: Roster  # without its hosts
    common: dict[str, Any]  # what rows have in common
    rows: list[Row] | None  # None: they stand elsewhere
    problems: list[Problem]


def read_settings(content: str, file: str, name: str) -> Settings:
    """Whatever is wrong is in ``problems``."""
    try:
        document = tomllib.loads(content)
    except (ValueError, RecursionError) as error:
        told = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
        found = re.search(r" ?\(at line (\d+), column \d+\)$", told)
        line = int(found[1]) if found else None
        what = f"is not valid TOML: {told[: found.start()] if found else told}"
        problem = Problem(file, line, what, "Mend the line; or save the list as a .csv file")
        return Settings(Roster(name, file, ()), {}, None, [problem])
    return _Reader(document, file, Positions(content)).read(name)


class _Reader:
    def __init__(self, document: Mapping[str, Any], file: str, positions: Positions) -> None:
        self._document = document
        self._file = file
        self._positions = positions
        self.problems: list[Problem] = []

    def read(self, name: str) -> Settings:
        for key in self._document:
            if key not in _TABLES:
                self._problem((key,), f"unknown table {shown(key)}", nearest(key, _TABLES))
        fleet = self._table("fleet", _FLEET)
        name = fleet.pop("name", name)
        common: dict[str, Any] = {key: fleet.pop(key) for key in ("user", "domain", "hosts") if key in fleet}
        rows = self._rows()
        if rows is None and "hosts" not in common and not self.problems:
            what = "names no hosts"
            self._problem(("fleet",), what, 'Add [[hosts]] tables, or hosts = "list.csv" below [fleet]')
        if rows is not None and "hosts" in common:
            self._problem(("fleet", "hosts"), "there are [[hosts]] too", "Keep one of the two")
            del common["hosts"]
        roster = Roster(
            name,
            self._file,
            (),
            environment=self._environment(name),
            target=self._keys("target"),
            pool=self._keys("pool"),
            card=Card(**self._table("card", _CARD)),
            reset=self._reset(),
            **fleet,
        )
        return Settings(roster, common, rows, self.problems)

    def _table(self, name: str, schema: Mapping[str, Parser]) -> dict[str, Any]:
        table = self._document.get(name, {})
        if not isinstance(table, dict):
            self._problem((name,), f"{name!r} must be a table", f"Write it as [{name}]")
            return {}
        values = {}
        for key, value in table.items():
            if key not in schema:
                self._problem((name, key), f"unknown key {shown(key)} in [{name}]", nearest(key, schema))
                continue
            try:
                values[key] = schema[key](value)
            except InvalidValue as error:
                self._problem((name, key), f"{key!r} in [{name}] {error.what}", error.advice)
        return values

    def _keys(self, name: str) -> dict[str, Any]:
        """Keys of targets, as the configuration has them (docs/configuration.md)."""
        table = self._document.get(name, {})
        if not isinstance(table, dict):
            self._problem((name,), f"{name!r} must be a table", f"Write it as [{name}]")
            return {}
        if "address" in table:
            self._problem((name, "address"), "the addresses come from the list", "Take it out")
        content = check_document({"targets": {name: table}}, self._file)
        for problem in content.problems:
            what = problem.what.replace(f"[targets.{name}", f"[{name}")
            key = next((key for key in table if f"{key!r}" in what), None)
            self._problem((name, key) if key else (name,), what, problem.advice)
        return dict(table)

    def _environment(self, name: str) -> Environment | None:
        if "environment" not in self._document:
            return None
        table = self._table("environment", _ENVIRONMENT)
        folder = table.pop("wheels", None)
        wheels = Path(self._file).parent / Path(folder).expanduser() if folder else None
        return Environment(**{"name": name, "packages": ("ipykernel",), **table}, wheels=wheels)

    def _reset(self) -> Reset:
        table = self._table("reset", _RESET)
        folder = table.pop("template", None)
        if folder and "directory" not in table:
            self._problem(("reset", "template"), "there is no directory for it", 'Add directory = "lesson"')
        template = Path(self._file).parent / Path(folder).expanduser() if folder else None
        return Reset(table.get("directory", ""), template)

    def _rows(self) -> list[Row] | None:
        found = self._document.get("hosts")
        if found is None:
            return None
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            self._problem(("hosts",), "'hosts' must be tables", "Write [[hosts]] before each of them")
            return []
        lines = self._lines_of_hosts()
        rows: list[Row] = []
        for number, table in enumerate(found):
            line = lines[number] if number < len(lines) else self._positions.line(("hosts", number))
            for key in [key for key in table if key not in COLUMNS]:
                advice = "Did you mean 'host'?" if key == "name" else nearest(key, COLUMNS)
                self.problems.append(
                    Problem(self._file, line, f"unknown key {shown(key)} in [[hosts]]", advice)
                )
            rows.append((line, {key: value for key, value in table.items() if key in COLUMNS}))
        if not rows:
            self._problem(("hosts",), "names no hosts", "Add [[hosts]] tables")
        return rows

    def _lines_of_hosts(self) -> list[int]:
        """Where each `[[hosts]]` stands; none if they are written as one list."""
        headers = [each for each in self._positions.statements if each.header and each.path == ("hosts",)]
        return [self._positions.text.count("\n", 0, each.start) + 1 for each in headers]

    def _problem(self, path: tuple[str | int, ...], what: str, advice: str) -> None:
        self.problems.append(Problem(self._file, self._positions.line(path), what, advice))


# -- values ------------------------------------------------------------------------------------------------


def _matching(pattern: re.Pattern[str], what: str, advice: str) -> Parser:
    def parse(value: object) -> str:
        word = text(value)
        if not pattern.fullmatch(word):
            raise InvalidValue(f"cannot be {what}: {shown(value)}", advice)
        return word

    return parse


def _packages(value: object) -> tuple[str, ...]:
    found = texts(value)
    for each in found:
        if not _PACKAGE.fullmatch(each):
            raise InvalidValue(
                f"has what is no package: {shown(each)}", 'Write names as pip takes them: "numpy", "rich>=13"'
            )
    # A Python without ipykernel is no kernel.
    named = {re.split(r"[\[=<>~!]", each)[0].lower() for each in found}
    return found if "ipykernel" in named else ("ipykernel", *found)


def _entries(value: object) -> tuple[str, ...]:
    return tuple(choice("pool", "hosts", "boards")(each) for each in texts(value))


def _below_home(value: object) -> str:
    """A directory that may be emptied: below the home, and not the home itself."""
    path = text(value).removeprefix("~/").rstrip("/")
    parts = path.split("/")
    if not path or path.startswith(("/", "~")) or any(part in ("", ".", "..") for part in parts):
        raise InvalidValue(
            f"is no directory below the home: {shown(value)}", 'Write it like "lesson" or "~/class/lesson"'
        )
    return path


def _command(value: object) -> tuple[str, ...]:
    words = (value,) if isinstance(value, str) else value
    return texts(list(words) if isinstance(words, tuple) else words)


def _passphrase(value: object) -> str:
    found = secret(value)
    if not 8 <= len(found.encode()) <= 63 and not re.fullmatch(r"[0-9a-fA-F]{64}", found, re.ASCII):
        raise InvalidValue(
            "is no password of a Wi-Fi network", "It has 8 to 63 characters, or is a key of 64 hex digits"
        )
    return found


def _network(value: object) -> str:
    name = text(value)
    if len(name.encode()) > 32:
        raise InvalidValue(
            "is no name of a Wi-Fi network: it is too long", "Such names have 32 bytes at most"
        )
    return name


_NAME = _matching(
    TARGET_NAME,
    "the name of a fleet",
    "Begin with a letter or digit; letters, digits, '.', '_' and '-' may follow",
)
_FLEET: Mapping[str, Parser] = {
    "name": lambda value: str(_NAME(value)).lower(),
    "title": text,
    "hosts": text,
    "user": user_name,
    "domain": _matching(
        re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?"), "a domain", 'Write it like "local"'
    ),
    "entries": _entries,
    "servers": texts,
    "server_command": _command,
}
_ENVIRONMENT: Mapping[str, Parser] = {
    "name": _matching(_ENVIRONMENT_NAME, "the name of a kernelspec", "Take a-z, 0-9, '.', '_' and '-'"),
    "packages": _packages,
    "wheels": text,
}
_CARD: Mapping[str, Parser] = {
    "keys": texts,
    "password": secret,
    "wifi": _network,
    "wifi_password": _passphrase,
    "wifi_hidden": switch,
    "country": _matching(re.compile(r"[A-Z]{2}"), "a country", 'Write its two letters: "DE", "FR", "GB"'),
    "locale": _matching(
        re.compile(r"[A-Za-z]{2,3}(?:_[A-Z]{2})?(?:\.[A-Za-z0-9-]+)?(?:@[a-z]+)?"),
        "a locale",
        'Write it like "de_DE.UTF-8"',
    ),
    "timezone": _matching(
        re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+){0,2}"),
        "a time zone",
        'Write it like "Europe/Berlin"',
    ),
    "keyboard": _matching(re.compile(r"[a-z]{2,8}"), "a keyboard's layout", 'Write it like "de"'),
    "sudo": switch,
}
_RESET: Mapping[str, Parser] = {"directory": _below_home, "template": text}
