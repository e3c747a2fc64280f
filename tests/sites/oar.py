"""A real OAR on a machine of its own: PostgreSQL, server and one node with one core, and jobs of a plain user.

All of it is in a root file system of its own: this machine keeps no database of anybody's.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from .accounts import Account
from .engine import wait_until
from .netns import Network
from .release_machine import ReleaseMachine, root_of

VERSIONS = {"bookworm": "2.5.9"}
_PACKAGES = (
    "procps,iproute2,openssh-client,openssh-server,postgresql,oar-server,oar-server-pgsql,oar-user,oar-user-pgsql,"
    "oar-node,python3-ipykernel"
)
_CONFIGURATION = {
    "DB_BASE_PASSWD": '"oar"',
    "DB_BASE_PASSWD_RO": '"oar_ro"',
    "SERVER_HOSTNAME": '"c1"',
    "SCHEDULER_JOB_SECURITY_TIME": '"2"',
    "SCHEDULER_MIN_TIME_BETWEEN_2_CALLS": '"1"',
    # Processes of a job are not held together by control groups here, which are of another version on many machines.
    "JOB_RESOURCE_MANAGER_PROPERTY_DB_FIELD": None,
}


class OarSite:
    """Started by `start`, ended by `stop`; ``login`` leads into it as that user."""

    def __init__(self, root: Path, network: Network, release: str, user: Account) -> None:
        below = root_of(f"{release}-oar", release, _PACKAGES)
        self._machine = ReleaseMachine(root, network, below, user)
        self._root = root
        self._below = below
        self.login = self._machine.login

    def start(self) -> None:
        self._machine.start()
        run = self._machine.run
        (self._root / "oar.conf").write_text(_changed((self._below / "etc/oar/oar.conf").read_text()))
        run("sh", "-c", f"cat {self._root}/oar.conf >/etc/oar/oar.conf")
        run("install", "-d", "-m", "1777", "/run/postgresql")
        run("pg_ctlcluster", "15", "main", "start")
        run("oar-database", "--create", "--db-is-local")
        run("/etc/init.d/oar-server", "start")
        run("/etc/init.d/oar-node", "start")
        run("oarproperty", "-a", "core")
        run("oarnodesetting", "-a", "-h", "c1", "-p", "core=1")
        wait_until(lambda: "Alive" in run("oarnodes", "-s", check=False), "the node", 60)

    def stop(self) -> None:
        self._machine.stop()

    def command(self, *argv: str, check: bool = True) -> str:
        """As root, who may do all that the oar user may."""
        return self._machine.run(*argv, check=check)

    def as_user(self, *argv: str, check: bool = True) -> str:
        return self._machine.as_user(*argv, check=check)

    def jobs(self, *states: str) -> dict[str, dict[str, Any]]:
        """Id → what oarstat says, of those that have not ended (or are in these states)."""
        said = self.as_user("oarstat", "-J")
        found: dict[str, dict[str, Any]] = json.loads(said or "{}")
        return {number: facts for number, facts in found.items() if not states or facts["state"] in states}


def _changed(text: str) -> str:
    for name, value in _CONFIGURATION.items():
        text = re.sub(f"^#?{name}=.*\n", "", text, flags=re.MULTILINE)
        text += f"{name}={value}\n" if value is not None else ""
    return text
