"""A network of our own: near — middle — far, each a network namespace, with packets that really get lost.

What runs in one of them shares files and unix sockets with everything else here.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .netns import Network, inside, ip
from .ssh import Sshd


class LossyNetwork:
    """Two hosts and what lies between; see `lossy_network`."""

    near_address = "10.77.1.2"
    far_address = "10.77.2.2"

    def __init__(self, hosts: Network) -> None:
        self.near, self.middle, self.far = (hosts.host(name) for name in ("near", "middle", "far"))
        for name, side, here, gate in (
            (self.near, "near", self.near_address, "10.77.1.1"),
            (self.far, "far", self.far_address, "10.77.2.1"),
        ):
            ip("-n", self.middle, "link", "add", side, "type", "veth", "peer", "name", "out", "netns", name)
            ip("-n", self.middle, "addr", "add", f"{gate}/24", "dev", side)
            ip("-n", self.middle, "link", "set", side, "up")
            ip("-n", name, "addr", "add", f"{here}/24", "dev", "out")
            ip("-n", name, "link", "set", "out", "up")
            ip("-n", name, "route", "add", "default", "via", gate)
        forward = "/proc/sys/net/ipv4/ip_forward"
        subprocess.run([*inside(self.middle), "sh", "-c", f"echo 1 > {forward}"], check=True)

    def silence(self) -> None:
        """What comes to the middle is lost there, and nobody is told."""
        for address in (self.near_address, self.far_address):
            ip("-n", self.middle, "route", "add", "blackhole", f"{address}/32")

    def heal(self) -> None:
        for address in (self.near_address, self.far_address):
            ip("-n", self.middle, "route", "del", "blackhole", f"{address}/32")

    def unplug(self) -> None:
        """The near end has no network at all, and knows it."""
        ip("-n", self.near, "link", "set", "out", "down")

    def plug(self) -> None:
        ip("-n", self.near, "link", "set", "out", "up")
        ip("-n", self.near, "route", "add", "default", "via", "10.77.1.1")

    def move(self) -> None:
        """The near end is somewhere else: another address, the former one is gone."""
        ip("-n", self.near, "addr", "del", f"{self.near_address}/24", "dev", "out")
        ip("-n", self.near, "addr", "add", "10.77.1.3/24", "dev", "out")
        ip("-n", self.near, "route", "add", "default", "via", "10.77.1.1")  # it went with the address

    def sshd(self, directory: Path) -> Sshd:
        """Of the far host; not started yet."""
        host = Sshd(directory)
        host.before, host.address_there = inside(self.far), self.far_address
        host.know()
        host.write_client_config()
        return host


@contextmanager
def lossy_network() -> Iterator[LossyNetwork]:
    with Network() as hosts:
        yield LossyNetwork(hosts)
