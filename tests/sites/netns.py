"""Hosts of a test as network namespaces, joined by cables (veth) that can be pulled.  They need root.

The names and addresses are the test's own; the addresses are from 198.18.0.0/15, which is for tests (RFC 2544) and
routed nowhere.
"""

from __future__ import annotations

import itertools
import secrets
import subprocess
from types import TracebackType

# Of a switch: for documentation (RFC 5737); the same in each network, because none leads out.
_SEGMENT = "192.0.2"

_networks = itertools.count(secrets.randbelow(1 << 14))


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Network:
    """Makes hosts and cables; everything goes away with it."""

    def __init__(self) -> None:
        self._tag = secrets.token_hex(3)
        self._spaces: list[str] = []
        self._cables: list[str] = []
        self._routes: list[str] = []

    def __enter__(self) -> Network:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for cable in self._cables:
            subprocess.run(["ip", "link", "del", cable], capture_output=True, check=False)
        for route in self._routes:
            subprocess.run(["ip", "route", "del", "unreachable", route], capture_output=True, check=False)
        for space in self._spaces:
            ip("netns", "del", space)

    def host(self, name: str) -> str:
        """A namespace; gives its full name, for `inside` and `cable`."""
        space = f"fk{self._tag}{name}"
        ip("netns", "add", space)
        self._spaces.append(space)
        ip("-n", space, "link", "set", "lo", "up")
        return space

    def cable(self, first: str | None, second: str) -> tuple[str, str]:
        """Join two hosts (None: where the tests run); gives the address of each end."""
        number = next(_networks) % (1 << 15)
        base = f"198.{18 + (number >> 14)}.{(number >> 6) & 255}"
        low = (number & 63) * 4
        ends = (f"{base}.{low + 1}", f"{base}.{low + 2}")
        names = (f"fk{self._tag}{len(self._cables)}a", f"fk{self._tag}{len(self._cables)}b")
        ip("link", "add", names[0], "type", "veth", "peer", "name", names[1])
        self._cables.append(names[0])
        for space, name, address in ((first, names[0], ends[0]), (second, names[1], ends[1])):
            if space is not None:
                ip("link", "set", name, "netns", space)
            where = ["-n", space] if space is not None else []
            ip(*where, "address", "add", f"{address}/30", "dev", name)
            ip(*where, "link", "set", name, "up")
        if first is not None:
            # Where the tests run there may be a way to everywhere; this network is on none of them.
            self._routes.append(f"{base}.{low}/30")
            ip("route", "add", "unreachable", self._routes[-1])
        return ends

    def segment(self, *spaces: str) -> list[str]:
        """Join hosts by a switch of their own, which leads nowhere else; gives each host's address on it."""
        switch = self.host("sw")
        ip("-n", switch, "link", "add", "sw", "type", "bridge", "forward_delay", "0", "stp_state", "0")
        ip("-n", switch, "link", "set", "sw", "up")
        addresses = [f"{_SEGMENT}.{index}" for index in range(1, len(spaces) + 1)]
        for index, (space, address) in enumerate(zip(spaces, addresses, strict=True)):
            ip("-n", switch, "link", "add", f"p{index}", "type", "veth", "peer", "name", "in", "netns", space)
            ip("-n", switch, "link", "set", f"p{index}", "master", "sw", "up")
            ip("-n", space, "address", "add", f"{address}/24", "dev", "in")
            ip("-n", space, "link", "set", "in", "up")
        return addresses

    def pull(self, space: str, number: int) -> None:
        """The cable (the first has number 0) is out at that end: silence, no reset."""
        ip("-n", space, "link", "set", f"fk{self._tag}{number}b", "down")

    def plug_in(self, space: str, number: int) -> None:
        ip("-n", space, "link", "set", f"fk{self._tag}{number}b", "up")


def inside(space: str) -> list[str]:
    """The words before a command that shall run on that host."""
    return ["ip", "netns", "exec", space]
