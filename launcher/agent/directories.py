"""Whether a directory here is the very one that the notebook lies in, on a file system that both machines have.

The same path may be there and be another directory.  Nothing is written to find out: a file system that is shared
shows the same inode numbers and the same times of change at both ends, which no copy has: nobody can set them.
What changed within the last minutes is not compared, because a network file system's client may not know it yet.
"""

import os
import time
from typing import Any, Dict, List, NamedTuple, Optional

_SETTLED = 120.0
_MOST = 16  # of the oldest, and of the newest

Evidence = Dict[str, Any]
Chosen = NamedTuple(
    "Chosen",
    [
        ("path", str),
        ("shared", bool),  # it is the notebook's directory
        ("why", str),  # why the notebook's is not taken: missing, other, configured, or configured-missing
    ],
)


def evidence(path: str, now: Optional[float] = None) -> Optional[Evidence]:
    """By what the directory can be known at the other end; None: it cannot be looked at."""
    latest = (time.time() if now is None else now) - _SETTLED
    try:
        own = os.stat(path)
        with os.scandir(path) as entries:
            found = [(entry.stat(follow_symlinks=False).st_ctime_ns, entry.name) for entry in entries]
    except OSError:
        return None
    settled = sorted(pair for pair in found if pair[0] / 1e9 < latest)
    chosen = settled if len(settled) <= 2 * _MOST else settled[:_MOST] + settled[-_MOST:]
    facts: List[Any] = []
    for changed, name in chosen:
        try:
            facts.append([name, os.lstat(os.path.join(path, name)).st_ino, changed])
        except OSError:
            continue  # it went meanwhile
    return {
        "path": path,
        "machine": _machine(),
        "device": own.st_dev,
        "inode": own.st_ino,
        "changed": own.st_ctime_ns,
        "recent": own.st_ctime_ns / 1e9 >= latest,
        "entries": facts,
    }


def is_same(seen: Evidence) -> bool:
    """Whether the directory of that path here is the one that was seen at the other end.

    Everything that has settled must agree, and there must be something that does.
    """
    path = str(seen["path"])
    try:
        own = os.stat(path)
        if own.st_ino != seen["inode"]:
            return False
        if seen["machine"] and [_machine(), own.st_dev] == [seen["machine"], seen["device"]]:
            return True
        agreed = 0
        for name, inode, changed in seen["entries"]:
            if os.path.basename(str(name)) != name:
                return False
            entry = os.lstat(os.path.join(path, name))
            if entry.st_ino != inode or not _same_time(entry.st_ctime_ns, int(changed)):
                return False
            agreed += 1
        same = _same_time(own.st_ctime_ns, int(seen["changed"]))
        recent = seen["recent"] or own.st_ctime_ns / 1e9 >= time.time() - _SETTLED
        return same or bool(recent and agreed)
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _machine() -> str:
    """The same for all that runs between two starts of one system; empty where the system does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            return stream.read().strip()
    except (OSError, ValueError):
        return ""


def _same_time(one: int, other: int) -> bool:
    """Some file systems and protocols keep whole seconds or microseconds only."""
    for unit in (10**9, 1000):
        if one % unit == 0 or other % unit == 0:
            return one // unit == other // unit
    return one == other


def choose(configured: Any, notebook: Any) -> Chosen:
    """The kernel's working directory: the configured one, or the notebook's if it is this one, or the home."""
    home = os.path.expanduser("~")
    near = str(notebook.get("path") or "") if isinstance(notebook, dict) else ""
    if configured:
        path = os.path.join(home, os.path.expanduser(str(configured)))
        if not _usable(path):
            return Chosen(_home(home), False, "configured-missing")
        shared = bool(near) and os.path.realpath(path) == os.path.realpath(near) and is_same(notebook)
        return Chosen(path, shared, "" if shared else "configured")
    if not near:
        return Chosen(_home(home), False, "")
    if not _usable(near):
        return Chosen(_home(home), False, "missing")
    if not is_same(notebook):
        return Chosen(_home(home), False, "other")
    return Chosen(near, True, "")


def _home(home: str) -> str:
    return home if _usable(home) else "/"


def _usable(path: str) -> bool:
    return os.path.isdir(path) and os.access(path, os.X_OK)
