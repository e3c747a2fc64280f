"""What the keeper writes down: enough to find its kernels again after it was killed (crash-only, DESIGN §2).

Two places.  Facts (which kernel, where, its keys) are small, 0600, and lie in the user's state directory under this
machine's name, because a home may be shared by many machines.  What is touched with every message (request logs,
positions) lies in the private run directory, which is never on a network file system.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import re
import secrets
from pathlib import Path
from typing import Any

from ..errors import FarkernelError

log = logging.getLogger(__name__)

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


class StoreError(FarkernelError):
    """Something that must be on disk before it is acted on could not be written."""

    kind = "disk"

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"cannot write {path}: {error.strerror or error}",
            "Make room there (or give XDG_STATE_HOME another place), then try again",
        )


class BadName(FarkernelError):
    """A name that would not be safe as a file name."""

    kind = "usage"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name[:80]!r} cannot be a kernel's id",
            "Use letters, digits, dots, dashes and underscores, at most 128",
        )


def checked_name(name: Any) -> str:
    """The name, if it can be used as a file name; raises `BadName`."""
    if not isinstance(name, str) or not _SAFE_NAME.match(name):
        raise BadName(str(name))
    return name


def machine_name() -> str:
    """Names this machine among those that share a home: readable, and distinct for containers with equal host names."""
    identity = ""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with contextlib.suppress(OSError):
            identity = Path(path).read_text(encoding="ascii", errors="replace").strip()
            break
    host = re.sub(r"[^A-Za-z0-9.-]", "-", platform.node() or "machine")[:40]
    return f"{host}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def state_directory() -> Path:
    """Where this user's keepers on this machine remember things."""
    home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(home) / "farkernel" / machine_name()


def write_atomically(path: Path, data: bytes) -> None:
    """Temporary file, fsync, rename; 0600.  Raises `StoreError` and leaves the old content."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb", closefd=True) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise StoreError(path, error) from error


class Store:
    """The keeper's facts about its kernels, and what is remembered between kernels."""

    def __init__(self, directory: Path) -> None:
        self._kernels = directory / "kernels"
        self._infos = directory / "kernel-info"
        self._identity = directory / "identity"
        for each in (directory, self._kernels, self._infos):
            try:
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(each, error) from error
        os.chmod(directory, 0o700)

    @classmethod
    def default(cls, fallback: Path) -> Store:
        """In the user's state directory; where that cannot be written, in ``fallback`` (then a reboot forgets)."""
        try:
            return cls(state_directory())
        except (StoreError, OSError) as error:
            log.warning("%s; what must be remembered goes to %s", error, fallback)
            return cls(fallback)

    def identity(self) -> str:
        """Tells this user's keepers from each other, for agents that several of them ask; the same for every life."""
        try:
            known = self._identity.read_text(encoding="ascii").strip()
            if re.fullmatch("[0-9a-f]{32}", known):
                return known
        except (OSError, ValueError):
            pass
        fresh = secrets.token_hex(16)
        try:
            write_atomically(self._identity, fresh.encode())
        except StoreError as error:
            log.warning("%s; agents will take the next keeper for another one", error)
        return fresh

    def save(self, kernel: str, facts: dict[str, Any]) -> None:
        """Raises `StoreError`."""
        write_atomically(self._path(kernel), json.dumps(facts, indent=1).encode())

    def forget(self, kernel: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(kernel))

    def load(self) -> dict[str, dict[str, Any]]:
        """All kernels written down; a file that cannot be read is said in the log and left alone."""
        found = {}
        for path in sorted(self._kernels.glob("[!.]*.json")):
            try:
                facts = json.loads(path.read_bytes())
                found[str(checked_name(facts["kernel"]))] = facts
            except (OSError, ValueError, KeyError, TypeError, FarkernelError) as error:
                log.error("cannot read %s: %s", path, error)
        return found

    def remember_info(self, entry: str, info: dict[str, Any]) -> None:
        """The kernel_info of a menu entry's kernel, for the next time that it is waited for."""
        name = hashlib.sha256(entry.encode()).hexdigest()[:24]
        path = self._infos / f"{name}.json"
        data = json.dumps(info, sort_keys=True).encode()
        with contextlib.suppress(OSError):
            if path.read_bytes() == data:
                return
        try:
            write_atomically(path, data)
        except StoreError as error:
            log.warning("%s", error)

    def recall_info(self, entry: str) -> dict[str, Any] | None:
        name = hashlib.sha256(entry.encode()).hexdigest()[:24]
        try:
            info = json.loads((self._infos / f"{name}.json").read_bytes())
        except (OSError, ValueError):
            return None
        return info if isinstance(info, dict) else None

    def _path(self, kernel: str) -> Path:
        return self._kernels / f"{checked_name(kernel)}.json"
