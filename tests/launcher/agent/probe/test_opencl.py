"""OpenCL by ctypes against clinfo, field by field (PoCL is what is installed)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.agent.probe import opencl
from tests.launcher.agent.probe.conftest import Probe
from tests.sites.pythons import PYTHONS

_PLATFORM = {"name": "NAME", "vendor": "VENDOR", "version": "VERSION", "profile": "PROFILE"}
_DEVICE = {
    "name": "CL_DEVICE_NAME",
    "vendor": "CL_DEVICE_VENDOR",
    "vendor_id": "CL_DEVICE_VENDOR_ID",
    "version": "CL_DEVICE_VERSION",
    "driver": "CL_DRIVER_VERSION",
    "c_version": "CL_DEVICE_OPENCL_C_VERSION",
    "compute_units": "CL_DEVICE_MAX_COMPUTE_UNITS",
    "clock": "CL_DEVICE_MAX_CLOCK_FREQUENCY",
    "address_bits": "CL_DEVICE_ADDRESS_BITS",
    "memory": "CL_DEVICE_GLOBAL_MEM_SIZE",
    "local_memory": "CL_DEVICE_LOCAL_MEM_SIZE",
    "max_allocation": "CL_DEVICE_MAX_MEM_ALLOC_SIZE",
    "max_work_group_size": "CL_DEVICE_MAX_WORK_GROUP_SIZE",
    "images": "CL_DEVICE_IMAGE_SUPPORT",
    "available": "CL_DEVICE_AVAILABLE",
    "unified_memory": "CL_DEVICE_HOST_UNIFIED_MEMORY",
}


def clinfo() -> tuple[dict[str, str], dict[str, str]]:
    """The first platform and its first device."""
    said = subprocess.run(["clinfo", "--raw"], capture_output=True, text=True, check=True).stdout
    platform = dict(re.findall(r"^  (CL_PLATFORM_\S+) +(.*)$", said, re.MULTILINE))
    device = dict(re.findall(r"^\[POCL/0\] +(CL_\S+) +(.*)$", said, re.MULTILINE))
    return platform, device


def as_clinfo(value: Any) -> str:
    if isinstance(value, bool):
        return "CL_TRUE" if value else "CL_FALSE"
    return str(value)


PATIENT = {"wanted": ["opencl"], "patience": 30}


def both(probe: Probe) -> tuple[dict[str, Any], dict[str, str], dict[str, str]]:
    """Ours, their platform, their device: of one moment, because PoCL's memory follows what is free (in large steps)."""
    while True:
        _, before = clinfo()
        (ours,) = probe(PATIENT)["opencl"]
        platform, device = clinfo()
        if device == before:
            return ours, platform, device


def test_field_by_field(probe: Probe) -> None:
    platform, theirs, device = both(probe)
    (ours,) = platform["devices"]
    device["CL_DEVICE_VENDOR_ID"] = str(int(device["CL_DEVICE_VENDOR_ID"], 16))
    assert {name: platform[name] for name in _PLATFORM} == {
        name: theirs[f"CL_PLATFORM_{key}"].strip() for name, key in _PLATFORM.items()
    }
    assert {name: as_clinfo(ours[name]) for name in _DEVICE} == {
        name: device[key].strip() for name, key in _DEVICE.items()
    }
    assert [f"CL_DEVICE_TYPE_{kind.upper()}" for kind in ours["type"]] == device["CL_DEVICE_TYPE"].split(
        " | "
    )
    assert ours["extensions"] == device["CL_DEVICE_EXTENSIONS"].split()
    assert platform["where"] == "host"


@pytest.mark.parametrize("python", PYTHONS, ids=str)
def test_in_the_kernel_s_environment(probe: Probe, python: Path) -> None:
    found = probe({"wanted": ["opencl of the kernel"], "python": str(python), "patience": 20})
    (platform,) = found["opencl"]
    assert (platform["where"], platform["name"]) == (str(python), "Portable Computing Language")
    assert found["problems"] == []


def test_nothing_is_left_in_the_home(probe: Probe, home: Path, archives: Path) -> None:
    """PoCL makes a file in its cache whenever it is asked."""
    before = sorted(archives.iterdir())
    found = probe({"wanted": ["opencl", "opencl of the kernel"], "python": sys.executable, "patience": 30})
    assert len(found["opencl"]) == 2
    assert [path for path in home.rglob("*") if path.is_file()] == []
    assert sorted(archives.iterdir()) == before


def test_an_environment_that_cannot_say(probe: Probe) -> None:
    found = probe({"wanted": ["opencl of the kernel"], "python": "/bin/false"})
    (problem,) = found["problems"]
    assert problem["part"] == "opencl of the kernel"
    assert "/bin/false could not say" in problem["what"]


def test_no_opencl_at_all(probe: Probe, tmp_path: Path) -> None:
    """The loader finds no implementation."""
    found = probe(PATIENT, OCL_ICD_VENDORS=str(tmp_path), OPENCL_VENDOR_PATH=str(tmp_path))
    assert (found.get("opencl", []), found["problems"]) == ([], [])


def test_pyopencl_is_asked_where_the_environment_has_it(tmp_path: Path) -> None:
    """A small module of that name: what it says comes before the host's loader."""
    (tmp_path / "pyopencl.py").write_text(
        "class One:\n"
        "    def __init__(self, facts, devices=()): self.facts, self.devices = facts, devices\n"
        "    def get_info(self, code):\n"
        "        if code not in self.facts: raise RuntimeError('INVALID_VALUE')\n"
        "        return self.facts[code]\n"
        "    def get_devices(self): return self.devices\n"
        "def get_platforms():\n"
        "    return [One({0x0902: 'Mine', 0x0901: 'OpenCL 3.0'}, [One({0x102B: 'Dev', 0x1000: 4, 0x1002: 8})])]\n"
    )
    source = Path(opencl.__file__).read_bytes()
    ended = subprocess.run(
        [sys.executable, "-"],
        input=source,
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    first, last = (json.loads(line) for line in ended.stdout.splitlines())
    assert (first["platform"]["name"], first["platform"]["vendor"]) == ("Mine", None)
    (device,) = first["platform"]["devices"]
    assert (device["name"], device["type"], device["compute_units"], device["memory"]) == (
        "Dev",
        ["gpu"],
        8,
        None,
    )
    assert last == {"done": True}


@given(st.binary(max_size=40), st.sampled_from(["text", "uint", "bool", "ulong", "bits", "size"]))
def test_any_answer(data: bytes, kind: str) -> None:
    opencl.read_answer(data, kind)
