"""Which SSH client reaches a host: as the configuration says, else by what ssh_config asks for."""

from __future__ import annotations

import asyncio
import glob
import importlib.util
import os
import shutil
from collections.abc import Mapping

from .ssh_config import HostSettings


async def choose_client(wanted: str, settings: HostSettings, environment: Mapping[str, str]) -> str:
    """``asyncssh``, ``program`` or ``paramiko``."""
    if wanted != "auto":
        return wanted
    if shutil.which("ssh") is None:
        return "asyncssh"
    return "program" if await asyncio.to_thread(needs_program, settings, environment) else "asyncssh"


def needs_program(settings: HostSettings, environment: Mapping[str, str]) -> str | None:
    """Why only the ssh program will do; None: asyncssh does as well, and is faster."""
    if settings.control_path is not None and os.path.exists(settings.control_path):
        return "a connection of the user's is open already (ControlPath)"
    hop: HostSettings | None = settings
    while hop is not None:
        from .ssh_asyncssh import lacks

        missing = lacks(hop) or _lacks_module(hop, environment)
        if missing is not None:
            return f"ssh_config uses {missing} for {hop.host}"
        hop = hop.via
    return None


def _lacks_module(settings: HostSettings, environment: Mapping[str, str]) -> str | None:
    """Kerberos and security keys need packages beside asyncssh, and matter only where there is a ticket or a key."""
    if settings.gssapi and importlib.util.find_spec("gssapi") is None and _has_ticket(environment):
        return "GSSAPIAuthentication"
    if importlib.util.find_spec("fido2") is None:
        for path in settings.identity_files:
            if path.endswith("_sk") and os.path.exists(path):
                return f"IdentityFile {path}"
    return None


def _has_ticket(environment: Mapping[str, str]) -> bool:
    named = environment.get("KRB5CCNAME", "")
    if named and not named.startswith(("FILE:", "/")):
        return True
    if named:
        return os.path.exists(named.removeprefix("FILE:"))
    return bool(glob.glob(f"/tmp/krb5cc_{os.getuid()}*"))
