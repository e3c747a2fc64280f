"""What a roster makes: targets, a pool, menu entries.  And what differs from what is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from ..text import one_line
from .roster import Host, Roster, board_name

How = Literal["add", "change", "remove"]


class Change(NamedTuple):
    """One thing that is not as the roster says."""

    how: How
    kind: str  # target, entry, environment
    name: str
    detail: str = ""
    place: str = ""  # the host; empty: here


@dataclass(frozen=True)
class Entry:
    """A menu entry that there shall be."""

    target: str
    display_name: str
    address: str
    kernel: str | None = None  # a kernelspec there that says its language by its name; None: Python


@dataclass(frozen=True)
class Made:
    """What a roster makes, or made before."""

    targets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # keys as they stand in TOML
    entries: Mapping[str, Entry] = field(default_factory=dict)


def wanted(roster: Roster) -> Made:
    """Everything, as it shall be."""
    targets: dict[str, dict[str, Any]] = {}
    for host in roster.hosts:
        targets[host.name] = _of_host(roster, host)
        if host.serial is not None:
            targets[board_name(host.name)] = {"address": str(host.serial)}
    members = ",".join(host.name for host in roster.hosts)
    targets[roster.name] = {"address": f"pool:{members}", **roster.pool}
    return Made(targets, dict(_entries(roster)))


def _entries(roster: Roster) -> Iterator[tuple[str, Entry]]:
    kernel = roster.target.get("kernel")
    if "pool" in roster.entries:
        shown = roster.title or f"{roster.name} · {kernel or 'Python'}"
        yield roster.name, Entry(roster.name, shown, "pool:", roster.pool.get("kernel", kernel))
    for host in roster.hosts:
        shown = f"{host.name} · {host.student}" if host.student else host.name
        if "hosts" in roster.entries:
            yield host.name, Entry(host.name, shown, str(host.ssh), kernel)
        if "boards" in roster.entries and host.serial is not None:
            board = board_name(host.name)
            yield board, Entry(board, f"{shown} · MicroPython", str(host.serial))


def _of_host(roster: Roster, host: Host) -> dict[str, Any]:
    keys: dict[str, Any] = {"address": str(host.ssh)}
    if roster.environment is not None and not roster.target.keys() & {"kernel", "python", "conda"}:
        keys["kernel"] = roster.environment.name
    keys |= roster.target
    if host.capacity is not None:
        keys["capacity"] = host.capacity
    if host.drain:
        keys["drain"] = True
    return keys


def differences(
    there: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, Mapping[str, Any]], kind: str
) -> Iterator[Change]:
    """What would have to be done to `there`."""
    for name, keys in wanted.items():
        if name not in there:
            yield Change("add", kind, name, _short(keys))
        elif dict(there[name]) != dict(keys):
            yield Change("change", kind, name, _changed(there[name], keys))
    for name in there:
        if name not in wanted:
            yield Change("remove", kind, name)


def _short(keys: Mapping[str, Any]) -> str:
    return one_line(keys.get("address") or keys.get("display_name") or "")


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Which keys, and from what to what."""
    parts = []
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old, dict | list) or isinstance(new, dict | list):
            parts.append(f"{key} differs")
        elif old is None:
            parts.append(f"{key} = {new}")
        elif new is None:
            parts.append(f"no {key}")
        else:
            parts.append(f"{key}: {old} → {new}")
    return one_line("; ".join(parts))
