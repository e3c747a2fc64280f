"""Another SSH server than OpenSSH's: dropbear, as small machines have it.  It knows no SetEnv."""

from __future__ import annotations

import subprocess
from pathlib import Path

from farkernel.backends.ssh_config import Place

from .accounts import Account, own
from .engine import wait_until
from .ssh import free_port, make_key


class Dropbear:
    """A server for one account.  Use it as a context manager."""

    def __init__(self, directory: Path, account: Account, program: str | Path = "dropbear") -> None:
        directory.mkdir()
        self.account = account
        self._program = program
        self.port = free_port()
        self.log = directory / "log"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        key = make_key(directory / "id")
        place = account.home / ".ssh"
        place.mkdir(mode=0o700)
        (place / "authorized_keys").write_bytes((directory / "id.pub").read_bytes())
        own(place, account)
        made = subprocess.run(
            ["dropbearkey", "-t", "ed25519", "-f", str(directory / "host_key")],
            capture_output=True,
            text=True,
            check=True,
        )
        public = next(line for line in made.stdout.splitlines() if line.startswith("ssh-ed25519 "))
        known = directory / "known_hosts"
        known.write_text(f"[127.0.0.1]:{self.port} {' '.join(public.split()[:2])}\n")
        self.config = directory / "ssh_config"
        self.config.write_text(
            f"IdentityFile {key}\nIdentitiesOnly yes\nIdentityAgent none\nUserKnownHostsFile {known}\n"
            "GlobalKnownHostsFile none\nStrictHostKeyChecking yes\n"
        )

    def __enter__(self) -> Dropbear:
        command = [
            str(self._program),
            "-F",
            "-E",
            "-r",
            str(self._directory / "host_key"),
            "-p",
            f"127.0.0.1:{self.port}",
        ]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "-P", str(self._directory / "pid")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until((self._directory / "pid").exists, "dropbear to listen")
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def place(self) -> Place:
        return Place("127.0.0.1", self.account.name, self.port, str(self.config))

    def logins(self) -> int:
        return self.log.read_text().count("auth succeeded")
