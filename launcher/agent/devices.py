"""GPUs for kernels where no scheduler gives them out: the probe says which are idle, and they are leased here."""

import os
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

from .leases import Leases
from .problems import BadRequest, Problem

_MOST_SHOWN = 8

Gpu = Dict[str, Any]
Wanted = NamedTuple("Wanted", [("count", int), ("memory", int)])


class NoGpu(Problem):
    kind = "no-gpu"

    def __init__(self, wanted: Wanted, reasons: List[str], missing: List[str]) -> None:
        what = "%d GPU%s" % (wanted.count, "s" * (wanted.count > 1))
        if wanted.memory:
            what += " with %.3g GiB" % (wanted.memory / float(1 << 30))
        if not reasons:
            said = "there is no GPU that could be leased"
            advice = "See what is there: farkernel resources"
        else:
            said = "; ".join(reasons[:_MOST_SHOWN])
            if len(reasons) > _MOST_SHOWN:
                said += "; and %d more" % (len(reasons) - _MOST_SHOWN)
            advice = "Wait until one is free (farkernel resources shows it), end a kernel of yours, or ask for less"
        if missing:
            said += " (%s)" % "; ".join(missing)
        super().__init__("%s cannot be had there: %s" % (what, said), advice)


def wanted_of(request: Mapping[str, Any]) -> Optional[Wanted]:
    """``devices`` of a `start`: {"gpus", "gpu_memory"}; None: no GPU is asked for."""
    devices = request.get("devices")
    if not devices:
        return None
    count, memory = int(devices.get("gpus") or 0), int(devices.get("gpu_memory") or 0)
    if count < 0 or memory < 0:
        raise BadRequest("less than no GPU cannot be had")
    return Wanted(count or 1, memory)


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
            if len(taken) == wanted.count:
                break
            descriptor = leases.take(str(gpu["uuid"]), about)
            if descriptor is None:
                reasons.append("%s: %s" % (gpu["label"], leased_by(leases.holder(gpu["uuid"], True) or {})))
            else:
                descriptors.append(descriptor)
                taken.append(gpu)
        if len(taken) < wanted.count:
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

    OpenCL needs no more: NVIDIA's and AMD's implementations obey the same variables.
    """
    nvidia = [gpu["uuid"] for gpu in gpus if gpu.get("vendor") == "nvidia"]
    amd = [gpu["uuid"] for gpu in gpus if gpu.get("vendor") == "amd"]
    found: Dict[str, str] = {}
    if gpus:
        # By the other vendor nothing was leased.
        found = {"CUDA_VISIBLE_DEVICES": ",".join(nvidia), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        if amd:
            found["ROCR_VISIBLE_DEVICES"] = ",".join(amd)
    return found
