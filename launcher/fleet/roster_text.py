"""A roster as TOML again: how it goes to servers, whole, and without what is no business of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..targets_file import toml_key, toml_value
from .roster import Host, Roster


def as_toml(roster: Roster) -> str:
    """What targets and entries are made from; no passwords, nothing about cards or resets, and no servers."""
    fleet: dict[str, Any] = {"name": roster.name, "entries": list(roster.entries)}
    if roster.title:
        fleet["title"] = roster.title
    tables = [_table("[fleet]", fleet), _table("[target]", roster.target), _table("[pool]", roster.pool)]
    if roster.environment is not None:
        environment = {"name": roster.environment.name, "packages": list(roster.environment.packages)}
        tables.append(_table("[environment]", environment))
    tables += [_table("[[hosts]]", _row(host)) for host in roster.hosts]
    return "\n".join(tables)


def _row(host: Host) -> dict[str, Any]:
    values = {
        "host": host.name,
        "address": host.address,
        "user": host.user,
        "port": host.port,
        "student": host.student,
        "board": host.board,
        "model": host.model,
        "capacity": host.capacity,
        "drain": host.drain,
    }
    return {key: value for key, value in values.items() if value not in (None, "", False)}


def _table(head: str, keys: Mapping[str, Any]) -> str:
    return head + "\n" + "".join(f"{toml_key(key)} = {toml_value(value)}\n" for key, value in keys.items())
