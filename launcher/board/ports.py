"""Which serial devices are plugged in here, and who holds them: read from sysfs, nothing is opened."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from .contract import BoardPort
from .errors import BoardError, BoardGone
from .holding import current_holder

SYSFS = Path("/sys/class/tty")
BY_ID = Path("/dev/serial/by-id")
DEVICES = Path("/dev")

# Only what a person can be told from it: which chip speaks USB there.  (vendor, product or None for all)
_KINDS: Mapping[tuple[int, int | None], str] = {
    (0x10C4, 0xEA60): "CP210x USB-serial chip (many ESP8266 and ESP32 boards)",
    (0x1A86, 0x7523): "CH340 USB-serial chip (many ESP8266 and ESP32 boards)",
    (0x1A86, 0x55D4): "CH9102 USB-serial chip (many ESP32 boards)",
    (0x0403, None): "FTDI USB-serial chip",
    (0x067B, None): "Prolific USB-serial chip",
    (0x303A, None): "Espressif, by its own USB",
    (0x2E8A, 0x0005): "Raspberry Pi RP2 with MicroPython",
    (0x2E8A, None): "Raspberry Pi RP2",
    (0x0D28, 0x0204): "BBC micro:bit (or another board with DAPLink)",
    (0xF055, None): "pyboard (MicroPython)",
    (0x239A, None): "Adafruit (CircuitPython)",
}

_USB = re.compile(r"/usb/([0-9A-Fa-f]{1,4}):([0-9A-Fa-f]{1,4})(?:/([A-Za-z0-9_.:@+,=-]+))?")


class SeveralBoards(BoardError):
    """More than one device fits what a target's address says."""

    kind = "board-several"

    def __init__(self, wanted: str, ports: list[BoardPort]) -> None:
        found = ", ".join(port.device for port in ports)
        super().__init__(
            f"{len(ports)} boards fit {wanted}: {found}",
            f"Name one by its serial number, as in {ports[0].address}, or by its device"
            if ports[0].serial
            else "They have no serial numbers: name one by its device, as in serial:///dev/ttyUSB0",
        )


def list_ports() -> list[BoardPort]:
    """Serial devices of this machine, USB ones first."""
    links = dict(_links())
    ports = [_port(entry, links) for entry in sorted(SYSFS.glob("*")) if _is_candidate(entry)]
    return sorted(ports, key=lambda port: port.vendor is None)


def locate(path: str) -> str:
    """The device that an address's path names: itself, or ``/usb/VID:PID[/SERIAL]``.

    Raises `BoardGone` where there is none, `SeveralBoards` where there are several.
    """
    found = _USB.fullmatch(path)
    if found is None:
        return path
    vendor, product, serial = int(found[1], 16), int(found[2], 16), found[3]
    fitting = [
        port
        for port in list_ports()
        if (port.vendor, port.product) == (vendor, product) and serial in (None, address_part(port.serial))
    ]
    if not fitting:
        raise BoardGone(f"serial://{path}")
    if len(fitting) > 1:
        raise SeveralBoards(f"serial://{path}", fitting)
    return fitting[0].device


def address_part(serial: str) -> str:
    """A USB serial number as it stands in an address: whatever an address cannot hold becomes an underscore."""
    return re.sub(r"[^A-Za-z0-9_.:@+,=-]", "_", serial)


def _is_candidate(entry: Path) -> bool:
    """USB devices, and UARTs that are really there (a Raspberry Pi's pins); the others have the type 0, unknown."""
    return (entry / "device").exists() and _text(entry / "type") != "0"


def _port(entry: Path, links: Mapping[str, str]) -> BoardPort:
    device = str(DEVICES / entry.name)
    usb = _usb_device(entry / "device")
    if usb is None:
        return BoardPort(device, holder=current_holder(device), address=f"serial://{device}")
    vendor, product = int(_text(usb / "idVendor"), 16), int(_text(usb / "idProduct"), 16)
    serial = _text(usb / "serial")
    return BoardPort(
        device,
        description=_text(usb / "product") or _text(usb / "manufacturer"),
        vendor=vendor,
        product=product,
        serial=serial,
        by_id=links.get(os.path.realpath(device), ""),
        holder=current_holder(device),
        address=f"serial:///usb/{vendor:04x}:{product:04x}/{address_part(serial)}"
        if serial
        else f"serial://{device}",
        kind=kind_of(vendor, product),
    )


def kind_of(vendor: int | None, product: int | None) -> str:
    """What people can be told of these USB numbers."""
    if vendor is None:
        return ""
    return _KINDS.get((vendor, product)) or _KINDS.get((vendor, None), "")


def _usb_device(device: Path) -> Path | None:
    """The USB device that a tty belongs to: some levels up, the directory with the numbers in it."""
    place = Path(os.path.realpath(device))
    for directory in (place, *place.parents[:6]):
        if (directory / "idVendor").exists() and (directory / "idProduct").exists():
            return directory
    return None


def _links() -> Iterator[tuple[str, str]]:
    try:
        names = sorted(os.listdir(BY_ID))
    except OSError:
        return
    for name in names:
        yield os.path.realpath(BY_ID / name), str(BY_ID / name)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
