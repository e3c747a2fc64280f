"""Which GPUs a kernel could have, leases apart: idle ones that are large enough; of the others, why not."""

from typing import Any, Dict, List, Optional

#: Cards have a little less memory than they are sold by: a T4 "with 16 GB" 14.75 GiB.
FITS = 0.92
#: A driver takes some memory for itself, and a desktop too; what is used beyond that is somebody's.
_OWN_MEMORY, _OWN_PART = 1 << 30, 0.05
GIB = float(1 << 30)
#: Of each GPU what kernels, `ps` and the next life need to know.
FACTS = ("uuid", "name", "vendor", "kind", "index", "slot")

Gpu = Dict[str, Any]


def choose(gpus: List[Gpu], asked: Dict[str, Any]) -> Dict[str, Any]:
    """``asked``: count, memory (bytes of each), visible (as in CUDA_VISIBLE_DEVICES, or null), former (UUIDs).

    ``free``: the best first; ``reasons``: sentences.
    """
    free: List[Gpu] = []
    reasons: List[str] = []
    for gpu in gpus:
        if gpu.get("uuid") and not is_allowed(gpu, asked.get("visible")):
            continue
        reason = why_not(gpu, int(asked["count"]), int(asked["memory"]))
        if reason is None:
            free.append(gpu)
        else:
            reasons.append("%s: %s" % (label(gpu), reason))
    chosen = in_order(free, list(asked.get("former") or []))
    return {
        "free": [dict(facts(gpu), label=label(gpu)) for gpu in chosen],
        "reasons": reasons,
    }


def facts(gpu: Gpu) -> Gpu:
    return {name: gpu.get(name) for name in FACTS}


def why_not(gpu: Gpu, count: int, memory: int) -> Optional[str]:
    """What speaks against it; None: it is idle and large enough."""
    if not gpu.get("uuid"):
        return str(gpu.get("problem") or "it has no UUID by which it could be leased")
    if gpu.get("problem") and not gpu.get("memory_total"):
        return str(gpu["problem"])
    if gpu.get("mig"):
        return "parted by MIG"
    if gpu.get("kind") == "mig" and count > 1:
        return "a MIG instance, of which a program can use one only"
    if gpu.get("compute_mode") == "prohibited":
        return "its compute mode prohibits programs"
    total, used = gpu.get("memory_total"), gpu.get("memory_used")
    if memory and (not total or total < memory * FITS):
        return "it has %.3g GiB" % (total / GIB) if total else "its memory is not known"
    if gpu.get("processes"):
        return "in use by %s" % ", ".join(map(_who, gpu["processes"][:3]))
    if used is not None and total and used > max(_OWN_MEMORY, total * _OWN_PART):
        return "in use (%.1f of %.1f GiB)" % (used / GIB, total / GIB)
    return None


def _who(process: Dict[str, Any]) -> str:
    inside = "%s, pid %s" % (process.get("name") or "a process", process.get("pid"))
    return "%s (%s)" % (process.get("user") or "somebody", inside)


def in_order(gpus: List[Gpu], former: List[str]) -> List[Gpu]:
    """The former one first; then the smallest, so that large ones stay for those who need them."""
    return sorted(
        gpus,
        key=lambda gpu: (
            gpu["uuid"] not in former,
            gpu.get("memory_total") or 0,
            gpu.get("use") or 0.0,
            gpu.get("index") or 0,
            gpu.get("slot") or 0,
        ),
    )


def is_allowed(gpu: Gpu, visible: Optional[str]) -> bool:
    """As the CUDA programming guide has CUDA_VISIBLE_DEVICES: numbers, or beginnings of UUIDs; after -1 nothing."""
    if visible is None or gpu.get("vendor") != "nvidia":
        return True
    for word in visible.split(","):
        word = word.strip()
        if word == "-1" or not word:
            return False
        if gpu["uuid"].startswith(word) or (gpu.get("parent") or "").startswith(word):
            return True
        if word == str(gpu.get("index")):
            return True
    return False


def label(gpu: Gpu) -> str:
    number = "" if gpu.get("index") is None else " %s" % gpu["index"]
    kind = "MIG%s.%s" % (number, gpu.get("slot")) if gpu.get("kind") == "mig" else "GPU" + number
    return "%s (%s)" % (kind, gpu["name"]) if gpu.get("name") else kind
