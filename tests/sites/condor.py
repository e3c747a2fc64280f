"""A real HTCondor on a machine of its own: a pool of one, as Debian's minicondor makes it, and jobs of a plain user.

Bookworm has none: the daemons, their commands and the Python of the jobs are those of another release.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .accounts import Account
from .engine import wait_until
from .netns import Network
from .release_machine import ReleaseMachine, root_of

VERSIONS = {"trixie": "23.9.", "forky": "25.14."}
_PACKAGES = "procps,iproute2,openssh-client,openssh-server,minicondor,python3-ipykernel"

# One processor: what comes second waits.
_CONFIGURATION = """\
CONDOR_HOST = 127.0.0.1
NETWORK_INTERFACE = 127.0.0.1
use security:host_based
ALLOW_WRITE = *
ALLOW_READ = *
ALLOW_ADMINISTRATOR = *
NEGOTIATOR_INTERVAL = 2
NEGOTIATOR_CYCLE_DELAY = 1
NEGOTIATOR_MIN_INTERVAL = 1
SCHEDD_INTERVAL = 2
PERIODIC_EXPR_INTERVAL = 2
UPDATE_INTERVAL = 3
NUM_CPUS = 1
MEMORY = 2000
DISCARD_SESSION_KEYRING_ON_STARTUP = False
UID_DOMAIN = farkernel
FILESYSTEM_DOMAIN = farkernel
TRUST_UID_DOMAIN = True
BASE_CGROUP =
"""
_DIRECTORIES = ("/run/condor", "/run/lock/condor", "/var/log/condor")
_SPOOLED = ("/var/lib/condor/spool", "/var/lib/condor/execute")


class CondorSite:
    """Started by `start`, ended by `stop`; ``login`` leads into it as that user."""

    def __init__(self, root: Path, network: Network, release: str, user: Account) -> None:
        below = root_of(f"{release}-condor", release, _PACKAGES)
        self._machine = ReleaseMachine(root, network, below, user)
        self._root = root
        self.login = self._machine.login

    def start(self) -> None:
        self._machine.start()
        run = self._machine.run
        (self._root / "condor_config").write_text(_CONFIGURATION)
        run("cp", str(self._root / "condor_config"), "/etc/condor/config.d/99-test")
        run("mkdir", "-p", *_DIRECTORIES, *_SPOOLED)
        run("chown", "-R", "condor:", *_DIRECTORIES, "/var/lib/condor")
        run("condor_master")
        wait_until(lambda: run("condor_status", "-af", "Name", check=False).strip(), "a slot", 60)
        wait_until(lambda: run("condor_q", check=False).strip(), "the queue", 60)

    def stop(self) -> None:
        self._machine.stop()

    def command(self, *argv: str, check: bool = True) -> str:
        """As root, who is the queue's superuser."""
        return self._machine.run(*argv, check=check)

    def as_user(self, *argv: str, check: bool = True) -> str:
        return self._machine.as_user(*argv, check=check)

    def jobs(self, *states: int) -> dict[str, dict[str, Any]]:
        """Id → some attributes, of what is in the queue (in these states)."""
        said = self.command("condor_q", "-allusers", "-json", "-attributes", "ClusterId,JobStatus,HoldReason")
        found = {str(ad["ClusterId"]): ad for ad in json.loads(said or "[]")}
        return {number: ad for number, ad in found.items() if not states or ad["JobStatus"] in states}
