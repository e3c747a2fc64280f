"""OpenCL platforms and devices, asked by ctypes, or by pyopencl where the environment has it.

Also run as a program of its own by the kernel's Python (`python - < opencl.py`), which may bring other
implementations than the host's; so it imports nothing of ours.  It runs in a child: drivers may crash or hang.
"""

import ctypes
import glob
import importlib
import json
import os
import struct
import sys
import uuid
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

Found = Dict[str, Any]
Ask = Callable[[int, str], Any]
#: <CL/cl.h>: our name, the code, how the answer is read.
PLATFORM = (
    ("profile", 0x0900, "text"),
    ("version", 0x0901, "text"),
    ("name", 0x0902, "text"),
    ("vendor", 0x0903, "text"),
)
DEVICE = (
    ("type", 0x1000, "bits"),
    ("vendor_id", 0x1001, "uint"),
    ("compute_units", 0x1002, "uint"),
    ("max_work_group_size", 0x1004, "size"),
    ("clock", 0x100C, "uint"),
    ("address_bits", 0x100D, "uint"),
    ("max_allocation", 0x1010, "ulong"),
    ("images", 0x1016, "bool"),
    ("memory", 0x101F, "ulong"),
    ("local_memory", 0x1023, "ulong"),
    ("available", 0x1027, "bool"),
    ("name", 0x102B, "text"),
    ("vendor", 0x102C, "text"),
    ("driver", 0x102D, "text"),
    ("version", 0x102F, "text"),
    ("extensions", 0x1030, "text"),
    ("unified_memory", 0x1035, "bool"),
    ("c_version", 0x103D, "text"),
)
#: Which device it is: the extension that has the question, its codes, how the answers are read (the extensions' texts).
IDENTITY = (
    ("cl_khr_pci_bus_info", (0x410F,), "pci"),
    ("cl_nv_device_attribute_query", (0x400A, 0x4008, 0x4009), "uint"),
    ("cl_amd_device_attribute_query", (0x4037,), "topology"),
)
_UUID = ("cl_khr_device_uuid", 0x106A)
TYPES = ((1, "default"), (2, "cpu"), (4, "gpu"), (8, "accelerator"), (16, "custom"))
_ALL = 0xFFFFFFFF
_NOT_FOUND = (-1, -1001)  # no device of that type; no platform (cl_khr_icd)
_NUMBERS = {"uint": ctypes.c_uint, "bool": ctypes.c_uint, "ulong": ctypes.c_uint64, "bits": ctypes.c_uint64}
_MOST = 64
_LONGEST = 64 * 1024


def platforms() -> Iterator[Found]:
    """Each platform with its devices; nothing where there is no OpenCL."""
    pyopencl = _pyopencl()
    if pyopencl is not None:
        for platform in pyopencl.get_platforms():
            found = describe(PLATFORM, _from_pyopencl(platform))
            found["devices"] = [device(_from_pyopencl(one)) for one in platform.get_devices()]
            yield found
        return
    library = load()
    if library is not None:
        for found in _by_ctypes(library):
            yield found


def describe(fields: Tuple[Tuple[str, int, str], ...], ask: Ask) -> Found:
    return {name: ask(code, kind) for name, code, kind in fields}


def device(ask: Ask) -> Found:
    found = describe(DEVICE, ask)
    bits = found["type"] or 0
    found["type"] = [name for bit, name in TYPES if bits & bit]
    found["extensions"] = (found["extensions"] or "").split()
    found["pci"] = pci(found["extensions"], ask)
    found["uuid"] = ask(_UUID[1], "uuid") if _UUID[0] in found["extensions"] else None
    return found


def pci(extensions: List[str], ask: Ask) -> Optional[str]:
    """Where it is plugged in, as the system writes it: "0000:3b:00.0"."""
    for extension, codes, kind in IDENTITY:
        answers = [ask(code, kind) for code in codes if extension in extensions]
        if not answers or any(answer is None for answer in answers[1:] or answers):
            continue  # a driver may know no domains
        if kind != "uint":
            return str(answers[0])
        domain, bus, slot = answers[0] or 0, answers[1], answers[2]
        return _address(domain, bus, slot >> 3, slot & 7)
    return None


def _topology(data: bytes) -> Optional[str]:
    of_pci = struct.unpack("=I", data[:4])[0] == 1
    return _address(0, data[21], data[22], data[23]) if of_pci else None


