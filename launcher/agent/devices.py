"""GPUs for kernels where no scheduler gives them out: the probe says which are idle, and they are leased here."""

import os
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

from .leases import Leases
from .problems import BadRequest, Problem

_MOST_SHOWN = 8
OPENCL = ("any", "gpu", "cpu", "accelerator", "custom")

Gpu = Dict[str, Any]


class Wanted(NamedTuple):
    """``opencl``: one device that OpenCL knows, of that kind ("any": of any); else so many GPUs."""

    gpus: int
    memory: int
    opencl: Optional[str] = None

    def __str__(self) -> str:
        what = "%d GPU%s" % (self.gpus, "s" * (self.gpus > 1))
        if self.opencl:
            what = "an OpenCL device" + (" (%s)" % self.opencl if self.opencl != "any" else "")
        if self.memory:
            what += " with %.3g GiB" % (self.memory / float(1 << 30))
        return what


class NoGpu(Problem):
    kind = "no-gpu"

    def __init__(self, wanted: Wanted, reasons: List[str], missing: List[str]) -> None:
        if not reasons:
            said = "there is no %s that could be leased" % ("such device" if wanted.opencl else "GPU")
            advice = "See what is there: farkernel resources"
        else:
            said = "; ".join(reasons[:_MOST_SHOWN])
            if len(reasons) > _MOST_SHOWN:
                said += "; and %d more" % (len(reasons) - _MOST_SHOWN)
            advice = "Wait until one is free (farkernel resources shows it), end a kernel of yours, or ask for less"
        if missing:
            said += " (%s)" % "; ".join(missing)
        super().__init__("%s cannot be had there: %s" % (wanted, said), advice)


def wanted_of(request: Mapping[str, Any]) -> Optional[Wanted]:
    """``devices`` of a `start`: {"gpus", "gpu_memory", "opencl"}; None: no device is asked for."""
    devices = request.get("devices")
    if not devices:
        return None
    count, memory = int(devices.get("gpus") or 0), int(devices.get("gpu_memory") or 0)
    if count < 0 or memory < 0:
        raise BadRequest("less than no GPU cannot be had")
    opencl = devices.get("opencl")
    if opencl is not None and (opencl not in OPENCL or count > 1):
        raise BadRequest("one OpenCL device at a time: %s" % ", ".join(OPENCL))
    return Wanted(count or 1, memory, opencl)


# -- leasing -------------------------------------------------------------------------------------------------


class Chosen(object):
    """GPUs that are leased, and the descriptors that hold the leases."""

    def __init__(self, gpus: List[Gpu], descriptors: List[int]) -> None:
        self.gpus = gpus
        self.descriptors = descriptors

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []


def lease(machine: Mapping[str, Any], wanted: Wanted, leases: Leases, about: Dict[str, Any]) -> Chosen:
    """Of those that are free the first that nobody has leased.  Raises `NoGpu`, with all reasons, and `NoLeases`."""
    reasons = [str(reason) for reason in machine["choice"]["reasons"]]
    missing = ["%s: %s" % (one["part"], one["what"]) for one in machine["problems"]]
    descriptors = [leases.open()]
    taken: List[Gpu] = []
    try:
        for gpu in machine["choice"]["free"]:
            if len(taken) == wanted.gpus:
                break
            if gpu.get("shared"):
                taken.append(gpu)
                continue
            descriptor = leases.take(str(gpu["uuid"]), about)
            if descriptor is None:
                reasons.append("%s: %s" % (gpu["label"], leased_by(leases.holder(gpu["uuid"], True) or {})))
            else:
                descriptors.append(descriptor)
                taken.append(gpu)
        if len(taken) < wanted.gpus:
            raise NoGpu(
                wanted,
                reasons + ["%s: free, but that is not enough" % gpu["label"] for gpu in taken],
                missing,
            )
    except Problem:
        Chosen([], descriptors).close()
        raise
    return Chosen(taken, descriptors)


def leased_by(holder: Mapping[str, Any]) -> str:
    """What `Leases.holder` said, as words: it was written by another user."""
    who = "you" if holder.get("mine") else str(holder.get("user") or "somebody")
    words = "leased by " + who
    since, kernel = holder.get("since"), holder.get("kernel")
    if isinstance(kernel, str):
        words += " for the kernel " + "".join(c for c in kernel[:8] if c.isalnum() or c in "-_")
    if isinstance(since, (int, float)) and 0 < since < 1e11:
        words += time.strftime(" since %b %d %H:%M", time.localtime(since))
    return words


def variables(gpus: List[Gpu]) -> Dict[str, str]:
    """What makes the kernel, and all that it starts, see its own GPUs and no others.

    NVIDIA's and AMD's implementations of OpenCL obey the same variables; for the others there is none but pyopencl's.
    """
    nvidia = [gpu["uuid"] for gpu in gpus if gpu.get("vendor") == "nvidia"]
    amd = [gpu["uuid"] for gpu in gpus if gpu.get("vendor") == "amd"]
    found: Dict[str, str] = {}
    if gpus:
        # By the other vendor nothing was leased.
        found = {"CUDA_VISIBLE_DEVICES": ",".join(nvidia), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        if amd:
            found["ROCR_VISIBLE_DEVICES"] = ",".join(amd)
        if gpus[0].get("opencl"):
            found["PYOPENCL_CTX"] = gpus[0]["opencl"]
    return found
