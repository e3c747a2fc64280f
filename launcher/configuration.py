"""The configuration: TOML files in layers → typed Target objects (DESIGN §5).

Layers, the later over the earlier, key by key: ``/etc/farkernel/*.toml``, ``<prefix>/etc/farkernel/*.toml``,
``$XDG_CONFIG_HOME/farkernel/*.toml``; within a layer the files by name.  A key that a layer lists under
``locked`` keeps the value that it has there: what later layers say is not taken, and
``Configuration.warnings`` says so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .configuration_file import (
    ConfigurationError,
    Entry,
    FileContent,
    KeyPath,
    Lock,
    Problem,
    check_document,
    read_file,
)
from .errors import FarkernelError
from .settings import InvalidValue, KeeperSettings, Resources, Target, nearest, texts

__all__ = [
    "Configuration",
    "ConfigurationError",
    "KeeperSettings",
    "Problem",
    "Resources",
    "Target",
    "UnknownPreset",
    "UnknownTarget",
    "directories",
    "load",
]

_OF_THE_POOL = frozenset(
    ("address", "policy", "sticky", "capacity", "drain", "presets")
)  # and not of its members' kernels
_RIVALS = {"kernel": "python", "python": "kernel"}  # setting one replaces the other


class UnknownTarget(FarkernelError):
    """A target that no layer defines."""

    kind: ClassVar[str] = "unknown-target"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        targets = tuple(known)
        advice = nearest(name, targets) if targets else f"Add it: farkernel add {name[:64]} ADDRESS"
        super().__init__(f"there is no target {name!r} in the configuration", advice)


class UnknownPreset(FarkernelError):
    """A preset that no layer defines for this target."""

    kind: ClassVar[str] = "unknown-preset"

    def __init__(self, name: str, target: str, known: Iterable[str]) -> None:
        presets = tuple(known)
        written = f"Write it into the configuration: [targets.{target}.presets.{name[:64]}]"
        super().__init__(
            f"the target {target!r} has no preset {name[:64]!r}",
            nearest(name, presets) if presets else written,
        )


@dataclass(frozen=True, eq=False)
class Configuration:
    """All layers together, checked."""

    targets: Mapping[str, Target]
    keeper: KeeperSettings
    warnings: tuple[str, ...]  # one sentence for each value that a lock kept out
    files: tuple[str, ...]  # those that were read, in order
    sources: Mapping[str, tuple[str, ...]]  # target → files that say something about it
    _merged: _Merged

    def target(self, name: str) -> Target:
        """Raises UnknownTarget."""
        if name not in self.targets:
            raise UnknownTarget(name, self.targets)
        return self.targets[name]

    def resolve(self, settings: Mapping[str, Any], entry: str = "", member: str = "") -> Target:
        """The target of a menu entry with the entry's own settings on top; for each launch.

        ``settings`` has ``target`` (a name) or ``address``, and any keys of a target, as they stand in TOML;
        ``preset`` (a name), whose keys go before the target's own; also ``argv``, the kernel's command, which is no
        business of the target.  ``entry`` is its name, for errors.  What a lock kept out is in ``warnings``.  Raises
        UnknownTarget, UnknownPreset or ConfigurationError.

        ``member``: the target is a pool, and that member of it is meant: what the pool and the entry say of kernels
        goes before what the member's own table says.
        """
        label = f"menu entry {entry}" if entry else "menu entry"
        keys = dict(settings)
        _check_argv(keys.pop("argv", []), label)
        preset = keys.pop("preset", None)
        name = self._name(keys.pop("target", None), keys, label)
        content = check_document({"targets": {name: keys}}, label)
        if "presets" in keys:
            content.problems.append(
                Problem(
                    label,
                    None,
                    "it has 'presets'",
                    'Write preset = "NAME", and the preset into the target\'s table',
                )
            )
        if content.problems:
            raise ConfigurationError(content.problems)
        merged = self._merged.copy()
        if preset is not None:
            merged.prefer(name, str(preset))
        merged.add(content, installed=True)
        if ("targets", name, "address") not in merged.values:  # only a lock can have kept it out
            why = merged.warnings[0].removeprefix(f"{label}: ")
            problem = Problem(label, None, why, f"Use one of {', '.join(self.targets)}")
            raise ConfigurationError([problem])
        target = merged.target(name, tuple(merged.warnings))
        problems = merged.pool_problems(target, self.targets)
        if problems:
            raise ConfigurationError(problems)
        return merged.member(name, self.target(member).name) if member else target

    def is_locked(self, *path: str) -> bool:
        """Whether a menu entry cannot set that key, or somebody who is asked for it in a notebook."""
        return self._merged.is_locked(path)

    def _name(self, target: object, keys: Mapping[str, Any], label: str) -> str:
        """The name that a menu entry gives, or one made for its address."""
        if isinstance(target, str):
            return self.target(target).name
        if target is None and "address" in keys:
            return _free_name(str(keys["address"]), self.targets)
        problem = Problem(label, None, "it names no target", "Install it again: farkernel install NAME")
        raise ConfigurationError([problem])


def directories(
    prefix: str | Path | None = None, system: str | Path = "/etc", user: str | Path | None = None
) -> tuple[Path, ...]:
    """The directories of the layers, first to last, present or not.

    ``user`` stands for ``$XDG_CONFIG_HOME``; one that is not absolute is no good, says the XDG specification.
    """
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    if user is None:
        user = configured if os.path.isabs(configured) else os.path.expanduser("~/.config")
    places = (Path(system), Path(prefix or sys.prefix) / "etc", Path(user))
    return tuple(dict.fromkeys(place / "farkernel" for place in places))


def load(
    prefix: str | Path | None = None, system: str | Path = "/etc", user: str | Path | None = None
) -> Configuration:
    """Read all layers; raises ConfigurationError with everything that is wrong in any of them."""
    merged = _Merged()
    problems: list[Problem] = []
    files: list[str] = []
    for directory in directories(prefix, system, user):
        contents = [read_file(file) for file in _files(directory, problems)]
        for content in contents:
            files.append(content.file)
            problems += content.problems
            merged.add(content)
        # Files of one layer have one owner: a lock binds the layers after it, not the next file.
        merged.locks += [lock for content in contents for lock in content.locks]
    targets = {} if problems else merged.all_targets(problems)
    if problems:
        raise ConfigurationError(problems)
    return Configuration(
        targets=targets,
        keeper=KeeperSettings(**merged.table(("keeper",))),
        warnings=tuple(merged.warnings),
        files=tuple(files),
        sources={name: tuple(merged.sources[name]) for name in targets},
        _merged=merged,
    )


def _files(directory: Path, problems: list[Problem]) -> Sequence[str]:
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        problems.append(
            Problem(
                str(directory),
                None,
                f"cannot be read: {error.strerror}",
                "Make the directory readable for you",
            )
        )
        return ()
    # Hidden ones are the lock and swap files of editors.
    return [
        str(directory / name) for name in sorted(names) if name.endswith(".toml") and not name.startswith(".")
    ]


def _check_argv(argv: object, label: str) -> None:
    try:
        texts(argv)
    except InvalidValue as error:
        raise ConfigurationError([Problem(label, None, f"'argv' {error.what}", error.advice)]) from None


def _free_name(address: str, taken: Mapping[str, Any]) -> str:
    """A name for a target that stands in no file but has only an address."""
    base = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in address).strip("-")[
        :50
    ]
    name, number = base or "unnamed", 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    return name


def _rival(path: KeyPath) -> KeyPath:
    """The key that this one replaces and that must not be locked either; the path itself if there is none."""
    of_target = len(path) == (
        3 if path[0] == "targets" else 2
    )  # not a variable in env that is called "python"
    return (*path[:-1], _RIVALS.get(path[-1], path[-1])) if of_target else path


def _meant(path: KeyPath) -> KeyPath:
    """The target's key that a preset's key stands for; the path itself if it is none."""
    return (*path[:2], *path[4:]) if path[0] == "targets" and path[2:3] == ("presets",) else path


class _Merged:
    """The values of all layers so far, by key."""

    def __init__(self) -> None:
        self.values: dict[KeyPath, Entry] = {}
        self.locks: list[Lock] = []
        self.warnings: list[str] = []
        self.sources: dict[str, list[str]] = {}
        self._lines: dict[str, tuple[str, int | None]] = {}  # where a target is named first
        self._overruled: set[KeyPath] = set()
        self._presets: dict[str, dict[str, None]] = {}  # target → names
        self._tables: dict[KeyPath, dict[str, Any]] | None = (
            None  # `values` by table; None: not put in order yet
        )

    def copy(self) -> _Merged:
        """For one menu entry's settings on top; its warnings are its own."""
        twin = _Merged()
        twin.values = dict(self.values)
        twin.locks = list(self.locks)
        twin.sources = {name: list(files) for name, files in self.sources.items()}
        twin._lines = dict(self._lines)
        twin._overruled = set(self._overruled)
        twin._presets = self._presets  # a menu entry's settings have none
        return twin

    def add(self, content: FileContent, installed: bool = False) -> None:
        """Put a file's values on top, but for those that an earlier layer has locked.

        ``installed``: they come from a menu entry, maybe made when the lock's value was another;
        one that says the same as the lock deserves no warning.
        """
        for name, line in content.targets.items():
            if self._lock(("targets", name)) is None:
                self.sources.setdefault(name, []).append(content.file)
                self._lines.setdefault(name, (content.file, line))
        for entry in content.entries:
            # A preset of a later layer must not bring in what an earlier one has locked.
            lock = self._lock(entry.path) or self._lock(_meant(entry.path))
            if lock is None:
                self._set(entry)
            elif not installed or self._differs(entry):
                self._overrule(entry, lock)

    def _lock(self, path: KeyPath) -> Lock | None:
        rival = _rival(path)
        return next((lock for lock in self.locks if lock.covers(path) or lock.covers(rival)), None)

    def is_locked(self, path: KeyPath) -> bool:
        return self._lock(path) is not None

    def _set(self, entry: Entry) -> None:
        rival = _rival(entry.path)
        if rival != entry.path:
            self.values.pop(rival, None)
        if _meant(entry.path) != entry.path:
            self._presets.setdefault(entry.path[1], {})[entry.path[3]] = None
        self.values[entry.path] = entry
        self._tables = None

    def _differs(self, entry: Entry) -> bool:
        held = self.values.get(entry.path)
        return held is None or held.value != entry.value

    def _overrule(self, entry: Entry, lock: Lock) -> None:
        self._overruled.add(entry.path)
        where = entry.file if entry.line is None else f"{entry.file}:{entry.line}"
        key, locked = ".".join(entry.path), ".".join(lock.pattern)
        self.warnings.append(f"{where}: {key} is not taken: {lock.file}:{lock.line} has locked {locked}")

    # -- what came out -----------------------------------------------------------------------------

    def table(self, path: KeyPath) -> dict[str, Any]:
        """The values right below a path."""
        if self._tables is None:
            self._tables = {}
            for key, entry in self.values.items():
                self._tables.setdefault(key[:-1], {})[key[-1]] = entry.value
        return dict(self._tables.get(path, {}))

    def all_targets(self, problems: list[Problem]) -> dict[str, Target]:
        targets: dict[str, Target] = {}
        for name, (file, line) in self._lines.items():
            path = ("targets", name, "address")
            if path in self.values:
                targets[name] = self.target(name)
            elif (
                path not in self._overruled
            ):  # else a lock says that there is no such target, and a warning so
                problems.append(
                    Problem(
                        file, line, f"the target {name!r} has no address", 'Add one: address = "ssh://host"'
                    )
                )
        for target in targets.values():
            problems += [*self.pool_problems(target, targets), *self.resource_problems(target)]
        return targets

    def target(self, name: str, warnings: tuple[str, ...] = ()) -> Target:
        """Put a target together: its own keys over the defaults."""
        own = self.table(("targets", name))
        defaults = self.table(("defaults",))
        if not own.keys().isdisjoint(_RIVALS):
            defaults = {key: value for key, value in defaults.items() if key not in _RIVALS}
        return Target(
            name=name,
            **(defaults | own),
            env=self._over_defaults(name, "env"),
            resources=Resources(**self._over_defaults(name, "resources")),
            presets=tuple(self._presets.get(name, ())),
            warnings=warnings,
        )

    def prefer(self, target: str, preset: str) -> None:
        """The preset's values before the target's own; raises UnknownPreset.  What was locked is not among them."""
        where = ("targets", target, "presets", preset)
        found = [entry for path, entry in self.values.items() if path[:4] == where]
        if not found:
            raise UnknownPreset(preset, target, self._presets.get(target, ()))
        for entry in found:
            self._set(entry._replace(path=_meant(entry.path)))

    def member(self, pool: str, member: str) -> Target:
        """The member of a pool, with what the pool says of kernels over its own keys."""
        for name, entry in list(self.values.items()):
            if name[:2] == ("targets", pool) and name[2] not in _OF_THE_POOL:
                path = ("targets", member, *name[2:])
                self.values.pop(_rival(path), None)
                self.values[path] = entry
        self._tables = None
        return self.target(member, tuple(self.warnings))

    def _over_defaults(self, name: str, key: str) -> dict[str, Any]:
        return self.table(("defaults", key)) | self.table(("targets", name, key))

    def resource_problems(self, target: Target) -> list[Problem]:
        resources = target.resources
        if resources.opencl is None or (resources.gpus or 1) == 1:
            return []
        own = ("targets", target.name, "resources", "opencl")
        entry = self.values[own if own in self.values else ("defaults", "resources", "opencl")]
        what = f"the target {target.name!r} asks for {resources.gpus} GPUs and for an OpenCL device"
        return [
            Problem(
                entry.file, entry.line, what, "OpenCL devices are given out one at a time: leave out gpus"
            )
        ]

    def pool_problems(self, target: Target, targets: Mapping[str, Target]) -> list[Problem]:
        """What is wrong with the members of a target that is a pool."""
        entry = self.values["targets", target.name, "address"]
        problems = []
        for member in target.address.members:
            if member not in targets:
                what = f"the pool {target.name!r} names {member!r}, which is no target"
                problems.append(Problem(entry.file, entry.line, what, nearest(member, targets)))
            elif targets[member].address.members:
                what = f"the pool {target.name!r} names {member!r}, itself a pool"
                problems.append(Problem(entry.file, entry.line, what, "Name that pool's members instead"))
        return problems
