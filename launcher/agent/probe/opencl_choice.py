"""Which OpenCL device a kernel could have: of the kind that was asked for, idle, and large enough.

One that is a GPU of the probe's list has that GPU's name for leases: who leased the one has the other.
"""

import hashlib
from typing import Any, Dict, Iterator, List, Optional, Tuple

from . import choice

#: What "any" takes first; processors last, because everybody has them.
KINDS = ("gpu", "accelerator", "custom", "cpu")

Found = Dict[str, Any]


def choose(platforms: List[Found], gpus: List[Found], asked: Dict[str, Any]) -> Found:
    """As `choice.choose`; ``asked`` has ``opencl`` too: a kind, or "any".

    Of each one ``opencl`` is what PYOPENCL_CTX wants, and ``shared`` whether it needs no lease.
    """
    free: List[Tuple[int, Found]] = []
    reasons: List[str] = []
    for number, place, platform, device in _numbered(platforms):
        kind = kind_of(device)
        if asked["opencl"] not in ("any", kind):
            continue
        gpu = matching(device, gpus)
        if gpu is not None and not choice.is_allowed(gpu, asked.get("visible")):
            continue
        name = "OpenCL %s" % (device.get("name") or kind)
        reason = _why_not(device, gpu, int(asked["memory"]))
        if reason is not None:
            reasons.append("%s: %s" % (name, reason))
            continue
        found = _described(gpu, device, platform, place)
        # Where a variable leaves a program this one alone, it is the first of those that it sees.
        alone = found["vendor"] in ("nvidia", "amd")
        found.update(label=name, shared=kind == "cpu", opencl="%d:%d" % (number, 0 if alone else place))
        free.append((KINDS.index(kind), found))
    former = list(asked.get("former") or [])
    free.sort(key=lambda one: (one[1]["uuid"] not in former, one[0]))
    return {"free": [found for _, found in free], "reasons": reasons}


def _numbered(platforms: List[Found]) -> Iterator[Tuple[int, int, Found, Found]]:
    """As the kernel's own environment counts them, if that was asked, or else the host."""
    own = [platform for platform in platforms if platform.get("where") != "host"]
    for number, platform in enumerate(own or platforms):
        for place, device in enumerate(platform.get("devices") or []):
            yield number, place, platform, device


def kind_of(device: Found) -> str:
    for kind in KINDS:
        if kind in (device.get("type") or []):
            return kind
    return "custom"


def matching(device: Found, gpus: List[Found]) -> Optional[Found]:
    """The same device as its vendor's library knows it: by what identifies it, or by a name that only one has."""
    whole = [gpu for gpu in gpus if gpu.get("kind") != "mig"]
    for gpu in whole:
        if device.get("uuid") and gpu.get("uuid") == "GPU-" + device["uuid"]:
            return gpu
        if device.get("pci") and _plain(gpu.get("pci")) == device["pci"]:
            return gpu
    if device.get("uuid") or device.get("pci"):
        return None
    alike = [gpu for gpu in whole if gpu.get("name") and gpu["name"] == device.get("name")]
    return alike[0] if len(alike) == 1 else None


def _plain(pci: Optional[str]) -> Optional[str]:
    """NVML writes eight digits for the domain where the system writes four."""
    domain, colon, rest = (pci or "").lower().partition(":")
    return "%s:%s" % (domain[-4:], rest) if colon else None


def _why_not(device: Found, gpu: Optional[Found], memory: int) -> Optional[str]:
    if device.get("available") is False:
        return "it is not available"
    if gpu is not None and gpu.get("uuid"):
        return choice.why_not(gpu, 1, memory)
    total = device.get("memory")
    if memory and (not total or total < memory * choice.FITS):
        return "it has %.3g GiB" % (total / choice.GIB) if total else "its memory is not known"
    return None


def _described(gpu: Optional[Found], device: Found, platform: Found, place: int) -> Found:
    if gpu is not None and gpu.get("uuid"):
        return choice.facts(gpu)
    uuid = "PCI-" + device["pci"] if device.get("pci") else _named(platform, device, place)
    found = dict.fromkeys(choice.FACTS)
    found.update(uuid=uuid, name=device.get("name"), kind="opencl")
    return found


def _named(platform: Found, device: Found, place: int) -> str:
    """A name that every user of this machine gives it."""
    words = [str(device.get("uuid") or "")] + [str(one.get("name")) for one in (platform, device)]
    if not words[0]:
        words.append(str(place))
    return "OpenCL-" + hashlib.sha256("\n".join(words).encode("utf-8", "replace")).hexdigest()[:16]
