"""What can be configured: the keys of a target and of the keeper, their types, and how their values are read.

The tables TARGET_KEYS, PRESET_KEYS, RESOURCE_KEYS and KEEPER_KEYS are the whole schema; docs/configuration.md has them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .address import Address, AddressError, parse_address

HOUR = 3600
MIB = 1 << 20
_LONGEST = 100 * 365 * 24 * HOUR
OPENCL = ("any", "gpu", "cpu", "accelerator", "custom")  # kinds of its devices
_LARGEST = 1 << 60


class InvalidValue(Exception):
    """A value that its key cannot have; caught where file and line are known."""

    def __init__(self, what: str, advice: str, item: int | None = None) -> None:
        super().__init__(what, advice)
        self.what = what
        self.advice = advice
        self.item = item  # which one, if the value is a list and the others are right


@dataclass(frozen=True)
class Resources:
    """What one kernel asks of the scheduler or the host; None: whatever is usual there."""

    gpus: int | None = None
    gpu_type: str | None = None  # the scheduler's or the vendor's word for it
    gpu_memory: int | None = None  # bytes, of each GPU
    cpus: int | None = None
    memory: int | None = None  # bytes
    time: int | None = None  # seconds
    nodes: int | None = None
    opencl: str | None = None  # a kind of OpenCL device, or "any"


@dataclass(frozen=True)
class Target:
    """A named place where kernels can run, with everything that the configuration says about it."""

    name: str
    address: Address
    kernel: str | None = None  # a kernelspec there; never together with python
    python: str | None = None  # an interpreter there
    modules: tuple[str, ...] = ()
    conda: str | None = None
    before: str | None = None  # shell lines
    container: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    unset: tuple[str, ...] = ()
    cwd: str | None = None
    resources: Resources = Resources()
    options: tuple[str, ...] = ()  # for the scheduler, each one an argument
    ask: tuple[str, ...] = ()  # names of Resources' fields
    presets: tuple[str, ...] = ()  # names of those that menu entries can be made for
    keep: int | None = 12 * HOUR  # seconds without a front end; None: for ever
    idle: int | None = None  # seconds without work; None: never given back
    warm: int = 0
    share: bool = False
    cluster: str | None = None  # an engine across the nodes
    engine_hosts: tuple[str, ...] = ()  # where its workers run, if no scheduler says it
    policy: str = "least-loaded"
    capacity: int | None = None  # kernels at a time; None: no limit of ours
    sticky: str = "never"  # for whom a pool keeps to one member
    drain: bool = False  # pools give it no more kernels
    journal: int = 256 * MIB
    agent_python: tuple[str, ...] = ()  # interpreters to try for the agent, before the usual ones
    baud: int = 115200  # of a board's serial line
    dtr: bool | None = None  # the line's state while it is open; None: as the driver does it
    rts: bool | None = None
    password_command: tuple[str, ...] = ()  # prints a WebREPL's password
    ssh: str = "auto"  # the SSH client
    ssh_config: str | None = None  # a file instead of the usual ones
    warnings: tuple[str, ...] = field(
        default=(), compare=False
    )  # settings of a menu entry that a lock overruled


@dataclass(frozen=True)
class KeeperSettings:
    """The background process itself."""

    idle: int | None = 10 * 60  # seconds with nothing to do before it ends; None: never
    log_size: int = 10 * MIB


Parser = Callable[[object], Any]


# -- values ----------------------------------------------------------------------------------------


def text(value: object) -> str:
    """One line: it becomes an argument, a name or a path, none of which can hold control characters."""
    if not isinstance(value, str):
        raise _wrong(value, "a string")
    if not value or not value.isprintable():
        raise _wrong(value, "a string that is not empty and holds no control characters")
    return value


def path(value: object) -> str:
    """A file on this machine: absolute, or in the home (``~/…``)."""
    expanded = os.path.expanduser(text(value))
    if not expanded.startswith("/"):
        raise _wrong(value, 'an absolute path, or one that begins with "~/"')
    return expanded


def shell_lines(value: object) -> str:
    """Lines for a shell: a string or a list of lines."""
    lines = value.splitlines() if isinstance(value, str) else value
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise _wrong(value, "a string or a list of strings")
    for line in lines:
        if not line.replace("\t", " ").isprintable():
            raise _wrong(line, "shell lines without control characters")
    return "\n".join(lines)


def texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _wrong(value, "a list of strings")
    return tuple(_each(text, value))


def _each(parse: Parser, values: Iterable[object]) -> Iterator[Any]:
    for index, value in enumerate(values):
        try:
            yield parse(value)
        except InvalidValue as error:
            raise InvalidValue(error.what, error.advice, index) from None


def host_name(value: object) -> str:
    """As a command such as ssh takes it, which must not take it for an option."""
    if not isinstance(value, str) or not _HOST_NAME.fullmatch(value):
        raise _wrong(value, 'a name such as "pi2", "pi2.local" or "pi@10.0.0.12"')
    return value


def host_names(value: object) -> tuple[str, ...]:
    return tuple(_each(host_name, texts(value)))


def environment_name(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value, re.ASCII):
        what = f"holds {shown(value)}, which cannot be the name of an environment variable"
        raise InvalidValue(what, "Use letters, digits and '_', with no digit first")
    return value


def environment_names(value: object) -> tuple[str, ...]:
    return tuple(_each(environment_name, texts(value)))


def environment_value(value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(value, 'a string (numbers too stand in quotes: "8")')
    if "\0" in value:
        raise _wrong(value, "a string without NUL characters")
    return value


def count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1_000_000:
        raise _wrong(value, "a whole number, 0 or more")
    return value


def positive(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000_000:
        raise _wrong(value, "a whole number, 1 or more")
    return value


def baud(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 300 <= value <= 4_000_000:
        raise _wrong(value, "a speed from 300 to 4000000, such as 115200")
    return value


def switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(value, "true or false")
    return value


def choice(*words: str) -> Parser:
    def parse(value: object) -> str:
        if value not in words or not isinstance(value, str):
            raise InvalidValue(
                f"must be one of {', '.join(words)}, not {shown(value)}", nearest(value, words)
            )
        return value

    return parse


_HOST_NAME = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}@)?[A-Za-z0-9][A-Za-z0-9_.:-]{0,252}", re.ASCII)
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([KMGT]?)(?:i?B)?", re.IGNORECASE | re.ASCII)


def gpu_type(value: object) -> str:
    """A word in which schedulers name a kind of GPU: it becomes part of an argument, between colons or equal signs."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", value, re.ASCII):
        raise _wrong(value, 'a word such as "a100"')
    return value


