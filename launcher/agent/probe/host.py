"""The machine as a whole: its name, system, model, how long it is up, how loaded, and who is logged in."""

import os
import struct
from typing import Any, Dict, Iterator, List, Optional

from .files import decimal, names, pairs, place, read

Found = Dict[str, Any]
_USER_PROCESS = 7
#: struct utmp of the C library (bits/utmp.h); its times have 64 bits on arm64 and other newer systems.
_UTMP = {
    384: struct.Struct("=h2xi32s4s32s256s2h3i16s20x"),
    400: struct.Struct("=h2xi32s4s32s256s2h3q16s24x"),
}


def look(root: str) -> Iterator[Found]:
    system = os.uname()
    yield {
        "host": {
            "name": system[1],
            "system": system[0],
            "release": system[2],
            "architecture": system[4],
            "distribution": distribution(read(root, "etc/os-release")),
            "model": model(root),
        },
        "uptime": uptime(read(root, "proc/uptime")),
        "load": load(read(root, "proc/loadavg")),
        "users": users(root),
    }


def distribution(text: str) -> Optional[str]:
    """PRETTY_NAME of os-release(5)."""
    found = pairs(text, "=")
    name = found.get("PRETTY_NAME") or found.get("NAME") or ""
    return name.strip("\"'") or None


def model(root: str) -> Optional[str]:
    """What the firmware calls the machine; device trees on boards, DMI on PCs and servers."""
    tree = read(root, "proc/device-tree/model")
    if tree:
        return tree
    vendor, product = (read(root, "sys/class/dmi/id", name) for name in ("sys_vendor", "product_name"))
    return " ".join(part for part in (vendor, product) if part) or None


def uptime(text: str) -> Optional[float]:
    return decimal((text.split() or [""])[0])


def load(text: str) -> List[float]:
    """Over the last 1, 5 and 15 minutes."""
    numbers = [decimal(word) for word in text.split()[:3]]
    return [number for number in numbers if number is not None] if len(numbers) == 3 else []


def users(root: str) -> List[Found]:
    """Who is logged in, and how often: from systemd's sessions, or from utmp where there are none."""
    sessions = logind(root) or utmp(root)
    return [{"name": name, "sessions": sessions.count(name)} for name in sorted(set(sessions))]


def logind(root: str) -> List[str]:
    found = []
    for name in names(root, "run/systemd/sessions"):
        session = pairs(read(root, "run/systemd/sessions", name), "=")
        # Not the managers and greeters, which are classes of their own (sd_session_get_class(3)).
        if session.get("CLASS", "user") == "user" and session.get("STATE") != "closing" and "USER" in session:
            found.append(session["USER"])
    return found


def utmp(root: str) -> List[str]:
    try:
        with open(place(root, "run/utmp"), "rb") as stream:
            return utmp_users(stream.read(1 << 20))
    except OSError:
        return []


def utmp_users(data: bytes) -> List[str]:
    size = 400 if len(data) % 384 and not len(data) % 400 else 384
    record = _UTMP[size]
    found = []
    for start in range(0, len(data) - size + 1, size):
        fields = record.unpack_from(data, start)
        name = fields[4].split(b"\0")[0].decode("utf-8", "replace")
        if fields[0] == _USER_PROCESS and name:
            found.append(name)
    return found
