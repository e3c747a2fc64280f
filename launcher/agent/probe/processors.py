"""CPUs: what they are, how many of them this user may use, and how busy they are."""

from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

from . import cgroups
from .files import number, pairs, read

Found = Dict[str, Any]
Times = Tuple[int, int]  # idle and all, in ticks since boot
#: Arm names its cores by numbers (MIDR_EL1); these are the ones of boards and servers that people have.
_ARM = {
    0xB76: "ARM1176",
    0xC07: "Cortex-A7",
    0xC08: "Cortex-A8",
    0xC09: "Cortex-A9",
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD40: "Neoverse-V1",
    0xD42: "Cortex-A78AE",
    0xD49: "Neoverse-N2",
    0xD4F: "Neoverse-V2",
}


def look(root: str) -> Iterator[Found]:
    limits = cgroups.limits(root)
    found = describe(read(root, "proc/cpuinfo"))
    found.update(
        usable=count(pairs(read(root, "proc/self/status"), ":").get("Cpus_allowed_list", "")),
        limit=limits["cpus"],
        online=count(read(root, "sys/devices/system/cpu/online")),
        frequency=frequency(root),
    )
    found["threads"] = found["online"] or found["threads"]
    del found["online"]
    yield {"cpu": found}


def describe(cpuinfo: str) -> Found:
    """Model, sockets, cores and threads, as far as this architecture's /proc/cpuinfo says."""
    blocks = [pairs(block, ":") for block in cpuinfo.split("\n\n")]
    threads = [block for block in blocks if number(block.get("processor", "")) is not None]
    cores: Set[Tuple[str, str]] = set()
    for block in threads:
        if "core id" in block:
            cores.add((block.get("physical id", "0"), block["core id"]))
    sockets = len({socket for socket, _ in cores})
    return {
        "model": model(blocks),
        "sockets": sockets or None,
        "cores": len(cores) or None,
        "threads": len(threads) or None,
    }


def model(blocks: List[Dict[str, str]]) -> Optional[str]:
    parts = []
    for block in blocks:
        part = number(block.get("CPU part", ""))
        if part is not None:
            parts.append(_ARM.get(part, "Arm 0x%x" % part))
    if parts:
        # "ARMv7 Processor rev 4", which 32-bit kernels say besides, names no core.  Several: big and little ones.
        return ", ".join(sorted(set(parts)))
    for key in ("model name", "cpu model", "cpu", "Processor", "uarch"):
        for block in blocks:
            if block.get(key):
                return " ".join(block[key].split())
    return None


def count(ranges: str) -> Optional[int]:
    """How many CPUs "0-3,8" names."""
    found = 0
    for part in ranges.split(","):
        first, mark, last = part.strip().partition("-")
        lowest, highest = number(first), number(last if mark else first)
        if lowest is None or highest is None or not 0 <= lowest <= highest:
            return None
        found += highest - lowest + 1
    return found


def frequency(root: str) -> Optional[float]:
    """The highest, in MHz."""
    highest = number(read(root, "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"))
    return highest / 1000.0 if highest else None


def times(stat: str) -> Optional[Times]:
    """The first line of /proc/stat (proc_stat(5)); guest time is in user time already."""
    words = stat.partition("\n")[0].split()
    numbers = [value for value in map(number, words[1:9]) if value is not None]
    if words[:1] != ["cpu"] or len(numbers) < 4:
        return None
    return sum(numbers[3:5]), sum(numbers)


def use(before: Optional[Times], after: Optional[Times]) -> Optional[float]:
    """The busy part of the time between, 0 to 1."""
    if before is None or after is None or after[1] <= before[1]:
        return None
    idle = (after[0] - before[0]) / float(after[1] - before[1])
    return round(min(max(1.0 - idle, 0.0), 1.0), 4)


def times_now(root: str) -> Optional[Times]:
    return times(read(root, "proc/stat"))
