"""What a firmware file of MicroPython's ESP8266 port says about itself; sans-I/O.

The port's makeimg.py puts a boot image first (loaded into RAM by the boot ROM), the code that runs from flash at
0x9000, the length of both in the word before it, and the MD5 of all but the first four bytes at the end; the board
checks the same with esp.check_fw().
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from enum import Enum

from .. import esp_image
from ..errors import BadFirmware
from ..esp_image import MIB, EspImage, size_name
from ..region import BLOCK, Region

CODE_START = 0x9000
SDK_PARAMETERS = 20 * 1024  # at the end of the flash (flashbdev.py)

_VERSION = re.compile(rb"v(\d+)\.(\d+)(?:\.(\d+))?[0-9A-Za-z.+-]* on \d{4}-\d\d-\d\d")


class Variant(Enum):
    """How the firmware was linked (ports/esp8266/boards/*.ld), which says where the file system begins."""

    FLASH_512K = "FLASH_512K"
    FLASH_1M = "FLASH_1M"
    STANDARD = "standard"


# `_firmware_size` of the linker files.  Below 1 MiB flashbdev.py leaves one sector to native code.
_FILE_SYSTEM_START = {Variant.FLASH_1M: 0x98000 + BLOCK, Variant.STANDARD: MIB}
# The board's name is a part of the banner: "ESP module (1M) with ESP8266".
_MARKS = (
    (b"ESP module (512K)", Variant.FLASH_512K),
    (b"GENERIC-FLASH_512K", Variant.FLASH_512K),
    (b"ESP module (1M)", Variant.FLASH_1M),
    (b"GENERIC-FLASH_1M", Variant.FLASH_1M),
)


class NoRoom(BadFirmware):
    """A firmware that has no file system on this flash."""

    def __init__(self, what: str) -> None:
        super().__init__(what, "Take the firmware that was made for the size of the board's flash")


class OldFirmware(BadFirmware):
    def __init__(self, version: str) -> None:
        super().__init__(
            f"MicroPython {version} keeps its files in a FAT file system at another place",
            "Take version 1.13 or newer; littlefs came with it",
        )


class DamagedFirmware(BadFirmware):
    def __init__(self) -> None:
        super().__init__(
            "this MicroPython for ESP8266 is damaged: its MD5 does not match its content",
            "Get the file again from where it came from",
        )


@dataclass(frozen=True)
class Esp8266Firmware:
    image: EspImage
    size: int  # without what may follow it in the file
    version: tuple[int, int, int] | None
    variant: Variant

    def region(self, flash_size: int) -> Region:
        """Where this firmware looks for its files on a flash of that size (flashbdev.py)."""
        if self.version is not None and self.version < (1, 13, 0):
            raise OldFirmware(".".join(map(str, self.version)))
        start = _FILE_SYSTEM_START.get(self.variant)
        if start is None:
            raise NoRoom(
                f"this firmware ({self.variant.value}) is for boards with 512 KiB of flash, and has no file system"
            )
        end = flash_size - SDK_PARAMETERS
        if end - start < 2 * BLOCK:
            raise NoRoom(
                f"this firmware ({self.variant.value}) has its files from {start // 1024} KiB on, "
                f"and the flash has only {size_name(flash_size)}"
            )
        return Region(start, end - start)


def parse(data: bytes) -> Esp8266Firmware:
    """Raises BadFirmware (BadEspImage, DamagedFirmware): no ESP8266 image, or not MicroPython, or damaged."""
    image = esp_image.parse(data)
    if image.chip != "esp8266":
        raise BadFirmware(
            f"this firmware is for {image.chip}, not for ESP8266",
            f"Use `farkernel image {family(image.chip)}`",
        )
    if image.end > CODE_START - 4 or len(data) < CODE_START + 16:
        raise _no_micropython()
    (size,) = struct.unpack_from("<I", data, CODE_START - 4)
    if not CODE_START < size <= MIB:
        raise _no_micropython()
    if (
        len(data) < size + 16
        or hashlib.md5(data[4:size], usedforsecurity=False).digest() != data[size : size + 16]
    ):
        # Another program has anything in that word.
        raise DamagedFirmware if b"MicroPython" in data else _no_micropython()
    return Esp8266Firmware(image, size + 16, version_in(data[:size]), _variant(data[:size]))


def family(chip: str) -> str:
    return "esp8266" if chip == "esp8266" else "esp32"


def version_in(data: bytes) -> tuple[int, int, int] | None:
    """From the banner that every MicroPython prints."""
    found = _VERSION.search(data)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def _variant(data: bytes) -> Variant:
    return next((variant for mark, variant in _MARKS if mark in data), Variant.STANDARD)


def _no_micropython() -> BadFirmware:
    return BadFirmware(
        "this is an image for ESP8266, but not MicroPython's: it has no length and MD5 where MicroPython has them",
        "Take a firmware from https://micropython.org/download/?port=esp8266 (the OTA variant cannot be used)",
    )