def _address(domain: int, bus: int, place: int, function: int) -> str:
    return "%04x:%02x:%02x.%x" % (domain, bus, place, function)


#: ``cl_device_pci_bus_info_khr``; ``cl_device_topology_amd``, a union whose other half says that it is none; 16 bytes.
_IDENTIFIERS: Dict[str, Tuple[int, Callable[[bytes], Optional[str]]]] = {
    "pci": (16, lambda data: _address(*struct.unpack("=4I", data[:16]))),
    "topology": (24, _topology),
    "uuid": (16, lambda data: str(uuid.UUID(bytes=data[:16])) if any(data) else None),
}


# -- by ctypes -----------------------------------------------------------------------------------------------


def load() -> Optional[Any]:
    """The environment's own loader comes before the system's, as it does for programs in that environment."""
    prefix = glob.escape(sys.prefix)
    own = sorted(glob.glob(os.path.join(prefix, "lib", "libOpenCL.so*")))
    for name in own + ["libOpenCL.so.1", "libOpenCL.so"]:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _by_ctypes(library: Any) -> Iterator[Found]:
    for platform in _handles(library.clGetPlatformIDs):
        found = describe(PLATFORM, _from_library(library.clGetPlatformInfo, platform))
        devices = _handles(library.clGetDeviceIDs, ctypes.c_void_p(platform), ctypes.c_uint64(_ALL))
        found["devices"] = [device(_from_library(library.clGetDeviceInfo, one)) for one in devices]
        yield found


def _handles(call: Any, *before: Any) -> List[int]:
    """First how many, then themselves."""
    count = ctypes.c_uint(0)
    status = call(*(before + (ctypes.c_uint(0), None, ctypes.byref(count))))
    if status in _NOT_FOUND or not count.value:
        return []
    if status:
        raise OSError("OpenCL error %d" % status)
    size = min(count.value, _MOST)
    handles = (ctypes.c_void_p * size)()
    status = call(*(before + (ctypes.c_uint(size), handles, None)))
    if status:
        raise OSError("OpenCL error %d" % status)
    return [handle for handle in handles if handle]


def _from_library(call: Any, handle: int) -> Ask:
    def ask(code: int, kind: str) -> Any:
        size = ctypes.c_size_t(0)
        of = ctypes.c_void_p(handle)
        if call(of, ctypes.c_uint(code), ctypes.c_size_t(0), None, ctypes.byref(size)):
            return None  # this version does not know the question
        if not 0 < size.value <= _LONGEST:
            return None
        answer = ctypes.create_string_buffer(size.value)
        if call(of, ctypes.c_uint(code), size, answer, None):
            return None
        return read_answer(answer.raw, kind)

    return ask


def read_answer(data: bytes, kind: str) -> Any:
    if kind == "text":
        return data.split(b"\0")[0].decode("utf-8", "replace").strip()
    if kind in _IDENTIFIERS:
        size, read = _IDENTIFIERS[kind]
        return read(data) if len(data) >= size else None
    wanted = ctypes.c_size_t if kind == "size" else _NUMBERS[kind]
    if len(data) < ctypes.sizeof(wanted):
        return None
    value = wanted.from_buffer_copy(data).value
    return bool(value) if kind == "bool" else value


# -- by pyopencl ---------------------------------------------------------------------------------------------


def _pyopencl() -> Optional[Any]:
    """It knows implementations that came with it (pocl-binary-distribution)."""
    if __name__ != "__main__":
        return None  # the host's own Python is asked for what the host has
    try:
        return importlib.import_module("pyopencl")
    except Exception:  # noqa: BLE001 - a broken installation can raise anything; then ctypes does it
        return None


def _from_pyopencl(one: Any) -> Ask:
    def ask(code: int, kind: str) -> Any:
        try:
            value = one.get_info(code)
        except Exception:  # noqa: BLE001 - its errors derive from no class that all versions have
            return None
        if kind in _IDENTIFIERS:
            return None  # its classes for them differ by version
        return str(value).strip() if kind == "text" else bool(value) if kind == "bool" else int(value)

    return ask


def main() -> None:
    """One platform a line, then a line that says it came to the end."""
    for found in platforms():
        sys.stdout.write(json.dumps({"platform": found}) + "\n")
        sys.stdout.flush()
    sys.stdout.write(json.dumps({"done": True}) + "\n")


if __name__ == "__main__":
    main()
