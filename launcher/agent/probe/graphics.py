"""AMD and Intel GPUs, by what their drivers show in /sys (docs.kernel.org/gpu/amdgpu)."""

import os
import re
from typing import Any, Dict, Iterator, List, Optional

from .files import names, number, place, read

Found = Dict[str, Any]
_VENDORS = {0x1002: "amd", 0x8086: "intel"}
_TITLES = {"amd": "AMD", "intel": "Intel"}
_IDS = ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids")
_LARGEST_IDS = 4 << 20


def look(root: str) -> Iterator[Found]:
    for found in cards(root):
        yield {"gpus": [found]}


def cards(root: str) -> List[Found]:
    found = []
    for name in names(root, "sys/class/drm"):
        if re.match(r"card\d+\Z", name):
            one = card(root, "sys/class/drm/%s/device" % name)
            if one is not None:
                one["index"] = int(name[4:])
                found.append(one)
    return sorted(found, key=lambda one: one["index"])


def card(root: str, directory: str) -> Optional[Found]:
    def value(name: str) -> Optional[int]:
        return number(read(root, directory, name))

    vendor, product = value("vendor"), value("device")
    if vendor not in _VENDORS or product is None:
        return None
    busy, sensors = value("gpu_busy_percent"), hwmon(root, directory)
    return {
        "vendor": _VENDORS[vendor],
        "kind": "gpu",
        "name": read(root, directory, "product_name")
        or pci_name(root, vendor, product)
        or _plain(vendor, product),
        "uuid": unique(read(root, directory, "unique_id")),
        "pci": os.path.basename(os.path.realpath(place(root, directory))),
        "memory_total": value("mem_info_vram_total") or value("lmem_total_bytes"),
        "memory_used": value("mem_info_vram_used"),
        "use": min(max(busy, 0), 100) / 100.0 if busy is not None else None,
        "temperature": sensors.get("temperature"),
        "power": sensors.get("power"),
        "processes": None,
    }


def unique(text: str) -> Optional[str]:
    """As ROCm names it in ROCR_VISIBLE_DEVICES; the GPUs inside processors have none."""
    return "GPU-" + text.lower() if re.match(r"[0-9a-fA-F]{16}\Z", text) and text.strip("0") else None


def hwmon(root: str, directory: str) -> Dict[str, float]:
    """Degrees Celsius and watts; the files have thousandths and millionths."""
    found: Dict[str, float] = {}
    for name in names(root, directory, "hwmon"):
        for key, file, unit in (
            ("temperature", "temp1_input", 1e3),
            ("power", "power1_average", 1e6),
            ("power", "power1_input", 1e6),
        ):
            value = number(read(root, directory, "hwmon", name, file))
            if value is not None:
                found.setdefault(key, value / unit)
    return found


def _plain(vendor: int, product: int) -> str:
    return "%s GPU %04x" % (_TITLES[_VENDORS[vendor]], product)


def pci_name(root: str, vendor: int, product: int) -> Optional[str]:
    for path in _IDS:
        try:
            with open(place(root, path), encoding="utf-8", errors="replace") as stream:
                found = find_pci_name(stream.read(_LARGEST_IDS), vendor, product)
        except OSError:
            continue
        if found is not None:
            return "%s %s" % (_TITLES[_VENDORS[vendor]], found)
    return None


def find_pci_name(ids: str, vendor: int, product: int) -> Optional[str]:
    """In pci.ids: a line for the vendor, then its devices, each behind one tab."""
    match = re.search(r"^%04x  .*\n((?:(?:\t|#).*\n|\n)*)" % vendor, ids, re.MULTILINE)
    if match is None:
        return None
    line = re.search(r"^\t%04x  (.+)$" % product, match.group(1), re.MULTILINE)
    if line is None:
        return None
    bracket = re.search(r"\[(.+)\]", line.group(1))  # the name under which it is sold
    return bracket.group(1) if bracket is not None else line.group(1).strip()
