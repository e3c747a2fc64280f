"""NVIDIA GPUs and MIG instances through NVML, by way of nvidia-ml-py (pynvml.py), which came with the request.

Every call is optional: cards, drivers and permissions differ in what they answer.  Devices are known by UUID and
PCI address, never by a number alone; MIG slots have holes.
"""

import ctypes
import os
import pwd
from typing import Any, Callable, Dict, Iterator, List, Optional

from .files import read

Found = Dict[str, Any]
LIBRARY = "libnvidia-ml.so.1"
_NO_VALUE = (1 << 64) - 1
_MODES = {0: "default", 1: "exclusive thread", 2: "prohibited", 3: "exclusive process"}


def has_library() -> bool:
    """Whether there is a driver that could be asked; it is not asked yet."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def look(root: str, nvml: Any) -> Iterator[Found]:
    """``nvml``: the module pynvml."""
    yield {"at": "nvmlInit"}
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        yield {"problem": sentence(nvml, error)}
        return
    asked = Asked(nvml)
    cuda = asked(nvml.nvmlSystemGetCudaDriverVersion)
    yield {
        "nvidia": {
            "driver": text(asked(nvml.nvmlSystemGetDriverVersion)),
            "nvml": text(asked(nvml.nvmlSystemGetNVMLVersion)),
            "cuda": "%d.%d" % (cuda // 1000, cuda % 1000 // 10) if cuda else None,
        }
    }
    for index in range(asked(nvml.nvmlDeviceGetCount) or 0):
        yield {"at": "GPU %d" % index}
        for found in gpu(root, nvml, index):
            yield found


def gpu(root: str, nvml: Any, index: int) -> Iterator[Found]:
    """One card, then its MIG instances."""
    asked = Asked(nvml)
    handle = asked(nvml.nvmlDeviceGetHandleByIndex, index)
    if handle is None:
        yield {"gpus": [{"vendor": "nvidia", "kind": "gpu", "index": index, "problem": asked.problem}]}
        return
    card = device(root, nvml, handle, asked)
    mode = asked(nvml.nvmlDeviceGetMigMode, handle)
    card.update(kind="gpu", index=index, mig=bool(mode[0]) if mode else None, problem=asked.problem)
    yield {"gpus": [card]}
    if card["mig"]:
        for slot in range(asked(nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
            # A slot without an instance is no error: others may follow.
            instance = Asked(nvml)(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, slot)
            if instance is not None:
                yield {"gpus": [mig_instance(root, nvml, instance, card, slot)]}


def mig_instance(root: str, nvml: Any, handle: Any, card: Found, slot: int) -> Found:
    asked = Asked(nvml)
    found = device(root, nvml, handle, asked)
    if found["name"] is None or "MIG" not in found["name"]:
        found["name"] = "%s MIG" % card["name"] if card["name"] else "MIG"
    # What is the card's is the same for all that share it.
    for name in ("pci", "temperature", "capability", "compute_mode"):
        found[name] = card[name]
    found.update(
        kind="mig", index=card["index"], slot=slot, parent=card["uuid"], mig=None, problem=asked.problem
    )
    return found


def device(root: str, nvml: Any, handle: Any, asked: "Asked") -> Found:
    memory = asked(nvml.nvmlDeviceGetMemoryInfo, handle)
    use = asked(nvml.nvmlDeviceGetUtilizationRates, handle)
    power = asked(nvml.nvmlDeviceGetPowerUsage, handle)
    capability = asked(nvml.nvmlDeviceGetCudaComputeCapability, handle)
    pci = asked(nvml.nvmlDeviceGetPciInfo, handle)
    return {
        "vendor": "nvidia",
        "name": text(asked(nvml.nvmlDeviceGetName, handle)),
        "uuid": text(asked(nvml.nvmlDeviceGetUUID, handle)),
        "pci": text(pci.busId).lower() if pci is not None else None,
        "memory_total": memory.total if memory is not None else None,
        "memory_used": memory.used if memory is not None else None,
        "use": use.gpu / 100.0 if use is not None else None,
        "temperature": asked(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
        "power": power / 1000.0 if power is not None else None,
        "compute_mode": _MODES.get(asked(nvml.nvmlDeviceGetComputeMode, handle)),
        "capability": "%d.%d" % tuple(capability) if capability else None,
        "processes": processes(root, nvml, handle, asked),
    }


def processes(root: str, nvml: Any, handle: Any, asked: "Asked") -> Optional[List[Found]]:
    """None: they cannot be known.  A driver before 510 has the second version of the call only."""
    calls: List[Callable[..., Any]] = [nvml.nvmlDeviceGetComputeRunningProcesses]
    if hasattr(nvml, "nvmlDeviceGetComputeRunningProcesses_v2"):
        calls.append(nvml.nvmlDeviceGetComputeRunningProcesses_v2)
    for call in calls:
        running = asked(call, handle)
        if running is not None:
            return [process(root, one) for one in running]
    return None


def process(root: str, one: Any) -> Found:
    used = one.usedGpuMemory
    return {
        "pid": one.pid,
        "user": owner(root, one.pid),
        "name": read(root, "proc/%d/comm" % one.pid) or None,
        "memory": None if used is None or used == _NO_VALUE else used,
    }


def owner(root: str, pid: int) -> Optional[str]:
    """Whose process it is; None also where it is in another container's count."""
    try:
        uid = os.stat(os.path.join(root, "proc/%d" % pid)).st_uid
    except OSError:
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


class Asked(object):
    """Asks, and takes a refusal for an answer: None.  What is worth saying is kept in ``problem``."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self.problem: Optional[str] = None

    def __call__(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except self._nvml.NVMLError as error:
            nvml = self._nvml
            if error.value in (
                nvml.NVML_ERROR_GPU_IS_LOST,
                nvml.NVML_ERROR_UNKNOWN,
                nvml.NVML_ERROR_NO_PERMISSION,
            ):
                self.problem = self.problem or sentence(nvml, error)
            return None


def sentence(nvml: Any, error: Any) -> str:
    known = {
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: "its driver is installed but not loaded",
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: "its library cannot be loaded",
        nvml.NVML_ERROR_NO_PERMISSION: "no permission to ask",
        nvml.NVML_ERROR_GPU_IS_LOST: "the GPU is lost (it has fallen off the bus)",
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "driver and library are of different versions",
    }
    return known.get(error.value) or str(error)


def text(value: Any) -> Any:
    """nvidia-ml-py gives bytes or strings, by version."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
