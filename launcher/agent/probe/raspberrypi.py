"""Raspberry Pi: model, temperature, what its firmware complains of, GPIO chips, cameras."""

import array
import fcntl
import glob
import os
import re
import struct
import subprocess
from typing import Any, Dict, Iterator, List, Optional

from .files import names, number, pairs, place, read

Found = Dict[str, Any]
#: vcgencmd's get_throttled: the state now; 16 bits higher the same for the time since boot.
_TROUBLES = ((0, "under-voltage"), (1, "frequency capped"), (2, "throttled"), (3, "soft temperature limit"))
_SENSOR = re.compile(r"(?:imx|ov|arducam|irs)[0-9a-z_]*", re.IGNORECASE)
#: struct gpiochip_info of <linux/gpio.h>: name, label, lines.
_CHIP = struct.Struct("=32s32sI")
_CHIP_INFO = 0x8044B401


def look(root: str) -> Iterator[Found]:
    model = read(root, "proc/device-tree/model")
    if not model.startswith("Raspberry Pi"):
        return
    value = number(read(root, "sys/class/thermal/thermal_zone0/temp"))
    yield {
        "raspberrypi": {
            "model": model,
            "revision": pairs(read(root, "proc/cpuinfo"), ":").get("Revision"),
            "temperature": value / 1000.0 if value is not None else None,
            "gpio": chips(root),
            "cameras": cameras(root),
        }
    }
    yield {"at": "vcgencmd"}
    yield {"raspberrypi": throttled(firmware(root))}


def firmware(root: str) -> Optional[int]:
    """From a file where the kernel has one, else from the tool, which needs the group video."""
    for path in sorted(glob.glob(place(root, "sys/devices/platform/*/*firmware/get_throttled"))):
        text = read(path)
        try:
            return int(text, 16)  # without 0x
        except ValueError:
            continue
    try:
        said = subprocess.Popen(
            ["vcgencmd", "get_throttled"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ).communicate()[0]
    except OSError:
        return None
    return throttled_word(said.decode("utf-8", "replace"))


def throttled_word(text: str) -> Optional[int]:
    """ "throttled=0x50005"."""
    name, _, value = text.strip().partition("=")
    return number(value) if name == "throttled" and value.startswith("0x") else None


def throttled(word: Optional[int]) -> Found:
    if word is None:
        return {"throttled": None, "throttled_before": None}
    return {
        "throttled": [name for bit, name in _TROUBLES if word >> bit & 1],
        "throttled_before": [name for bit, name in _TROUBLES if word >> (bit + 16) & 1],
    }


def chips(root: str) -> List[Found]:
    """Name, and label and lines where this user may open it (the group gpio)."""
    return [chip(root, name) for name in names(root, "sys/bus/gpio/devices") if name.startswith("gpiochip")]


def chip(root: str, name: str) -> Found:
    answer = array.array("b", bytes(_CHIP.size))
    try:
        descriptor = os.open(place(root, "dev", name), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return {"name": name, "label": None, "lines": None}
    try:
        fcntl.ioctl(descriptor, _CHIP_INFO, answer, True)
    except OSError:
        return {"name": name, "label": None, "lines": None}
    finally:
        os.close(descriptor)
    return chip_info(name, answer.tobytes())


def chip_info(name: str, data: bytes) -> Found:
    _, label, lines = _CHIP.unpack(data)
    return {"name": name, "label": label.split(b"\0")[0].decode("utf-8", "replace") or None, "lines": lines}


def cameras(root: str) -> List[Found]:
    """Sensors on the ribbon cable (sub-devices, named by sensor and bus), and webcams."""
    found = []
    for name in names(root, "sys/class/video4linux"):
        title = read(root, "sys/class/video4linux", name, "name")
        if name.startswith("v4l-subdev") and _SENSOR.match(title):
            found.append({"name": title.split()[0], "kind": "csi"})
        elif name.startswith("video") and _is_usb(place(root, "sys/class/video4linux", name, "device")):
            camera = {"name": title, "kind": "usb"}
            if camera not in found:  # one camera has several nodes
                found.append(camera)
    return found


def _is_usb(path: str) -> bool:
    return "/usb" in os.path.realpath(path)
