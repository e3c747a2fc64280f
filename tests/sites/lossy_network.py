"""A network of our own: near — middle — far, each a network namespace, with packets that really get lost.

Nothing of the machine's own network is touched: `ip` makes the namespaces, and they are taken away at the end.  What
runs in one of them shares files and unix sockets with everything else here.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from farkernel.backends.ssh_config import Place

from .engine import wait_until
from .ssh import SSHD, Sshd

_numbers = itertools.count()


class Network:
    """Two hosts and what lies between; see `network`."""

    near_address = "10.77.1.2"
    far_address = "10.77.2.2"

    def __init__(self) -> None:
        mark = f"fk{os.getpid()}x{next(_numbers)}"
        self.near, self.middle, self.far = (f"{mark}{end}" for end in "nmf")

    def inside(self, namespace: str, *command: str) -> list[str]:
        """The command, run there."""
        return ["ip", "netns", "exec", namespace, *command]

    def make(self) -> None:
        for name in (self.near, self.middle, self.far):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        for name, here, gate in (
            (self.near, self.near_address, "10.77.1.1"),
            (self.far, self.far_address, "10.77.2.1"),
        ):
            side = "near" if name == self.near else "far"
            _ip("-n", self.middle, "link", "add", side, "type", "veth", "peer", "name", "out", "netns", name)
            _ip("-n", self.middle, "addr", "add", f"{gate}/24", "dev", side)
            _ip("-n", self.middle, "link", "set", side, "up")
            _ip("-n", name, "addr", "add", f"{here}/24", "dev", "out")
            _ip("-n", name, "link", "set", "out", "up")
            _ip("-n", name, "route", "add", "default", "via", gate)
        forward = "/proc/sys/net/ipv4/ip_forward"
        subprocess.run(self.inside(self.middle, "sh", "-c", f"echo 1 > {forward}"), check=True)

    def take_away(self) -> None:
        for name in (self.near, self.middle, self.far):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def silence(self) -> None:
        """What comes to the middle is lost there, and nobody is told."""
        for address in (self.near_address, self.far_address):
            _ip("-n", self.middle, "route", "add", "blackhole", f"{address}/32")

    def heal(self) -> None:
        for address in (self.near_address, self.far_address):
            _ip("-n", self.middle, "route", "del", "blackhole", f"{address}/32")

    def unplug(self) -> None:
        """The near end has no network at all, and knows it."""
        _ip("-n", self.near, "link", "set", "out", "down")

    def plug(self) -> None:
        _ip("-n", self.near, "link", "set", "out", "up")
        _ip("-n", self.near, "route", "add", "default", "via", "10.77.1.1")

    def move(self) -> None:
        """The near end is somewhere else: another address, the former one is gone."""
        _ip("-n", self.near, "addr", "del", f"{self.near_address}/24", "dev", "out")
        _ip("-n", self.near, "addr", "add", "10.77.1.3/24", "dev", "out")
        _ip("-n", self.near, "route", "add", "default", "via", "10.77.1.1")  # it went with the address


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


@contextmanager
def network() -> Iterator[Network]:
    made = Network()
    try:
        made.make()
        yield made
    finally:
        made.take_away()


class FarSshd(Sshd):
    """sshd on the far host of a network."""

    def __init__(self, directory: Path, net: Network, options: Mapping[str, str] | None = None) -> None:
        self._network = net
        super().__init__(directory, options)

    def __enter__(self) -> FarSshd:
        self.start()
        return self

    def place(self) -> Place:
        return replace(super().place(), host=self._network.far_address)

    def know(self) -> None:
        public = (self.directory / "host_key.pub").read_text().split()
        self.known_hosts.write_text(f"[{self._network.far_address}]:{self.port} {public[0]} {public[1]}\n")

    def config(self) -> str:
        return super().config().replace("127.0.0.1", self._network.far_address)

    @property
    def address(self) -> str:
        return f"ssh://{self.user}@{self._network.far_address}:{self.port}"

    def start(self) -> None:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        path = self.directory / "sshd_config"
        path.write_text(self.config())
        listening = self._listening()
        command: Sequence[str] = self._network.inside(self._network.far, SSHD, "-D", "-e", "-f", str(path))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(lambda: self._listening() > listening or self._failed(), f"sshd on port {self.port}")

    def _listening(self) -> int:
        return self.log.read_text().count("Server listening on") if self.log.exists() else 0
