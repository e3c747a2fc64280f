"""The document that a probe gives (docs/resources.md): typed, and read from a far end that may send anything.

Everything may be missing: absent is None or empty, and no error.  ``version`` rises when a field changes its
meaning; new fields may come at any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .documents import read

VERSION = 1


@dataclass(frozen=True)
class Host:
    name: str | None = None
    system: str | None = None
    release: str | None = None
    architecture: str | None = None
    distribution: str | None = None
    model: str | None = None  # what the firmware calls the machine


@dataclass(frozen=True)
class User:
    name: str = ""
    sessions: int = 0


@dataclass(frozen=True)
class Cpu:
    model: str | None = None
    sockets: int | None = None
    cores: int | None = None
    threads: int | None = None
    usable: int | None = None  # that this user's processes may run on (affinity, cpusets)
    limit: float | None = None  # CPUs' worth of time that the control group gives
    frequency: float | None = None  # MHz, the highest
    use: float | None = None  # 0 to 1


@dataclass(frozen=True)
class Memory:
    total: int | None = None  # all sizes are bytes
    available: int | None = None
    limit: int | None = None  # of the control group
    limit_used: int | None = None


@dataclass(frozen=True)
class Swap:
    total: int | None = None
    free: int | None = None


@dataclass(frozen=True)
class Disk:
    path: str = ""
    device: str | None = None
    type: str | None = None
    network: bool | None = None
    writable: bool | None = None
    total: int | None = None
    free: int | None = None  # for this user
    used: int | None = None


@dataclass(frozen=True)
class Quota:
    path: str = ""
    used: int | None = None
    quota: int | None = None
    limit: int | None = None
    exceeded: bool | None = None


@dataclass(frozen=True)
class GpuProcess:
    pid: int | None = None
    user: str | None = None
    name: str | None = None
    memory: int | None = None


@dataclass(frozen=True)
class Lease:
    """Of a GPU, for a kernel; what is not known is None (a holder in another container)."""

    user: str | None = None
    mine: bool | None = None  # of the user who asked
    kernel: str | None = None
    since: float | None = None


@dataclass(frozen=True)
class Gpu:
    vendor: str | None = None  # nvidia, amd, intel
    kind: str | None = None  # gpu, mig (an instance of one), integrated
    name: str | None = None
    uuid: str | None = None
    index: int | None = None  # as its driver counts them now
    slot: int | None = None  # of a MIG instance; there are holes
    parent: str | None = None  # of a MIG instance: the card's UUID
    pci: str | None = None
    mig: bool | None = None  # it is parted: its instances are used, and not itself
    memory_total: int | None = None
    memory_used: int | None = None
    use: float | None = None  # 0 to 1
    temperature: float | None = None  # degrees Celsius
    power: float | None = None  # watts
    compute_mode: str | None = None
    capability: str | None = None
    processes: tuple[GpuProcess, ...] | None = None  # None: they cannot be known
    lease: Lease | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Nvidia:
    driver: str | None = None
    nvml: str | None = None
    cuda: str | None = None  # the newest that the driver can run


@dataclass(frozen=True)
class Installed:
    path: str = ""
    version: str | None = None


@dataclass(frozen=True)
class Cuda:
    toolkits: tuple[Installed, ...] = ()
    cudnn: tuple[Installed, ...] = ()


@dataclass(frozen=True)
class OpenClDevice:
    name: str | None = None
    vendor: str | None = None
    vendor_id: int | None = None
    type: tuple[str, ...] = ()
    version: str | None = None
    driver: str | None = None
    c_version: str | None = None
    compute_units: int | None = None
    clock: int | None = None  # MHz
    address_bits: int | None = None
    memory: int | None = None
    local_memory: int | None = None
    max_allocation: int | None = None
    max_work_group_size: int | None = None
    images: bool | None = None
    available: bool | None = None
    unified_memory: bool | None = None
    pci: str | None = None
    uuid: str | None = None
    extensions: tuple[str, ...] = ()


@dataclass(frozen=True)
class OpenClPlatform:
    where: str | None = None  # "host", or the kernel's Python
    name: str | None = None
    vendor: str | None = None
    version: str | None = None
    profile: str | None = None
    devices: tuple[OpenClDevice, ...] = ()


@dataclass(frozen=True)
class GpioChip:
    name: str = ""
    label: str | None = None
    lines: int | None = None


@dataclass(frozen=True)
class Camera:
    name: str = ""
    kind: str | None = None  # csi, usb


@dataclass(frozen=True)
class RaspberryPi:
    model: str | None = None
    revision: str | None = None
    temperature: float | None = None
    throttled: tuple[str, ...] | None = None  # what is wrong now; None: it cannot be known
    throttled_before: tuple[str, ...] | None = None  # since boot
    gpio: tuple[GpioChip, ...] = ()
    cameras: tuple[Camera, ...] = ()


@dataclass(frozen=True)
class Jetson:
    model: str | None = None
    l4t: str | None = None


@dataclass(frozen=True)
class Board:
    device: str = ""
    by_id: str | None = None
    vid: str | None = None
    pid: str | None = None
    serial: str | None = None
    manufacturer: str | None = None
    product: str | None = None
    driver: str | None = None
    usable: bool | None = None  # this user may open the port
    holder: str | None = None  # who has it, as far as this user may know


@dataclass(frozen=True)
class PartProblem:
    """A part of the probe that could not be had, or not all of it."""

    part: str = ""
    what: str = ""


@dataclass(frozen=True)
class Machine:
    """One machine at one moment."""

    version: int = VERSION
    time: float | None = None  # there, seconds since 1970
    took: float | None = None  # seconds
    host: Host = Host()
    uptime: float | None = None
    load: tuple[float, ...] = ()
    users: tuple[User, ...] = ()
    cpu: Cpu = Cpu()
    memory: Memory = Memory()
    swap: Swap = Swap()
    disks: tuple[Disk, ...] = ()
    quotas: tuple[Quota, ...] = ()
    nvidia: Nvidia | None = None
    gpus: tuple[Gpu, ...] = ()
    cuda: Cuda = Cuda()
    opencl: tuple[OpenClPlatform, ...] = ()
    raspberrypi: RaspberryPi | None = None
    jetson: Jetson | None = None
    boards: tuple[Board, ...] = ()
    problems: tuple[PartProblem, ...] = ()


def read_machine(document: Any) -> Machine:
    """Never raises: what has the wrong type is absent."""
    return read(Machine, document)
