"""File systems that hold data: size, what is free, and this user's quota."""

import os
import re
import subprocess
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence

from .files import number, read

Found = Dict[str, Any]
Mount = NamedTuple(
    "Mount", [("point", str), ("kind", str), ("device", str), ("number", str), ("writable", bool)]
)
_MOST = 64
_NETWORK = (
    "nfs",
    "cifs",
    "smb",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "fuse",
    "afs",
    "9p",
    "panfs",
    "pvfs",
    "orangefs",
)
_DATA = (
    "ext",
    "xfs",
    "btrfs",
    "zfs",
    "f2fs",
    "jfs",
    "reiserfs",
    "bcachefs",
    "vfat",
    "exfat",
    "ntfs",
    "overlay",
)
#: Where the system keeps itself; nobody's data belongs there.
_APART = ("/boot", "/snap/", "/var/lib/docker/", "/var/lib/containers/", "/run/", "/etc/")
_OF_INTEREST = ("HOME", "TMPDIR", "SCRATCH", "WORK")


def look(root: str, environment: Dict[str, str]) -> Iterator[Found]:
    """One by one, those in this machine first: what hangs is a server somewhere."""
    mounts = mount_points(read(root, "proc/self/mountinfo"))
    chosen = choose(mounts, [environment[name] for name in _OF_INTEREST if environment.get(name)])
    chosen.sort(key=lambda mount: is_network(mount.kind))
    for mount in chosen[:_MOST]:
        yield {"at": mount.point}
        try:
            space = os.statvfs(mount.point)
        except OSError:
            continue
        block = space.f_frsize
        found = {
            "path": mount.point,
            "device": mount.device,
            "type": mount.kind,
            "network": is_network(mount.kind),
            "writable": mount.writable,
            "total": space.f_blocks * block,
            "free": space.f_bavail * block,
            "used": (space.f_blocks - space.f_bfree) * block,
        }
        if found["total"]:
            yield {"disks": [found]}
    yield {"at": "quota"}
    yield {"quotas": quotas()}


def mount_points(mountinfo: str) -> List[Mount]:
    """proc_pid_mountinfo(5); of several mounts on one point the last is the one that is seen."""
    found: Dict[str, Mount] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) >= 6 and len(kind) >= 2:
            point = unescape(fields[4])
            found[point] = Mount(point, kind[0], unescape(kind[1]), fields[2], "rw" in fields[5].split(","))
    return list(found.values())


def unescape(text: str) -> str:
    """The system writes blanks and the like as three octal digits."""
    raw = re.sub(rb"\\([0-3][0-7]{2})", lambda match: bytes([int(match.group(1), 8)]), os.fsencode(text))
    return raw.decode("utf-8", "replace")


def is_network(kind: str) -> bool:
    return kind.startswith(_NETWORK)


def choose(mounts: Sequence[Mount], wanted: Sequence[str]) -> List[Mount]:
    """Each file system once, by its shortest path, and what holds a place that the user works in."""
    held = {point for point in (holder(path, mounts) for path in wanted) if point is not None}
    found: Dict[str, Mount] = {}
    for mount in sorted(mounts, key=lambda mount: (len(mount.point), mount.point)):
        holds_data = (mount.kind.startswith(_DATA) or is_network(mount.kind)) and not mount.point.startswith(
            _APART
        )
        if (holds_data and mount.kind != "fuse.portal") or mount.point in held:
            found.setdefault(mount.number, mount)
    return list(found.values())


def holder(path: str, mounts: Sequence[Mount]) -> Optional[str]:
    """The mount point that a path lies below."""
    points = [mount.point for mount in mounts if (path + "/").startswith(mount.point.rstrip("/") + "/")]
    return max(points, key=len) if points else None


def quotas() -> List[Found]:
    """What quota(1) says of this user; it knows local file systems and asks the servers of others."""
    try:
        done = subprocess.Popen(
            ["quota", "-w", "-p", "--show-mntpoint", "--hide-device"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(os.environ, LC_ALL="C"),
        )
    except OSError:
        return []
    return parse_quotas(done.communicate()[0].decode("utf-8", "replace"))


def parse_quotas(text: str) -> List[Found]:
    """ "/home 1234* 1000 2000 0 …": blocks of 1 KiB used, quota and limit; an asterisk where it is exceeded."""
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*(/\S*)\s+(\d+)(\*?)\s+(\d+)\s+(\d+)(?:\s|$)", line)
        if match is None:
            continue
        used, quota, limit = (number(match.group(group)) or 0 for group in (2, 4, 5))
        if quota or limit:
            found.append(
                {
                    "path": match.group(1),
                    "used": used * 1024,
                    "quota": quota * 1024 or None,
                    "limit": limit * 1024 or None,
                    "exceeded": bool(match.group(3)),
                }
            )
    return found