def size(value: object) -> int:
    """``"64G"`` → bytes.  K, M, G and T are powers of 1024, as they are for the schedulers."""
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise _wrong(value, 'a size such as "512M" or "64G"')
    factor: int = 1024 ** " KMGT".index(match[2].upper() or " ")
    result = round(float(match[1]) * factor)
    if not 0 < result <= _LARGEST:
        raise _wrong(value, "a size above 0 and below an exabyte")
    return result


_UNITS = {"s": 1, "m": 60, "h": HOUR, "d": 24 * HOUR, "w": 7 * 24 * HOUR}


def duration(value: object) -> int:
    """``"4h"``, ``"1h30m"``, ``"2d"``, or as schedulers do: ``"4:00:00"``, ``"1-12:00:00"`` → seconds."""
    seconds = _duration(value) if isinstance(value, str) else None
    if seconds is None:
        raise _wrong(value, 'a duration such as "90s", "30m", "4h" or "2d"')
    if seconds > _LONGEST:
        raise _wrong(value, "a duration below a hundred years")
    return seconds


def time_limit(value: object) -> int:
    """A duration that is not nothing."""
    seconds = duration(value)
    if not seconds:
        raise _wrong(value, 'a duration above 0, such as "4h"')
    return seconds


def duration_or(word: str) -> Parser:
    """A duration, or the word for "no end", which becomes None."""

    def parse(value: object) -> int | None:
        if value == word:
            return None
        try:
            return duration(value)
        except InvalidValue as error:
            raise InvalidValue(error.what, f'{error.advice}, or "{word}"') from None

    return parse


