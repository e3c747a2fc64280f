"""A roster: which hosts there are, who works on them, and what all of them have in common (docs/classroom.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..address import Address, parse_address
from ..configuration import ConfigurationError, Problem

COLUMNS = (
    "host",
    "student",
    "board",
    "model",
    "address",
    "user",
    "port",
    "password",
    "capacity",
    "drain",
)

# On the hosts, for all their users.
ENVIRONMENTS = "/opt/farkernel"
KERNELSPECS = "/usr/local/share/jupyter/kernels"


@dataclass(frozen=True)
class Host:
    """One row."""

    name: str  # the machine's and the target's
    address: str  # whom SSH calls
    line: int | None = None
    user: str | None = None
    port: int | None = None
    student: str = ""
    board: str = ""  # a device there
    model: str = ""
    capacity: int | None = None
    drain: bool = False
    password: str = field(default="", repr=False)

    @property
    def ssh(self) -> Address:
        return parse_address(f"ssh://{self._authority}")

    @property
    def serial(self) -> Address | None:
        """Of the board that is plugged in there."""
        return parse_address(f"serial://{self._authority}{self.board}") if self.board else None

    @property
    def _authority(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return (f"{self.user}@" if self.user else "") + host + (f":{self.port}" if self.port else "")


@dataclass(frozen=True)
class Environment:
    """The kernels' Python on every host: a virtual environment, and a kernelspec for all users there."""

    name: str
    packages: tuple[str, ...] = ()
    wheels: Path | None = None  # a folder here; without it pip asks its index there

    @property
    def directory(self) -> str:
        return f"{ENVIRONMENTS}/{self.name}"

    @property
    def kernelspecs(self) -> str:
        return KERNELSPECS


@dataclass(frozen=True)
class Card:
    """What goes onto every card (`farkernel image raspberrypi`)."""

    keys: tuple[str, ...] = ()  # files with public keys, or the keys themselves
    password: str = field(default="", repr=False)
    wifi: str = ""
    wifi_password: str = field(default="", repr=False)
    wifi_hidden: bool = False
    country: str = ""
    locale: str = ""
    timezone: str = ""
    keyboard: str = ""
    sudo: bool = True


@dataclass(frozen=True)
class Reset:
    """What `farkernel fleet reset` sets back beside the kernels."""

    directory: str = ""  # in the home there
    template: Path | None = None  # a folder here


@dataclass(frozen=True)
class Roster:
    """A whole list, checked."""

    name: str
    file: str
    hosts: tuple[Host, ...]
    title: str = ""
    entries: tuple[str, ...] = ("pool",)
    servers: tuple[str, ...] = ()  # targets whose own Farkernel gets the same for all its users
    server_command: tuple[str, ...] = ("farkernel",)
    target: Mapping[str, Any] = field(default_factory=dict)  # keys that every host's target has
    pool: Mapping[str, Any] = field(default_factory=dict)
    environment: Environment | None = None
    card: Card = Card()
    reset: Reset = Reset()
    notes: tuple[str, ...] = ()


class RosterError(ConfigurationError):
    """Everything that is wrong with a roster."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(list(problems))
        if len(problems) > 1:
            self.what = self.what.replace("the configuration has", "the roster has", 1)
            self.args = (self.what, self.advice)


def board_name(host: str) -> str:
    """The target of the board that is plugged into this host."""
    return f"{host}-board"
