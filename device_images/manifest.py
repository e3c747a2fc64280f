"""The list of known firmwares: is a file what its name says, all of it?

A file is known by its SHA-256.  One that has a known file's name and other content is a bad copy of it; any other is
unknown, and what can be said of it is what stands in it (`firmware.identify`).
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

from ..launcher.text import one_line
from .errors import BadFirmware, ImageError
from .firmware import read

OURS = Path(__file__).with_name("firmwares.toml")
MANIFEST_LIMIT = 1 << 20


class BadManifest(ImageError):
    kind = "manifest"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            f"the list of firmwares {one_line(path)!r} is wrong: {one_line(reason)}",
            "Correct it; `farkernel image check FILE --entry` prints an entry",
        )


@dataclass(frozen=True)
class KnownFirmware:
    name: str
    board: str
    version: str
    file: str  # its name, with as many folders before it as are needed to know it again
    size: int
    sha256: str
    source: str = ""


class Standing(Enum):
    KNOWN = "known"
    WRONG_SIZE = "wrong-size"
    WRONG_HASH = "wrong-hash"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Verdict:
    standing: Standing
    firmware: KnownFirmware | None  # None: unknown
    size: int
    sha256: str


class NotWhatItSays(BadFirmware):
    """The file has the name of a known firmware, and other content."""

    def __init__(self, path: str, verdict: Verdict) -> None:
        known = verdict.firmware
        assert known is not None
        if verdict.standing is Standing.WRONG_SIZE:
            what = f"has {verdict.size} bytes, and {known.name} {known.version} has {known.size}"
        else:
            what = f"has not the SHA-256 of {known.name} {known.version}: something in it was changed"
        super().__init__(
            f"{one_line(path)!r} {what}",
            f"Get it again ({known.source or 'from where it came from'}), or give it another name if it is another one",
        )


def load(more: Sequence[str | Path] = ()) -> tuple[KnownFirmware, ...]:
    """Ours, and those of further files; raises BadManifest, UnreadableFile."""
    return tuple(entry for path in (OURS, *more) for entry in _load(Path(path)))


def check(path: str | Path, data: bytes, known: Iterable[KnownFirmware]) -> Verdict:
    """Whether the file's content is what its name says, or what another name says."""
    digest = hashlib.sha256(data).hexdigest()
    known = list(known)
    for firmware in known:
        if firmware.sha256 == digest:
            return Verdict(Standing.KNOWN, firmware, len(data), digest)
    for firmware in known:
        if _is_name_of(firmware.file, path):
            standing = Standing.WRONG_HASH if firmware.size == len(data) else Standing.WRONG_SIZE
            return Verdict(standing, firmware, len(data), digest)
    return Verdict(Standing.UNKNOWN, None, len(data), digest)


def refuse_bad_copy(path: str | Path, data: bytes, known: Iterable[KnownFirmware]) -> Verdict:
    """What `check` says, unless it is a bad copy: then NotWhatItSays."""
    verdict = check(path, data, known)
    if verdict.standing in (Standing.WRONG_SIZE, Standing.WRONG_HASH):
        raise NotWhatItSays(str(path), verdict)
    return verdict


def entry(firmware: KnownFirmware) -> str:
    """As it stands in a manifest."""
    lines = ["[[firmware]]"]
    for field in fields(firmware):
        value = getattr(firmware, field.name)
        lines.append(f"{field.name} = {value if isinstance(value, int) else _quoted(value)}")
    return "\n".join(lines)


def _is_name_of(name: str, path: str | Path) -> bool:
    wanted = PurePath(name).parts
    return bool(wanted) and PurePath(path).parts[-len(wanted) :] == wanted


def _quoted(value: str) -> str:
    plain = one_line(value)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _load(path: Path) -> list[KnownFirmware]:
    text = read(path)
    if len(text) > MANIFEST_LIMIT:
        raise BadManifest(str(path), "it has more than 1 MiB")
    try:
        content = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadManifest(str(path), str(error)) from error
    entries = content.get("firmware")
    if set(content) != {"firmware"} or not isinstance(entries, list):
        raise BadManifest(str(path), "it must hold tables [[firmware]], and nothing else")
    return [_entry(path, number, table) for number, table in enumerate(entries, 1)]


def _entry(path: Path, number: int, table: Any) -> KnownFirmware:
    wanted = {field.name: int if field.name == "size" else str for field in fields(KnownFirmware)}
    if not isinstance(table, dict):
        raise BadManifest(str(path), f"entry {number} is not a table")
    for key, value in table.items():
        if key not in wanted:
            raise BadManifest(str(path), f"entry {number} has an unknown key {key!r}")
        if type(value) is not wanted[key]:
            raise BadManifest(
                str(path), f"{key!r} of entry {number} must be of the type {wanted[key].__name__}"
            )
    missing = [key for key in wanted if key not in table and key != "source"]
    if missing:
        raise BadManifest(str(path), f"entry {number} has no {missing[0]!r}")
    if not re.fullmatch(r"[0-9a-f]{64}", table["sha256"]) or table["size"] <= 0:
        raise BadManifest(str(path), f"the sha256 or size of entry {number} cannot be right")
    return KnownFirmware(**table)
