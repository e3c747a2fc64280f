"""NVIDIA Jetson: its GPU shares the machine's memory and has no NVML of the usual kind."""

import glob
import re
from typing import Any, Dict, Iterator, Optional

from .files import number, place, read

Found = Dict[str, Any]
_LOADS = (
    "sys/devices/gpu.0/load",
    "sys/devices/platform/gpu.0/load",
    "sys/devices/platform/*/*.g[apv]*b/load",
    "sys/devices/*.g[apv]*b/load",
    "sys/devices/platform/*.g[apv]*b/load",
)


def look(root: str) -> Iterator[Found]:
    model = read(root, "proc/device-tree/model")
    release = l4t(read(root, "etc/nv_tegra_release"))
    if release is None and not re.search(r"jetson|tegra", model, re.IGNORECASE):
        return
    yield {
        "jetson": {"model": model or None, "l4t": release},
        "gpus": [
            {
                "vendor": "nvidia",
                "kind": "integrated",
                "name": "%s (integrated)" % (model or "Tegra"),
                "index": 0,
                "use": load(root),
                "temperature": temperature(root),
            }
        ],
    }


def l4t(text: str) -> Optional[str]:
    """ "# R35 (release), REVISION: 4.1, GCID: …" is 35.4.1."""
    match = re.match(r"# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)", text)
    return "%s.%s" % match.groups() if match is not None else None


def load(root: str) -> Optional[float]:
    """Tenths of a percent."""
    for pattern in _LOADS:
        for path in sorted(glob.glob(place(root, pattern))):
            value = number(read(path))
            if value is not None:
                return min(max(value, 0), 1000) / 1000.0
    return None


def temperature(root: str) -> Optional[float]:
    for path in sorted(glob.glob(place(root, "sys/class/thermal/thermal_zone*"))):
        if "gpu" in read(path, "type").lower():
            value = number(read(path, "temp"))
            if value is not None:
                return value / 1000.0
    return None
