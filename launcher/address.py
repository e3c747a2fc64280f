"""Addresses of targets (DESIGN §5): ``local:``, ``ssh://me@host:port``, ``slurm://host/gpu``, ``pool:a,b``.

An address is data that ends up in the argv of ``ssh`` and of schedulers, so every part is checked here, once:
no part can begin with a dash, and none holds white space, quotes or control characters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar

from .errors import FarkernelError


class AddressError(FarkernelError):
    """An address that names no place."""

    kind: ClassVar[str] = "address"


class Shape(Enum):
    """What may follow the scheme."""

    NOTHING = auto()  # local:
    HOST = auto()  # ssh://[user@]host[:port]
    QUEUE = auto()  # slurm://[[user@]host[:port]][/partition]
    MEMBERS = auto()  # pool:NAME,NAME
    DEVICE = auto()  # serial://[[user@]host[:port]]/dev/…


SCHEMES: Mapping[str, Shape] = {
    "local": Shape.NOTHING,
    "ssh": Shape.HOST,
    "slurm": Shape.QUEUE,
    "pbs": Shape.QUEUE,
    "torque": Shape.QUEUE,
    "sge": Shape.QUEUE,
    "lsf": Shape.QUEUE,
    "htcondor": Shape.QUEUE,
    "oar": Shape.QUEUE,
    "pool": Shape.MEMBERS,
    "serial": Shape.DEVICE,
    "webrepl": Shape.HOST,
}

EXAMPLES: Mapping[Shape, str] = {
    Shape.NOTHING: "{0}:",
    Shape.HOST: "{0}://host or {0}://user@host:port",
    Shape.QUEUE: "{0}://login/partition, or {0}:///partition from this machine",
    Shape.MEMBERS: "{0}:NAME,NAME with the names of targets",
    Shape.DEVICE: "{0}:///dev/ttyUSB0, or {0}://host/dev/ttyUSB0",
}

TARGET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+$\\-]*", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?\]", re.ASCII)
_QUEUE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,:@+-]*", re.ASCII)
_DEVICE = re.compile(r"/[A-Za-z0-9_.:@+,=/-]+", re.ASCII)


@dataclass(frozen=True)
class Address:
    """Where a target is.  ``str()`` gives the text that it was read from."""

    text: str
    scheme: str
    user: str | None = None
    host: str | None = None  # without the brackets of an IPv6 address; None: this machine
    port: int | None = None
    partition: str | None = None  # or queue, whatever the scheduler calls it; None: its default
    path: str | None = None  # of a serial device
    members: tuple[str, ...] = ()  # targets of a pool

    def __str__(self) -> str:
        return self.text

    @property
    def is_host(self) -> bool:
        """Whether it is a machine that kernels have to themselves, with no scheduler to share it out."""
        return self.scheme in ("local", "ssh")


def parse_address(text: str, schemes: Mapping[str, Shape] = SCHEMES) -> Address:
    """Take an address apart; raises AddressError.  ``schemes``: with those of outside backends."""
    scheme, colon, rest = text.partition(":")
    shape = schemes.get(scheme)
    if shape is None or not colon:
        raise _unknown_scheme(text, scheme, schemes)
    advice = f"Write {EXAMPLES[shape].format(scheme)}"
    if shape is Shape.NOTHING:
        if rest:
            raise AddressError(f"nothing may follow the colon in the address {text!r}", advice)
        return Address(text, scheme)
    if shape is Shape.MEMBERS:
        return Address(text, scheme, members=_members(text, rest, advice))
    if not rest.startswith("//"):
        raise AddressError(f"'//' is missing after the colon in the address {text!r}", advice)
    authority, slash, tail = rest[2:].partition("/")
    user, host, port = _authority(text, authority, advice)
    if shape is Shape.HOST:
        if host is None or slash:
            what = (
                "the address {0!r} names no host" if host is None else "nothing may follow the host in {0!r}"
            )
            raise AddressError(what.format(text), advice)
        return Address(text, scheme, user, host, port)
    if shape is Shape.QUEUE:
        if tail and not _QUEUE.fullmatch(tail):
            raise AddressError(f"{tail!r} cannot be a partition or queue, in the address {text!r}", advice)
        return Address(text, scheme, user, host, port, partition=tail or None)
    device = slash + tail
    if not _DEVICE.fullmatch(device) or ".." in device.split("/"):
        raise AddressError(f"{device!r} is not the path of a device, in the address {text!r}", advice)
    return Address(text, scheme, user, host, port, path=device)


def check_target_name(name: str) -> str:
    """The name itself, or AddressError: it becomes part of file names, job names and menu entries."""
    if not TARGET_NAME.fullmatch(name):
        raise AddressError(
            f"{name[:80]!r} cannot be the name of a target",
            "Begin with a letter or digit; letters, digits, '.', '_' and '-' may follow; 64 in all",
        )
    return name


def _unknown_scheme(text: str, scheme: str, schemes: Mapping[str, Shape]) -> AddressError:
    import difflib  # only for those who mistyped

    if text in schemes:
        return AddressError(
            f"the colon is missing in the address {text!r}", f"Write {EXAMPLES[schemes[text]].format(text)}"
        )
    near = difflib.get_close_matches(scheme.lower(), schemes, n=1)
    if near:
        return AddressError(
            f"the address {text!r} has an unknown scheme {scheme!r}",
            f"Write {EXAMPLES[schemes[near[0]]].format(near[0])}",
        )
    return AddressError(
        f"the address {text!r} does not begin with a known scheme",
        f"Known are {', '.join(schemes)}; for a machine reached by SSH write ssh://host",
    )


def _members(text: str, rest: str, advice: str) -> tuple[str, ...]:
    members = tuple(part.strip(" ") for part in rest.split(","))
    for member in members:
        if not TARGET_NAME.fullmatch(member):
            raise AddressError(f"{member!r} cannot be the name of a target, in the address {text!r}", advice)
    if len(set(members)) < len(members):
        twice = next(member for member in members if members.count(member) > 1)
        raise AddressError(f"{twice!r} stands twice in the address {text!r}", "Name each target once")
    return members


def _authority(text: str, authority: str, advice: str) -> tuple[str | None, str | None, int | None]:
    """``[user@]host[:port]``; all None if it is empty.  Names of users may hold an ``@`` themselves."""
    if not authority:
        return None, None, None
    user, at, place = authority.rpartition("@")
    if ":" in user:
        raise AddressError(
            f"the address of {place!r} holds a password or a second colon",
            "Never write passwords into the configuration: use keys, or `farkernel login`",
        )
    if at and not _USER.fullmatch(user):
        raise AddressError(f"{user!r} cannot be the name of a user, in the address {text!r}", advice)
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(.*))?", place, re.DOTALL)
    host, port = match.groups() if match else (place, None)
    if not _HOST.fullmatch(host):
        raise AddressError(f"{host!r} cannot be the name of a host, in the address {text!r}", advice)
    return (user if at else None), host.strip("[]"), _port(text, port)


def _port(text: str, port: str | None) -> int | None:
    if port is None:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise AddressError(
            f"{port!r} is not a port, in the address {text!r}", "Write a number from 1 to 65535"
        )
    return int(port)
