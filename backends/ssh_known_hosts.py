"""known_hosts: whose key is known, and writing down one that was accepted (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).

Read by ourselves, and not by the SSH libraries, so that all of them verify alike, and so that a refusal can name the
file and the line.
"""

from __future__ import annotations

import base64
import binascii
import enum
import fcntl
import fnmatch
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

_LARGEST = 16 * 1024 * 1024


@dataclass(frozen=True)
class HostKey:
    """A public key as it travels: the algorithm's name, and the key in the SSH wire format."""

    kind: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.blob).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def __str__(self) -> str:
        return f"{short_kind(self.kind)} {self.fingerprint}"


def short_kind(kind: str) -> str:
    """As ssh names keys to people: ``ssh-ed25519`` → ``ED25519``."""
    for word in ("ed25519", "ecdsa", "rsa", "dss"):
        if word in kind:
            return {"dss": "DSA"}.get(word, word.upper())
    return kind


@dataclass(frozen=True)
class Entry:
    """One line of a file that speaks of the host that was looked for."""

    key: HostKey
    marker: str  # "", "@cert-authority" or "@revoked"
    file: str
    line: int


class Verdict(enum.Enum):
    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True)
class Known:
    """All that the files say about one host."""

    entries: tuple[Entry, ...] = ()

    def marked(self, marker: str = "") -> list[HostKey]:
        return [entry.key for entry in self.entries if entry.marker == marker]

    def judge(self, key: HostKey) -> Verdict:
        """About a plain key that the host has shown (certificates are the library's part)."""
        if key in self.marked("@revoked"):
            return Verdict.REVOKED
        if key in self.marked():
            return Verdict.KNOWN
        return Verdict.CHANGED if self.marked() else Verdict.UNKNOWN

    def former(self, key: HostKey) -> Entry | None:
        """The entry that a changed key contradicts: one of the same kind if there is one."""
        plain = [entry for entry in self.entries if not entry.marker]
        same = [entry for entry in plain if entry.key.kind == key.kind]
        return next(iter(same or plain), None)


def find_known(files: Iterable[str], name: str) -> Known:
    """What the files say of a name (``host``, ``[host]:port``, a HostKeyAlias); one that is not there says nothing."""
    found: list[Entry] = []
    for file in files:
        try:
            with open(file, "rb") as stream:
                text = stream.read(_LARGEST)
        except OSError:
            continue
        for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), 1):
            entry = parse_line(line, name, file, number)
            if entry is not None:
                found.append(entry)
    return Known(tuple(found))


def parse_line(line: str, name: str, file: str = "", number: int = 0) -> Entry | None:
    """The entry, if the line speaks of that name; lines that cannot be read are passed over, as ssh does."""
    words = line.split(None, 4)
    marker = words.pop(0) if words and words[0].startswith("@") else ""
    if len(words) < 3 or words[0].startswith("#") or marker not in ("", "@cert-authority", "@revoked"):
        return None
    if not _speaks_of(words[0], name):
        return None
    try:
        blob = base64.b64decode(words[2], validate=True)
    except (binascii.Error, ValueError):
        return None
    return Entry(HostKey(words[1], blob), marker, file, number)


def _speaks_of(patterns: str, name: str) -> bool:
    if patterns.startswith("|"):
        return _hash_matches(patterns, name)
    found = False
    for pattern in patterns.split(","):
        wanted = not pattern.startswith("!")
        # "[" stands for itself here: only * and ? are patterns (ssh_config(5), PATTERNS).
        literal = pattern.lstrip("!").replace("[", "[[]")
        if fnmatch.fnmatchcase(name.lower(), literal.lower()):
            if not wanted:
                return False
            found = True
    return found


def _hash_matches(pattern: str, name: str) -> bool:
    parts = pattern.split("|")
    if len(parts) != 4 or parts[1] != "1":
        return False
    try:
        salt, digest = base64.b64decode(parts[2]), base64.b64decode(parts[3])
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), "sha1").digest(), digest)


def new_line(name: str, key: HostKey, hashed: bool) -> str:
    """The line that says that this name has this key."""
    if hashed:
        salt = secrets.token_bytes(20)
        digest = hmac.new(salt, name.encode(), "sha1").digest()
        name = f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"
    return f"{name} {key.kind} {base64.b64encode(key.blob).decode()}\n"


def remember(files: Sequence[str], name: str, key: HostKey, hashed: bool) -> str:
    """Append to the first file, made with its directory if missing; returns its path.  Raises OSError.

    One write to the end, under a lock: another ssh may append at the same time, and the file may be a link.
    """
    append(files[0], new_line(name, key, hashed))
    return files[0]


def append(file: str, line: str) -> None:
    """With an empty line too, which only ends a last one that has no end yet (ssh itself does not look for that)."""
    path = Path(file)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        complete = size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
        os.write(descriptor, (("" if complete else "\n") + line).encode())
    finally:
        os.close(descriptor)