def _duration(value: str) -> int | None:
    clock = re.fullmatch(r"(?:([0-9]{1,5})-)?([0-9]{1,6}):([0-9]{2}):([0-9]{2})", value, re.ASCII)
    if clock:
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        return days * 24 * HOUR + hours * HOUR + minutes * 60 + seconds
    if value == "0":
        return 0
    if not re.fullmatch(r"(?:[0-9]{1,12}(?:\.[0-9]{1,6})? ?[smhdw] ?)+", value, re.ASCII):
        return None
    parts = re.findall(r"([0-9.]+) ?([smhdw])", value)
    units = [unit for _, unit in parts]
    if len(set(units)) < len(units):
        return None
    return round(sum(float(number) * _UNITS[unit] for number, unit in parts))


def duration_text(seconds: int) -> str:
    """As it would be written into the configuration: "90s", "30m", "2h", "7d"."""
    units = ("d", "h", "m") if seconds >= 2 * 24 * HOUR else ("h", "m")
    for unit in units:
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds // _UNITS[unit]}{unit}"
    return f"{seconds}s"


def size_text(number: int) -> str:
    """As it would be written into the configuration: "512M", "64G"; in whole kilobytes at the least."""
    for power, unit in ((4, "T"), (3, "G"), (2, "M")):
        if number % 1024**power == 0:
            return f"{number // 1024**power}{unit}"
    return f"{-(-number // 1024)}K"


def address(value: object) -> Address:
    try:
        return parse_address(text(value))
    except AddressError as error:
        raise InvalidValue(f"is wrong: {error.what}", error.advice) from None


def resource_names(value: object) -> tuple[str, ...]:
    names = texts(value)
    return tuple(_each(choice(*RESOURCE_KEYS), names))


# -- the schema ------------------------------------------------------------------------------------

RESOURCE_KEYS: Mapping[str, Parser] = {
    "gpus": count,
    "gpu_type": gpu_type,
    "gpu_memory": size,
    "opencl": choice(*OPENCL),
    "cpus": positive,
    "memory": size,
    "time": time_limit,
    "nodes": positive,
}

Schema = Mapping[str, "Parser | Schema"]

_HOST_KEYS: Schema = {
    "address": address,
    "kernel": text,
    "python": text,
    "modules": texts,
    "conda": text,
    "before": shell_lines,
    "container": text,
    "env": {"*": environment_value},  # any name
    "unset": environment_names,
    "cwd": text,
    "resources": RESOURCE_KEYS,
    "options": texts,
    "ask": resource_names,
    "keep": duration_or("forever"),
    "idle": duration_or("never"),
    "warm": count,
    "share": switch,
    "cluster": choice("dask", "ipyparallel", "spark", "ray", "mpi"),
    "engine_hosts": host_names,
    "policy": choice("least-loaded", "round-robin", "first"),
    "capacity": positive,
    "sticky": choice("never", "notebook", "user"),
    "drain": switch,
    "journal": size,
    "agent_python": texts,
    "baud": baud,
    "dtr": switch,
    "rts": switch,
    "password_command": texts,
    "ssh": choice("auto", "asyncssh", "program", "paramiko"),
    "ssh_config": path,
}

DEFAULT_KEYS: Schema = {key: parser for key, parser in _HOST_KEYS.items() if key != "address"}

# Which kernel it is, the menu entry says.
PRESET_KEYS: Schema = {key: parser for key, parser in DEFAULT_KEYS.items() if key not in ("kernel", "python")}

TARGET_KEYS: Schema = {**_HOST_KEYS, "presets": {"*": PRESET_KEYS}}

KEEPER_KEYS: Mapping[str, Parser] = {
    "idle": duration_or("never"),
    "log_size": size,
}


# -- words for errors ------------------------------------------------------------------------------


def shown(value: object) -> str:
    """A value in an error: short, on one line, without control characters."""
    described = repr(value) if isinstance(value, (str, bool, int, float)) else f"a {type(value).__name__}"
    described = {"True": "true", "False": "false", "a dict": "a table"}.get(described, described)
    return described if len(described) <= 60 else described[:57] + "…"


def nearest(word: object, words: Mapping[str, Any] | tuple[str, ...]) -> str:
    """Advice for a word that is not one of those known."""
    import difflib  # only for those who mistyped

    near = difflib.get_close_matches(str(word)[:100].lower(), list(words), n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known here: {', '.join(words)}"


def _wrong(value: object, expected: str) -> InvalidValue:
    return InvalidValue(f"has a value of the wrong kind, {shown(value)}", f"Write {expected}")
