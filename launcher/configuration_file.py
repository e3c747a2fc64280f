"""One file of the configuration: its text checked against the schema, key by key, all errors at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeGuard

from .address import AddressError, check_target_name
from .errors import FarkernelError
from .settings import (
    DEFAULT_KEYS,
    KEEPER_KEYS,
    TARGET_KEYS,
    InvalidValue,
    Parser,
    Schema,
    environment_name,
    nearest,
    shown,
)

if TYPE_CHECKING:
    from .toml_positions import Positions

KeyPath = tuple[str, ...]
_TOP = ("targets", "defaults", "keeper", "locked")
_LIMIT = 4 << 20  # bytes; a larger file is no configuration


class Problem(NamedTuple):
    """One thing that is wrong, and where."""

    file: str
    line: int | None
    what: str
    advice: str

    @property
    def where(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.advice}"


class ConfigurationError(FarkernelError):
    """Everything that is wrong with the configuration; ``problems`` has it one by one."""

    kind: ClassVar[str] = "configuration"

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        if len(problems) == 1:
            super().__init__(f"{problems[0].where}: {problems[0].what}", problems[0].advice)
        else:
            listed = "\n".join(f"  {problem}" for problem in problems)
            super().__init__(f"the configuration has {len(problems)} errors:\n{listed}", "")


class Entry(NamedTuple):
    """One key's value, read and checked."""

    path: KeyPath
    value: Any
    file: str
    line: int | None


class Lock(NamedTuple):
    """A key, or all below it, that later layers cannot set; ``*`` stands for any one name."""

    pattern: KeyPath
    file: str
    line: int | None

    def covers(self, path: KeyPath) -> bool:
        if len(self.pattern) > len(path):
            return False
        return all(mine in ("*", name) for mine, name in zip(self.pattern, path, strict=False))


@dataclass
class FileContent:
    """What a file says."""

    file: str
    entries: list[Entry] = field(default_factory=list)
    targets: dict[str, int | None] = field(default_factory=dict)  # those that it names, and the line
    locks: list[Lock] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def read_file(file: str) -> FileContent:
    """Read and check a file; whatever is wrong is in ``problems``."""
    try:
        with open(file, "rb") as stream:
            data = stream.read(_LIMIT + 1)
    except OSError as error:
        return _unreadable(file, None, f"cannot be read: {error.strerror}", "Mend or remove the file")
    if len(data) > _LIMIT:
        return _unreadable(file, None, "is larger than 4 MiB", "Remove the file: this is no configuration")
    try:
        content = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return _unreadable(file, line, "is not UTF-8", "Save the file in UTF-8")
    return check_text(content, file)


def check_text(content: str, file: str) -> FileContent:
    """Check a TOML text against the schema."""
    import tomllib  # as the next one only for those who have a configuration

    from .toml_positions import Positions

    try:
        document = tomllib.loads(content)
    except (ValueError, RecursionError) as error:
        return _not_toml(file, error)
    return check_document(document, file, Positions(content))


def check_document(document: Mapping[str, Any], file: str, positions: Positions | None = None) -> FileContent:
    """Check what a TOML text, or a menu entry's settings, came to."""
    checker = _Checker(file, positions)
    for key, value in document.items():
        checker.top(key, value)
    checker.content.problems.sort(key=lambda problem: problem.line or 0)
    return checker.content


