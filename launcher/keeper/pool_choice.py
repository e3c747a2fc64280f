"""Which member of a pool gets a kernel: decided from what is known of all of them, without asking anybody."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..discovery.machine import Gpu, Machine
from ..errors import FarkernelError
from ..settings import Resources
from ..text import one_line

#: A Raspberry Pi slows itself down from 80 degrees on (Raspberry Pi documentation, "Frequency management").
HOT = 80.0
_LEAST_MEMORY = 0.03
_LITTLE_MEMORY = 0.2
_STEP = 0.25  # of a core: differences below it are noise
_MOST_SAID = 20


@dataclass(frozen=True)
class Candidate:
    """A member, as far as it is known."""

    name: str
    drained: bool = False
    capacity: int | None = None
    kernels: int = 0  # that run there or are about to, ours and those of other keepers
    machine: Machine | None = None  # None: it is not known, as of a queue
    why: str = ""  # it cannot be had
    claimed: int = (
        0  # GPUs there for kernels that were sent there, and have not been seen to have leased them
    )


class NoneFits(FarkernelError):
    """No member of the pool can take a kernel now."""

    kind = "pool"

    def __init__(self, pool: str, reasons: Mapping[str, str]) -> None:
        said = [f"{name} {reason}" for name, reason in list(reasons.items())[:_MOST_SAID]]
        if len(reasons) > _MOST_SAID:
            said.append(f"and {len(reasons) - _MOST_SAID} more")
        super().__init__(
            f"no member of the pool {pool} can take this kernel: {'; '.join(said)}",
            "Restart the kernel to try again; farkernel resources shows what is there",
        )
        self.reasons = dict(reasons)


def choose(
    pool: str,
    candidates: Sequence[Candidate],
    policy: str,
    resources: Resources,
    chance: Callable[[], float],
    *,
    wanted: str = "",
    after: str = "",
    avoid: str = "",
) -> Candidate:
    """The one to take; raises `NoneFits`.

    ``wanted`` is taken if it fits at all (sticky); ``after`` had the last turn (round-robin; unknown: anyone begins);
    ``avoid`` is taken only if nothing else fits.  ``chance`` (0 to 1) decides between equals: many keepers that look at
    the same moment must not all go to the same member.
    """
    reasons = {each.name: unfit(each, resources) for each in candidates}
    fitting = [each for each in candidates if reasons[each.name] is None]
    if not fitting:
        raise NoneFits(pool, {name: str(reason) for name, reason in reasons.items()})
    fitting = [each for each in fitting if each.name != avoid] or fitting
    for each in fitting:
        if each.name == wanted:
            return each
    if policy == "first":
        return fitting[0]
    if policy == "round-robin":
        names = [each.name for each in candidates]
        last = names.index(after) if after in names else int(chance() * len(names)) % len(names)
        return min(fitting, key=lambda each: (names.index(each.name) - last - 1) % len(names))
    return min(fitting, key=lambda each: (round(load(each) / _STEP), chance()))


def unfit(candidate: Candidate, resources: Resources) -> str | None:
    """What speaks against it, to be read behind its name; None: it fits."""
    if candidate.drained:
        return "is drained (drain = true)"
    if candidate.why:
        return candidate.why
    if candidate.capacity is not None and candidate.kernels >= candidate.capacity:
        return f"is full: {candidate.kernels} of {candidate.capacity} kernels (capacity)"
    return (
        None
        if candidate.machine is None
        else _unhealthy(candidate.machine) or _lacks(candidate.machine, resources, candidate.claimed)
    )


def _unhealthy(machine: Machine) -> str | None:
    pi = machine.raspberrypi
    if pi is not None and pi.temperature is not None and pi.temperature >= HOT:
        return f"is hot: {pi.temperature:.0f} °C"
    if pi is not None and pi.throttled:
        return f"is throttled: {one_line(', '.join(pi.throttled))[:200]}"
    free, total = machine.memory.available, machine.memory.total
    if free is not None and total and free < total * _LEAST_MEMORY:
        return f"has no memory free: {_size(free)} of {_size(total)}"
    return None


def gpus_asked(resources: Resources) -> int:
    """Memory of a GPU alone asks for one."""
    return resources.gpus if resources.gpus is not None else int(resources.gpu_memory is not None)


def _lacks(machine: Machine, resources: Resources, claimed: int) -> str | None:
    free = machine.memory.available
    if resources.memory and free is not None and free < resources.memory:
        return f"has {_size(free)} of memory free, and {_size(resources.memory)} are asked for"
    usable = machine.cpu.usable or machine.cpu.threads
    if resources.cpus and usable and usable < resources.cpus:
        return f"has {usable} CPUs, and {resources.cpus} are asked for"
    if resources.opencl:
        return _lacks_opencl(machine, resources.opencl)
    gpus = gpus_asked(resources)
    idle = max(sum(is_idle(gpu, resources.gpu_memory or 0) for gpu in machine.gpus) - claimed, 0)
    if gpus > idle:
        return f"has {idle} idle GPUs that would do, and {gpus} are asked for"
    return None


def _lacks_opencl(machine: Machine, kind: str) -> str | None:
    """Whether one is idle is seen there: not every one is known to its vendor's library."""
    found = [device for platform in machine.opencl for device in platform.devices]
    if any(kind in ("any", *device.type) for device in found):
        return None
    return f"has no OpenCL device{'' if kind == 'any' else f' of the kind {kind}'}"


def is_idle(gpu: Gpu, memory: int) -> bool:
    """As far as it can be seen from here; the agent looks again when it leases one (`launcher.agent.choosing`)."""
    large = not memory or (gpu.memory_total or 0) >= memory * 0.92
    return large and not (gpu.mig or gpu.processes or gpu.lease or gpu.problem)


def load(candidate: Candidate) -> float:
    """How busy each of its cores would be; a kernel that is idle now counts too, because it will not stay so."""
    machine = candidate.machine
    if machine is None:
        return float(candidate.kernels)
    cores = machine.cpu.limit or machine.cpu.usable or machine.cpu.threads or 1
    running = max(machine.load[0] if machine.load else 0.0, (machine.cpu.use or 0.0) * cores)
    free, total = machine.memory.available, machine.memory.total
    short = free is not None and bool(total) and free < (total or 0) * _LITTLE_MEMORY
    return (running + candidate.kernels) / max(cores, 0.1) + (1.0 if short else 0.0)


def _size(size: int) -> str:
    return f"{size / (1 << 30):.3g} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.3g} MiB"
