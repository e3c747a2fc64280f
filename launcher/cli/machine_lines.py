"""A machine as lines for people: what the terminal and the page show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..discovery.machine import Board, Disk, Gpu, Machine, OpenClPlatform
from .table import duration, size

HIGH, FULL = 0.75, 0.9
_HOT = 80.0
_MOST_DISKS = 8


@dataclass(frozen=True)
class Line:
    """``part``: how much of it is in use, 0 to 1, shown as a bar; ``level``: "", "high", "full", "bad" or "dim"."""

    label: str
    part: float | None = None
    amount: str = ""
    text: str = ""
    level: str = ""


def title(machine: Machine) -> str:
    """One line about the machine as a whole."""
    host = machine.host
    parts = [host.name, host.distribution or host.system, host.model]
    if machine.uptime is not None:
        parts.append(f"up {duration(machine.uptime)}")
    if machine.users:
        parts.append(f"{len(machine.users)} user{'s' * (len(machine.users) > 1)} logged in")
    if machine.load:
        parts.append("load " + " ".join(f"{number:.2f}" for number in machine.load))
    return " · ".join(part for part in parts if part)


def lines(machine: Machine) -> list[Line]:
    """Most important first; what is not there has no line."""
    return [
        *_processors(machine),
        *_memory(machine),
        *(line for gpu in machine.gpus for line in _gpu(gpu)),
        *_disks(machine),
        *_software(machine),
        *(_opencl(platform) for platform in _platforms(machine)),
        *_pi(machine),
        *(_board(board) for board in machine.boards),
        *(Line("!", text=f"{problem.part}: {problem.what}", level="bad") for problem in machine.problems),
    ]


def level(part: float | None) -> str:
    if part is None or part < HIGH:
        return ""
    return "high" if part < FULL else "full"


def _bar(label: str, part: float | None, amount: str, text: str = "") -> Line:
    return Line(label, part, amount, text, level(part))


def _used(used: int | None, total: int | None) -> tuple[float | None, str]:
    if not total:
        return None, ""
    if used is None:
        return None, size(total)
    return min(max(used / total, 0.0), 1.0), f"{size(used)} of {size(total)}"


def _percent(part: float | None) -> str:
    return "" if part is None else f"{part * 100:.0f} %"


def _degrees(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} °C"


def _together(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part)


# -- CPU and memory ----------------------------------------------------------------------------------------


def _processors(machine: Machine) -> Iterator[Line]:
    cpu = machine.cpu
    if cpu == type(cpu)():
        return
    cores = f"{cpu.cores} core{'s' * (cpu.cores != 1)}" if cpu.cores else None
    threads = f"{cpu.threads} threads" if cpu.threads and cpu.threads != cpu.cores else None
    usable = f"{cpu.usable} usable" if cpu.usable and cpu.threads and cpu.usable < cpu.threads else None
    limit = f"limited to {cpu.limit:g} CPUs" if cpu.limit is not None else None
    yield _bar("CPU", cpu.use, _percent(cpu.use), _together(cpu.model, cores, threads, usable, limit))


def _memory(machine: Machine) -> Iterator[Line]:
    memory, swap = machine.memory, machine.swap
    used = None if memory.total is None or memory.available is None else memory.total - memory.available
    part, amount = _used(used, memory.total)
    if amount:
        yield _bar("memory", part, amount)
    if memory.limit is not None:
        part, amount = _used(memory.limit_used, memory.limit)
        yield _bar("limit", part, amount, "of the control group")
    if swap.total:
        part, amount = _used(None if swap.free is None else swap.total - swap.free, swap.total)
        yield Line("swap", part, amount)


# -- GPUs --------------------------------------------------------------------------------------------------


def gpu_label(gpu: Gpu) -> str:
    if gpu.kind == "opencl":
        return gpu.name or "an OpenCL device"
    number = "" if gpu.index is None else f" {gpu.index}"
    return f"MIG{number}.{gpu.slot}" if gpu.kind == "mig" else f"GPU{number}"


def _gpu(gpu: Gpu) -> Iterator[Line]:
    label, name = gpu_label(gpu), gpu.name or gpu.vendor or ""
    hot = gpu.temperature is not None and gpu.temperature >= _HOT
    about = _together(
        name,
        _leased(gpu),
        "parted by MIG" if gpu.mig else None,
        _degrees(gpu.temperature),
        gpu.problem,
        _mode(gpu),
    )
    part, amount = _used(gpu.memory_used, gpu.memory_total)
    if gpu.use is None and part is None:
        yield Line(label, None, amount, about, "bad" if gpu.problem else "high" if hot else "")
    else:
        shown = part if gpu.use is None else gpu.use
        percent = _percent(gpu.use)
        yield Line(label, shown, percent or amount, about, "high" if hot else level(shown))
        if gpu.use is not None and amount:
            yield _bar("", part, amount, processes(gpu))
            return
    if processes(gpu):
        yield Line("", text=processes(gpu))


def _leased(gpu: Gpu) -> str | None:
    if gpu.lease is None:
        return None
    kernel = f" (kernel {gpu.lease.kernel[:8]})" if gpu.lease.kernel else ""
    return f"leased by {'you' if gpu.lease.mine else gpu.lease.user or 'somebody'}{kernel}"


def _mode(gpu: Gpu) -> str | None:
    return None if gpu.compute_mode in (None, "default") else gpu.compute_mode


def processes(gpu: Gpu) -> str:
    """Who uses it: "alice: python (pid 71, 3.1 GiB)"."""
    shown = []
    for process in gpu.processes or ():
        inside = _together(f"pid {process.pid}" if process.pid is not None else None, size(process.memory))
        shown.append(f"{process.user or 'somebody'}: {process.name or 'a process'} ({inside})")
    return "; ".join(shown)


# -- the rest ----------------------------------------------------------------------------------------------


def _disks(machine: Machine) -> Iterator[Line]:
    for disk in machine.disks[:_MOST_DISKS]:
        yield _disk(disk)
    if len(machine.disks) > _MOST_DISKS:
        yield Line("", text=f"and {len(machine.disks) - _MOST_DISKS} more file systems", level="dim")
    for quota in machine.quotas:
        part, amount = _used(quota.used, quota.quota or quota.limit)
        yield _bar("quota", part, amount, quota.path)


def _disk(disk: Disk) -> Line:
    # What is kept back for the administrator is not free for those who ask.
    used = None if disk.total is None or disk.free is None else disk.total - disk.free
    part, _ = _used(used, disk.total)
    kind = disk.type if disk.network else None
    text = _together(disk.path, kind, None if disk.writable in (True, None) else "read only")
    return _bar("disk", part, f"{size(disk.free)} free" if disk.free is not None else "", text)


def _software(machine: Machine) -> Iterator[Line]:
    if machine.nvidia is not None:
        nvidia = machine.nvidia
        cuda = f"for CUDA up to {nvidia.cuda}" if nvidia.cuda else ""
        yield Line("NVIDIA", text=" ".join(part for part in ("driver", nvidia.driver, cuda) if part))
    if machine.jetson is not None:
        release = f"L4T {machine.jetson.l4t}" if machine.jetson.l4t else None
        yield Line("Jetson", text=_together(machine.jetson.model, release))
    for label, installed in (("CUDA", machine.cuda.toolkits), ("cuDNN", machine.cuda.cudnn)):
        if installed:
            yield Line(label, text=", ".join(f"{one.version} in {one.path}" for one in installed))


def _platforms(machine: Machine) -> list[OpenClPlatform]:
    """The kernel's environment mostly sees what the host has; it is shown where it sees more."""
    host = [replace(platform, where=None) for platform in machine.opencl if platform.where == "host"]
    return [each for each in machine.opencl if each.where == "host" or replace(each, where=None) not in host]


