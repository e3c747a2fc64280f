"""Boards: serial ports behind USB, and what the device at the other end says of itself."""

import os
from typing import Any, Dict, Iterator, List, Optional

from ..holds import current_holder
from .files import names, place, read

Found = Dict[str, Any]
_LEVELS = 6  # from the port up to the USB device: port, interface, device


def look(root: str) -> Iterator[Found]:
    yield {"boards": ports(root)}


def ports(root: str) -> List[Found]:
    links = by_id(root)
    found = []
    for name in names(root, "sys/class/tty"):
        usb = usb_device(place(root, "sys/class/tty", name, "device"))
        if usb is None:
            continue
        device = "/dev/" + name
        found.append(
            {
                "device": device,
                "by_id": links.get(name),
                "vid": read(usb, "idVendor").lower(),
                "pid": read(usb, "idProduct").lower(),
                "serial": read(usb, "serial") or None,
                "manufacturer": read(usb, "manufacturer") or None,
                "product": read(usb, "product") or None,
                "driver": driver(place(root, "sys/class/tty", name, "device")),
                "usable": os.access(place(root, device), os.R_OK | os.W_OK),
                "holder": current_holder(place(root, device)) or None,
            }
        )
    return found


def by_id(root: str) -> Dict[str, str]:
    """Port → the name that stays the same wherever the board is plugged in (made by udev)."""
    found: Dict[str, str] = {}
    for name in names(root, "dev/serial/by-id"):
        try:
            port = os.path.basename(os.readlink(place(root, "dev/serial/by-id", name)))
        except OSError:
            continue
        found.setdefault(port, "/dev/serial/by-id/" + name)
    return found


def usb_device(directory: str) -> Optional[str]:
    """The USB device that a port is a part of; None: it is on no USB."""
    path = os.path.realpath(directory)
    for _ in range(_LEVELS):
        if read(path, "idVendor"):
            return path
        path = os.path.dirname(path)
    return None


def driver(directory: str) -> Optional[str]:
    try:
        return os.path.basename(os.readlink(os.path.join(directory, "driver")))
    except OSError:
        return None
