"""Real SSH servers on loopback: each with its own keys, configuration and log in the test's directory.

The far end is this same machine, so its agents are told apart by their run directory, which sshd sets for each session
(SetEnv).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import psutil

from farkernel.backends.ssh_config import Place

from .engine import wait_until

SSHD = "/usr/sbin/sshd"


_ports = itertools.count(os.getpid() * 37 % 12_000)


def free_port() -> int:
    """Below those that the system gives out by itself (ip_local_port_range): it stays free while a server restarts."""
    while True:
        port = 20_000 + next(_ports) % 12_000
        with socket.socket() as plug, contextlib.suppress(OSError):
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            plug.bind(("127.0.0.1", port))
            return port


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A key pair by ssh-keygen."""
    size = ["-b", "2048"] if kind == "rsa" else []
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, *size, "-N", passphrase, "-C", "a test", "-f", str(path)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return path


class Sshd:
    """One server, and what a client needs to know of it.  Options are lines of sshd_config, name → value or values."""

    def __init__(
        self,
        directory: Path,
        options: Mapping[str, str] | None = None,
        user: str | None = None,
        port: int | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = port or free_port()
        self.user = user or pwd.getpwuid(os.getuid()).pw_name
        self.host_key = make_key(directory / "host_key")
        self.key = make_key(directory / "id")
        self.run_directory = directory / "far"
        self.log = directory / "log"
        self.known_hosts = directory / "known_hosts"
        self.client_config = directory / "ssh_config"
        self.environment = far_environment(self.run_directory, self.user)
        self.options = dict(options or {})
        self.pam_service: str | None = None
        self.before: list[str] = []  # words in front of its command: a namespace to run in
        self.address_there = "127.0.0.1"
        self._process: subprocess.Popen[bytes] | None = None
        self._write_keys()
        self.know()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _write_keys(self) -> None:
        uid, gid = self._owner()
        authorized = self.directory / "authorized_keys"
        authorized.write_bytes((self.directory / "id.pub").read_bytes())
        self.run_directory.mkdir(mode=0o700, exist_ok=True)
        if uid != os.getuid():
            os.chown(self.run_directory, uid, gid)
            for parent in self.directory.parents:
                if str(parent).startswith("/tmp/"):
                    parent.chmod(parent.stat().st_mode | 0o011)
            self.directory.chmod(0o711)
            authorized.chmod(0o644)

    def _owner(self) -> tuple[int, int]:
        entry = pwd.getpwnam(self.user)
        return entry.pw_uid, entry.pw_gid

    def know(self) -> None:
        """The client knows the host's key."""
        public = (self.directory / "host_key.pub").read_text().split()
        name = self.address_there if self.port == 22 else f"[{self.address_there}]:{self.port}"
        self.known_hosts.write_text(f"{name} {public[0]} {public[1]}\n")

    def config(self) -> str:
        """sshd_config.  Where a keyword is given twice the first counts (sshd_config(5)), so the test's own stand first."""
        values = " ".join(f'"{name}={value}"' for name, value in self.environment.items())
        lines = [f"{name} {value}" for name, value in self.options.items()]
        lines += [
            f"Port {self.port}",
            f"ListenAddress {self.address_there}",
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {self.directory}/authorized_keys",
            f"PidFile {self.directory}/pid",
            "PermitRootLogin yes",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "UsePAM no",
            "StrictModes no",
            "UseDNS no",
            "PrintMotd no",
            "MaxStartups 200",
            "LogLevel VERBOSE",
            f"SetEnv {values}",
        ]
        return "\n".join(lines) + "\n"

    def start(self) -> None:
        """Returns when it answers."""
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd locks its unprivileged child in
        path = self.directory / "sshd_config"
        path.write_text(self.config())
        before = self.log.read_bytes().count(b"Server listening on ") if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.before, self._program(), "-D", "-e", "-f", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        listening = b"Server listening on "
        wait_until(
            lambda: self.log.read_bytes().count(listening) > before or self._failed(), "sshd to listen"
        )

    def _program(self) -> str:
        """sshd takes the PAM stack that has the name of its program (sshd before 9.8 knows no PAMServiceName)."""
        if self.pam_service is None:
            return SSHD
        link = self.directory / self.pam_service
        if not link.exists():
            link.symlink_to(SSHD)
        return str(link)

    def _failed(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise AssertionError(f"sshd ended: {self.log.read_text()}")
        return False

    def stop(self) -> None:
        """The server and all its sessions end, as at a shutdown of the host."""
        if self._process is None:
            return
        sessions = (
            psutil.Process(self._process.pid).children(recursive=True)
            if psutil.pid_exists(self._process.pid)
            else []
        )
        self._process.terminate()
        self._process.wait()
        self._process = None
        for session in sessions:
            with contextlib.suppress(psutil.Error):
                if session.name().startswith(("sshd", (self.pam_service or "sshd")[:15])):  # proc_pid_comm(5)
                    session.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    @property
    def address(self) -> str:
        return f"ssh://{self.user}@{self.address_there}:{self.port}"

    def write_client_config(self, *lines: str, **more: str) -> Path:
        """An ssh_config with which the login works; ``lines`` stand before it, and so overrule it."""
        kept = [
            *lines,
            "Host *",
            *(f"{name} {value}" for name, value in more.items()),
            f"IdentityFile {self.key}",
            "IdentitiesOnly yes",
            "IdentityAgent none",
            f"UserKnownHostsFile {self.known_hosts}",
            "GlobalKnownHostsFile none",
            "StrictHostKeyChecking yes",
        ]
        self.client_config.write_text("\n".join(kept) + "\n")
        return self.client_config

    def place(self) -> Place:
        """As the routes see it, with the ssh_config that was written (or the plain one)."""
        if not self.client_config.exists():
            self.write_client_config()
        return Place(self.address_there, self.user, self.port, str(self.client_config))

    def logins(self) -> int:
        """How many connections have logged in since it was first started."""
        return len(re.findall(r"^Accepted \S+ for ", self.log.read_text(), re.MULTILINE))

    def agents(self) -> list[int]:
        """Agents at the far end."""
        return far_agents(self.run_directory)


def far_environment(run_directory: Path, user: str) -> dict[str, str]:
    """What sessions get, so that whatever is started there can be told by it."""
    entry = pwd.getpwnam(user)
    if entry.pw_uid != os.getuid():
        marker = {name: os.environ[name] for name in ("FARKERNEL_TEST",) if name in os.environ}
        return {**marker, "FARKERNEL_RUN_DIR": str(run_directory), "FARKERNEL_AGENT_IDLE": "0.5"}
    names = ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "FARKERNEL_TEST")
    found = {name: os.environ[name] for name in names if name in os.environ}
    return {
        **found,
        "HOME": os.environ["HOME"],
        "FARKERNEL_RUN_DIR": str(run_directory),
        "FARKERNEL_AGENT_IDLE": "0.5",
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
    }


def far_agents(run_directory: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if "serve" in command and any(str(run_directory) in part for part in command):
                found.append(process.pid)
    return sorted(found)


@contextlib.contextmanager
def ssh_agent(directory: Path, *keys: Path) -> Iterator[str]:
    """A running SSH agent with these keys; gives its socket."""
    path = directory / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        wait_until(path.exists, "the SSH agent")
        for key in keys:
            environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}
            subprocess.run(["ssh-add", "-q", str(key)], check=True, env=environment, capture_output=True)
        yield str(path)
    finally:
        process.terminate()
        process.wait()