class _Checker:
    """Walks a document and sorts it into entries, locks and problems."""

    def __init__(self, file: str, positions: Positions | None) -> None:
        self.content = FileContent(file)
        self._positions = positions

    def _line(self, path: tuple[str | int, ...]) -> int | None:
        return self._positions.line(path) if self._positions else None

    def top(self, key: str, value: object) -> None:
        if key == "targets":
            if self._is_table(value, (key,)):
                for name, table in value.items():
                    self._target(name, table)
        elif key == "defaults":
            self._keys((key,), value, DEFAULT_KEYS)
        elif key == "keeper":
            self._keys((key,), value, KEEPER_KEYS)
        elif key == "locked":
            self._locked(value)
        else:
            self._problem((key,), f"unknown key {shown(key)}", nearest(key, _TOP))

    def _target(self, name: str, table: object) -> None:
        path = ("targets", name)
        try:
            check_target_name(name)
        except AddressError as error:
            self._problem(path, error.what, error.advice)
            return
        if not self._is_table(table, path):
            return
        self.content.targets[name] = self._line(path)
        self._keys(path, table, TARGET_KEYS)
        if "kernel" in table and "python" in table:
            self._problem(
                (*path, "python"), f"{_name(path)} has both 'kernel' and 'python'", "Keep one of them"
            )

    def _keys(self, path: KeyPath, table: object, schema: Schema) -> None:
        if not self._is_table(table, path):
            return
        for key, value in table.items():
            kind = schema.get(key)
            if kind is None:
                self._problem(
                    (*path, key), f"unknown key {shown(key)} in {_name(path)}", _advice(path, key, schema)
                )
            elif callable(kind):
                self._value((*path, key), value, kind)
            elif "*" not in kind:
                self._keys((*path, key), value, kind)
            elif callable(inner := kind["*"]):
                self._environment((*path, key), value, inner)
            else:
                self._presets((*path, key), value, inner)

    def _presets(self, path: KeyPath, table: object, schema: Schema) -> None:
        if not self._is_table(table, path):
            return
        for name, keys in table.items():
            try:
                check_target_name(name)
            except AddressError as error:
                self._problem((*path, name), f"{shown(name)} cannot be the name of a preset", error.advice)
                continue
            self._keys((*path, name), keys, schema)
            if keys == {}:
                advice = "Say what is different: resources = { … }"
                self._problem((*path, name), f"{_name((*path, name))} says nothing", advice)

    def _environment(self, path: KeyPath, table: object, parse: Parser) -> None:
        if not self._is_table(table, path):
            return
        for name, value in table.items():
            try:
                environment_name(name)
            except InvalidValue as error:
                self._problem((*path, name), f"{path[-1]!r} in {_name(path[:-1])} {error.what}", error.advice)
            else:
                self._value((*path, name), value, parse)

    def _value(self, path: KeyPath, value: object, parse: Parser) -> None:
        try:
            parsed = parse(value)
        except InvalidValue as error:
            place: tuple[str | int, ...] = path
            if error.item is not None:
                place = (*path, error.item)
            self._problem(place, f"{path[-1]!r} in {_name(path[:-1])} {error.what}", error.advice)
        else:
            self.content.entries.append(Entry(path, parsed, self.content.file, self._line(path)))

    def _locked(self, value: object) -> None:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self._problem(
                ("locked",), "'locked' is not a list of keys", 'Write locked = ["targets.gpu.options"]'
            )
            return
        for index, item in enumerate(value):
            line = self._line(("locked", index))
            pattern = tuple(part.strip("\"'") for part in re.findall(r"\"[^\"]*\"|'[^']*'|[^.]+", item))
            wrong = _lock_problem(pattern)
            if wrong is None:
                self.content.locks.append(Lock(pattern, self.content.file, line))
            else:
                what, advice = wrong
                self.content.problems.append(
                    Problem(self.content.file, line, f"locked key {shown(item)}: {what}", advice)
                )

    def _is_table(self, value: object, path: KeyPath) -> TypeGuard[Mapping[str, Any]]:
        if isinstance(value, Mapping):
            return True
        self._problem(
            path, f"{'.'.join(path)!r} must be a table, not {shown(value)}", f"Write it as {_name(path)}"
        )
        return False

    def _problem(self, path: tuple[str | int, ...], what: str, advice: str) -> None:
        self.content.problems.append(Problem(self.content.file, self._line(path), what, advice))


def _advice(path: KeyPath, key: str, schema: Mapping[str, Any]) -> str:
    """The nearest right key, also where it belongs into another table."""
    resources = TARGET_KEYS["resources"]
    if isinstance(resources, Mapping) and key in resources and path[0] in ("targets", "defaults"):
        return f"It belongs into 'resources': resources = {{ {key} = … }}"
    if path[2:3] == ("presets",) and key in ("kernel", "python"):
        return "The menu entry says which kernel: farkernel install NAME --preset PRESET --kernel KERNEL"
    if path == ("defaults",) and key in TARGET_KEYS:
        return f"Each target has its own {key}"
    return nearest(key, schema)


def _lock_problem(pattern: KeyPath) -> tuple[str, str] | None:
    known: Any = {"targets": {"*": TARGET_KEYS}, "defaults": DEFAULT_KEYS, "keeper": KEEPER_KEYS}
    if not pattern:
        return "is empty", 'Name a key, such as "targets.gpu.options"'
    for part in pattern:
        if not isinstance(known, Mapping):
            return f"there is nothing below the key before {shown(part)}", "Lock the key itself"
        if part not in known and "*" not in known and part != "*":
            return f"unknown key {shown(part)}", nearest(part, known)
        known = known.get(part, known.get("*", next(iter(known.values()))))
    return None


def _name(path: KeyPath) -> str:
    parts = [part if re.fullmatch(r"[A-Za-z0-9_-]+", part, re.ASCII) else f'"{part}"' for part in path]
    return f"[{'.'.join(parts)}]"


def _unreadable(file: str, line: int | None, what: str, advice: str) -> FileContent:
    return FileContent(file, problems=[Problem(file, line, what, advice)])


def _not_toml(file: str, error: Exception) -> FileContent:
    """tomllib has the position in its message: "… (at line 3, column 5)" or "(at end of document)"."""
    if isinstance(error, RecursionError):
        return _unreadable(file, None, "is nested too deeply", "Write it with fewer brackets")
    message = str(error)
    match = re.search(r" ?\(at line (\d+), column \d+\)$", message)
    line = int(match[1]) if match else None
    told = message[: match.start()] if match else message
    return _unreadable(
        file, line, f"is not valid TOML: {told}", "Mend the line; https://toml.io has the rules"
    )
