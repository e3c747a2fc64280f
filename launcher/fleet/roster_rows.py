"""From rows of a roster to its hosts, each value checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..address import AddressError, parse_address
from ..configuration import Problem
from ..settings import InvalidValue, shown, text
from .roster import COLUMNS, Host

_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)
_YES, _NO = ("yes", "true", "1", "x", "y", "on"), ("no", "false", "0", "n", "off", "-")
Row = tuple[int | None, Mapping[str, object]]


def hosts_of_rows(
    rows: Sequence[Row], file: str, common: Mapping[str, Any], problems: list[Problem]
) -> list[Host]:
    """``common``: user and domain where a row has none of its own.  What is wrong goes to ``problems``."""
    hosts = []
    for line, cells in rows:
        values: dict[str, Any] = {}
        for key, value in cells.items():
            try:
                values[key] = _PARSERS[key](value)
            except InvalidValue as error:
                problems.append(Problem(file, line, f"{key!r} {error.what}", error.advice))
        if "host" not in cells:
            problems.append(Problem(file, line, "names no host", "Every row has a name in the column `host`"))
        if "host" in values:
            hosts.append(_host(values, line, common, file, problems))
    return hosts


def _host(
    values: dict[str, Any], line: int | None, common: Mapping[str, Any], file: str, problems: list[Problem]
) -> Host:
    name = values.pop("host")
    domain = common.get("domain", "")
    address = values.pop("address", "") or (f"{name}.{domain}" if domain and "." not in name else name)
    values.setdefault("user", common.get("user"))
    host = Host(name, address, line, **values)
    try:
        host.serial or host.ssh  # noqa: B018 - either raises what is wrong with it
    except AddressError as error:
        problems.append(Problem(file, line, error.what, error.advice))
        return Host(name, name, line)
    return host


def _name(value: object) -> str:
    name = text(value).lower()
    if not _HOST.fullmatch(name) or ".." in name:
        raise InvalidValue(
            f"cannot be the name of a host: {shown(value)}",
            "Take letters, digits and '-', beginning and ending with a letter or digit, 63 at most",
        )
    return name


def _user(value: object) -> str:
    user = text(value)
    if not _USER.fullmatch(user):
        raise InvalidValue(
            f"cannot be the name of a user: {shown(value)}",
            "Take small letters, digits, '-' and '_', beginning with a letter, 32 at most",
        )
    return user


def _address(value: object) -> str:
    address = text(value)
    bare = f"[{address}]" if address.count(":") > 1 else address
    try:
        parsed = parse_address(f"ssh://{bare}")
    except AddressError:
        parsed = None
    if parsed is None or parsed.user or parsed.port:
        raise InvalidValue(
            f"is no name or IP address of a machine: {shown(value)}",
            "Write the name alone; user and port have columns of their own",
        )
    return address


def _board(value: object) -> str:
    """A device at the host, as the address of a board has it."""
    board = text(value)
    try:
        parse_address(f"serial://host{board}")
    except AddressError:
        raise InvalidValue(
            f"is no device with a board: {shown(value)}",
            "Write /dev/ttyUSB0 or /usb/VID:PID, as `farkernel board list` shows it there; what the machine itself is "
            "goes into the column `model`",
        ) from None
    return board


def _number(least: int, most: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        number = int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value
        if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
            raise InvalidValue(
                f"is no number that would do: {shown(value)}", f"Write one from {least} to {most}"
            )
        return number

    return parse


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word not in (*_YES, *_NO):
        raise InvalidValue(f"is neither yes nor no: {shown(value)}", "Write yes or no")
    return word in _YES


def secret(value: object) -> str:
    """A password: errors do not show it."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise InvalidValue("is no password", "Write letters, digits and signs on one line, as a string")
    return value


_PARSERS: Mapping[str, Callable[[object], Any]] = {
    "host": _name,
    "student": text,
    "board": _board,
    "model": text,
    "address": _address,
    "user": _user,
    "port": _number(1, 65535),
    "password": secret,
    "capacity": _number(1, 10_000),
    "drain": _switch,
}
assert set(_PARSERS) == set(COLUMNS)
user_name = _user
