"""NVIDIA's library where there is no GPU: our own C (fake_nvml.c says what it can be told to do)."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("fake_nvml.c")
H100 = "GPU-00000000-aaaa-bbbb-cccc-0123456789ab"
A100 = "GPU-00000001-aaaa-bbbb-cccc-0123456789ab"
MIG_0 = "MIG-00000000-aaaa-bbbb-cccc-0123456789ab"
MIG_4 = "MIG-00000004-aaaa-bbbb-cccc-0123456789ab"


def fake_nvml(directory: Path) -> Path:
    """Compile it there; put the directory on LD_LIBRARY_PATH of a process before it starts."""
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"]
    library = str(directory / "libnvidia-ml.so.1")
    subprocess.run(["gcc", "-shared", "-fPIC", *warnings, "-o", library, str(SOURCE)], check=True)
    return directory
