"""A login host and one behind it, in networks of their own: only the login host can be reached from here."""

from __future__ import annotations

from pathlib import Path

from farkernel.backends.ssh_config import Place

from .netns import Network, inside
from .ssh import Sshd


class LoginAndInner:
    """A login host and one behind it, as sites have them."""

    def __init__(self, directory: Path, network: Network) -> None:
        self.network = network
        login, inner = network.host("login"), network.host("inner")
        _, outside = network.cable(None, login)
        _, within = network.cable(login, inner)
        self.spaces = (login, inner)
        self.login, self.inner = Sshd(directory / "login"), Sshd(directory / "inner")
        for host, space, address in ((self.login, login, outside), (self.inner, inner, within)):
            host.before, host.address_there = inside(space), address
            host.know()
        self.config = directory / "ssh_config"
        self.write_config()

    def write_config(self, *lines: str) -> None:
        parts = [*lines]
        for name, host in (("login", self.login), ("inner", self.inner)):
            parts += [
                f"Host {name}",
                f"HostName {host.address_there}",
                f"Port {host.port}",
                f"User {host.user}",
                f"IdentityFile {host.key}",
                f"UserKnownHostsFile {host.known_hosts}",
                "ProxyJump login" if name == "inner" else "ProxyJump none",
            ]
        parts += ["Host *", "IdentitiesOnly yes", "IdentityAgent none", "GlobalKnownHostsFile none"]
        parts += ["StrictHostKeyChecking yes"]
        self.config.write_text("\n".join(parts) + "\n")

    def place(self, name: str = "inner") -> Place:
        return Place(name, config=str(self.config))
