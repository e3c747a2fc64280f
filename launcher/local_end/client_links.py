"""Our own endpoints of one kernel, and the links to them that clients are given.

`cleanup_ipc_files()` of jupyter_client unlinks the sockets at every shutdown *and restart* (DESIGN §4), so clients get
symbolic links, and those are made again at each launch; the sockets themselves stay.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

PORTS = ("shell_port", "iopub_port", "stdin_port", "hb_port", "control_port")


def own_connection(directory: Path, kernel: str, key: str) -> dict[str, Any]:
    """What a front end is told.  The directory's name is short: a socket's path may have 107 bytes."""
    place = directory / "ends" / hashlib.sha256(kernel.encode()).hexdigest()[:12]
    connection: dict[str, Any] = {"transport": "ipc", "ip": str(place / "c")}
    connection.update({port: number for number, port in enumerate(PORTS, 1)})
    return {**connection, "key": key, "signature_scheme": "hmac-sha256"}


def bound_connection(connection: dict[str, Any]) -> dict[str, Any]:
    """What the sockets are bound to, for a connection that `own_connection` made."""
    return {**connection, "ip": str(Path(connection["ip"]).with_name("s"))}


def make_place(connection: dict[str, Any]) -> None:
    """The 0700 directory of the sockets."""
    place = Path(connection["ip"]).parent
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(place, 0o700)


def make_links(connection: dict[str, Any]) -> None:
    """The links that clients connect to; those that are there already are left alone."""
    place = Path(connection["ip"]).parent
    for port in PORTS:
        with contextlib.suppress(FileExistsError):
            os.symlink(f"s-{connection[port]}", place / f"c-{connection[port]}")


def remove_place(connection: dict[str, Any]) -> None:
    """After the kernel's end."""
    shutil.rmtree(Path(connection["ip"]).parent, ignore_errors=True)
