"""Main memory and swap; the limit that a control group sets comes before what the machine has."""

from typing import Any, Dict, Iterator, Optional

from . import cgroups
from .files import number, pairs, read

Found = Dict[str, Any]


def look(root: str) -> Iterator[Found]:
    limits = cgroups.limits(root)
    found = meminfo(read(root, "proc/meminfo"))
    found["memory"].update(limit=limits["memory"], limit_used=limits["memory_used"])
    yield found


def meminfo(text: str) -> Found:
    """proc_meminfo(5), in bytes.  MemAvailable came with Linux 3.14."""
    lines = pairs(text, ":")
    total, available = _bytes(lines.get("MemTotal")), _bytes(lines.get("MemAvailable"))
    if available is None:
        parts = [_bytes(lines.get(name)) for name in ("MemFree", "Buffers", "Cached")]
        available = sum(part or 0 for part in parts) if parts[0] is not None else None
    return {
        "memory": {"total": total, "available": available},
        "swap": {"total": _bytes(lines.get("SwapTotal")), "free": _bytes(lines.get("SwapFree"))},
    }


def _bytes(value: Optional[str]) -> Optional[int]:
    words = (value or "").split()
    size = number(words[0]) if words else None
    if size is None or size < 0:
        return None
    return size * (1024 if words[1:] == ["kB"] else 1)
