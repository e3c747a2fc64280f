"""What this process may use at most, by its control groups: version 1, version 2 and both at once (cgroups(7))."""

import os
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from .files import number, read

Mount = NamedTuple("Mount", [("root", str), ("point", str)])
_UNLIMITED = 1 << 60  # version 1 writes "no limit" as the largest multiple of a page


def limits(root: str, pid: str = "self") -> Dict[str, Any]:
    """cpus (a number, may be broken), memory and its use in bytes, cpuset; None: nothing is set."""
    mounts = mount_points(read(root, "proc", pid, "mountinfo"))
    groups = memberships(read(root, "proc", pid, "cgroup"))
    memory, used = _memory(root, mounts, groups)
    return {"cpus": _cpus(root, mounts, groups), "memory": memory, "memory_used": used}


def mount_points(mountinfo: str) -> Dict[str, Mount]:
    """Controller → where it is mounted; "" is version 2 (proc_pid_mountinfo(5))."""
    found: Dict[str, Mount] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2":
            found.setdefault("", Mount(fields[3], fields[4]))
        elif kind[0] == "cgroup":
            for controller in kind[-1].split(","):
                found.setdefault(controller, Mount(fields[3], fields[4]))
    return found


def memberships(text: str) -> Dict[str, str]:
    """Controller → the group that the process is in; "" is version 2."""
    found: Dict[str, str] = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and parts[2].startswith("/"):
            for controller in parts[1].split(","):
                if controller or parts[0] == "0":
                    found.setdefault(controller, parts[2])
    return found


def directories(mounts: Dict[str, Mount], groups: Dict[str, str], controller: str) -> Iterator[str]:
    """The group's directory and those above it, as far as they can be seen here."""
    mount, path = mounts.get(controller), groups.get(controller)
    if mount is None or path is None:
        return
    # In a container the mount shows only a part of the tree, and the path may be told from the real root.
    if mount.root != "/" and (path == mount.root or path.startswith(mount.root + "/")):
        path = path[len(mount.root) :]
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    while True:
        yield os.path.join(mount.point, *parts)
        if not parts:
            return
        parts.pop()


def _cpus(root: str, mounts: Dict[str, Mount], groups: Dict[str, str]) -> Optional[float]:
    found: List[float] = []
    for directory in directories(mounts, groups, "cpu"):
        quota = number(read(root, directory, "cpu.cfs_quota_us"))
        period = number(read(root, directory, "cpu.cfs_period_us"))
        if quota and period and quota > 0 and period > 0:
            found.append(quota / float(period))
    for directory in directories(mounts, groups, ""):
        share = cpu_max(read(root, directory, "cpu.max"))
        if share is not None:
            found.append(share)
    return min(found) if found else None


def cpu_max(text: str) -> Optional[float]:
    """ "200000 100000" is two CPUs, "max 100000" no limit."""
    words = [number(word) for word in text.split()]
    if len(words) != 2 or not words[0] or not words[1] or words[0] < 0 or words[1] < 0:
        return None
    return words[0] / float(words[1])


def _memory(
    root: str, mounts: Dict[str, Mount], groups: Dict[str, str]
) -> Tuple[Optional[int], Optional[int]]:
    """The smallest limit from here upwards, and what is used of it: it may be that of a job, not of its step."""
    found: List[Tuple[int, Optional[int]]] = []
    for controller, names in (
        ("memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")),
        ("", ("memory.max", "memory.current", "inactive_file")),
    ):
        for directory in directories(mounts, groups, controller):
            limit = number(read(root, directory, names[0]))
            if limit is not None and 0 < limit < _UNLIMITED:
                used = number(read(root, directory, names[1]))
                cache = _cache(read(root, directory, "memory.stat"), names[2])
                found.append((limit, None if used is None else max(used - cache, 0)))
    return min(found, key=lambda pair: pair[0]) if found else (None, None)


def _cache(stat: str, name: str) -> int:
    """What can be had back at once is not used."""
    for line in stat.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == name:
            return number(words[1]) or 0
    return 0