def _opencl(platform: OpenClPlatform) -> Line:
    devices = []
    for device in platform.devices:
        units = f"{device.compute_units} units" if device.compute_units else None
        inside = _together("/".join(device.type), units, size(device.memory))
        devices.append(f"{device.name} ({inside})")
    where = "" if platform.where in (None, "host") else " in the kernel's environment"
    return Line("OpenCL", text=f"{platform.name}{where}: {'; '.join(devices) or 'no devices'}")


def _pi(machine: Machine) -> Iterator[Line]:
    pi = machine.raspberrypi
    if pi is None:
        return
    now, before = _complaints(pi.throttled), _complaints(pi.throttled_before)
    said = now or (f"since it was started: {before}" if before else "")
    cameras = ", ".join(camera.name for camera in pi.cameras)
    pins = sum(chip.lines or 0 for chip in pi.gpio)
    text = _together(
        _degrees(pi.temperature),
        said,
        f"{pins} GPIO lines" if pins else None,
        f"camera {cameras}" if cameras else None,
    )
    yield Line("Pi", text=text or (pi.model or ""), level="bad" if now else "high" if before else "")


def _complaints(found: Sequence[str] | None) -> str:
    return ", ".join(found or ())


def _board(board: Board) -> Line:
    ids = f"{board.vid}:{board.pid}" if board.vid else None
    usable = "not usable by you (group dialout?)" if board.usable is False else None
    name = " ".join(part for part in (board.manufacturer, board.product) if part)
    held = f"in use by {board.holder}" if board.holder else None
    return Line(
        "board", text=_together(board.device, name, ids, usable, held), level="high" if usable else ""
    )
