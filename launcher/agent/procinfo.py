"""What /proc and the cgroup file systems say about processes (proc(5), cgroups(7))."""

import os
from typing import Dict, List, NamedTuple, Optional, Tuple

PROC = "/proc"
_UNLIMITED = 1 << 60  # v1 writes "no limit" as the largest multiple of a page

Stat = NamedTuple(
    "Stat", [("pid", int), ("state", str), ("session", int), ("cpu", float), ("start", int), ("memory", int)]
)
Usage = NamedTuple("Usage", [("memory", int), ("cpu", float), ("processes", int)])


def stat(pid: int) -> Optional[Stat]:
    """None: there is no such process."""
    try:
        with open("%s/%d/stat" % (PROC, pid), "rb") as stream:
            content = stream.read()
    except OSError:
        return None
    # The command's name, in brackets, may hold spaces and brackets.
    fields = content[content.rindex(b")") + 2 :].split()
    cpu = (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))
    memory = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    return Stat(pid, fields[0].decode("ascii"), int(fields[3]), cpu, int(fields[19]), memory)


def start_of(pid: int) -> int:
    """When it started, in ticks since boot; with the pid it names a process for good.  0: it is not there."""
    seen = stat(pid)
    return seen.start if seen is not None else 0


def is_alive(pid: int, start: int) -> bool:
    seen = stat(pid)
    return seen is not None and seen.start == start and seen.state not in "ZX"


def ignores(pid: int, signum: int) -> bool:
    """False also where it cannot be known."""
    try:
        with open("%s/%d/status" % (PROC, pid), "rb") as stream:
            content = stream.read()
    except OSError:
        return False
    mask = content.partition(b"\nSigIgn:")[2].split(None, 1)[:1]
    return bool(mask) and bool(int(mask[0], 16) >> (signum - 1) & 1)


def sessions() -> Dict[int, List[Stat]]:
    """All processes by their session: a kernel and what it started share one."""
    found: Dict[int, List[Stat]] = {}
    for name in os.listdir(PROC):
        if name.isdigit():
            seen = stat(int(name))
            if seen is not None:
                found.setdefault(seen.session, []).append(seen)
    return found


def usage(processes: List[Stat]) -> Usage:
    return Usage(sum(one.memory for one in processes), sum(one.cpu for one in processes), len(processes))


class MemoryGroup(object):
    """The memory cgroup of a process: its limit, its peak, and how often the kernel killed for want of memory."""

    def __init__(self, directory: str, unified: bool) -> None:
        self.directory = directory
        self.is_unified = unified

    def oom_kills(self) -> int:
        name = "memory.events" if self.is_unified else "memory.oom_control"
        for line in self._read(name).splitlines():
            words = line.split()
            if len(words) == 2 and words[0] == "oom_kill":
                return int(words[1])
        return 0

    def limit(self) -> Optional[int]:
        """The smallest limit from here upwards: the one that hit may be that of the job, and not of its step."""
        name = "memory.max" if self.is_unified else "memory.limit_in_bytes"
        limits = []
        directory = self.directory
        while True:
            value = self._number(os.path.join(directory, name))
            if value is not None and value < _UNLIMITED:
                limits.append(value)
            parent = os.path.dirname(directory)
            if parent == directory or not os.path.exists(os.path.join(parent, "cgroup.procs")):
                return min(limits) if limits else None
            directory = parent

    def peak(self) -> Optional[int]:
        name = "memory.peak" if self.is_unified else "memory.max_usage_in_bytes"
        return self._number(os.path.join(self.directory, name))

    def _read(self, name: str) -> str:
        try:
            with open(os.path.join(self.directory, name)) as stream:
                return stream.read()
        except OSError:
            return ""

    def _number(self, path: str) -> Optional[int]:
        text = self._read(path).strip()
        return int(text) if text.isdigit() else None


def memory_group(pid: int) -> Optional[MemoryGroup]:
    """None where memory is not accounted for by cgroup, or where we cannot see it."""
    try:
        with open("%s/%d/cgroup" % (PROC, pid)) as stream:
            lines = stream.read().splitlines()
        mounts = _mounts()
    except OSError:
        return None
    unified: Optional[str] = None
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(",") and "memory" in mounts:
            return _group(mounts["memory"], path, False)
        if number == "0" and not controllers:
            unified = path
    if unified is not None and "" in mounts:
        group = _group(mounts[""], unified, True)
        if os.path.exists(os.path.join(group.directory, "memory.events")):
            return group
    return None


def _group(mount: Tuple[str, str], path: str, unified: bool) -> MemoryGroup:
    root, point = mount
    # In a container the mount shows only a part of the tree, and the path may be told from the real root.
    if root != "/" and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    return MemoryGroup(os.path.join(point, path.lstrip("/")).rstrip("/"), unified)


def _mounts() -> Dict[str, Tuple[str, str]]:
    """ "memory" (v1) and "" (v2) → (root of the mount, mount point)."""
    found: Dict[str, Tuple[str, str]] = {}
    with open(PROC + "/self/mountinfo") as stream:
        for line in stream:
            before, _, after = line.partition(" - ")
            fields, kind = before.split(), after.split()
            if kind[0] == "cgroup2":
                found[""] = (fields[3], fields[4])
            elif kind[0] == "cgroup" and "memory" in kind[-1].split(","):
                found["memory"] = (fields[3], fields[4])
    return found
