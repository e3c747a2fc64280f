"""The header, segments and checksums of an image for ESP8266 and ESP32 chips; sans-I/O.

Format: Espressif's "Firmware Image Format" (esptool's documentation).  The ESP32's has 16 more bytes of header, with
the number of its chip; the ESP8266's has no mark of its own, so it is known by where its segments are loaded.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import reduce
from operator import xor

from .errors import BadFirmware

MAGIC = 0xE9
CHECKSUM_START = 0xEF
MIB = 1 << 20

# (esptool's targets/*.py: IMAGE_CHIP_ID, BOOTLOADER_FLASH_OFFSET)
CHIPS = {
    0: "esp32",
    2: "esp32s2",
    5: "esp32c3",
    9: "esp32s3",
    12: "esp32c2",
    13: "esp32c6",
    16: "esp32h2",
    18: "esp32p4",
    20: "esp32c61",
    23: "esp32c5",
}
BOOTLOADER_OFFSETS = {"esp8266": 0, "esp32": 0x1000, "esp32s2": 0x1000, "esp32p4": 0x2000, "esp32c5": 0x2000}

# High half of the header's fourth byte.
ESP8266_FLASH_SIZES = {
    0: MIB // 2,
    1: MIB // 4,
    2: MIB,
    3: 2 * MIB,
    4: 4 * MIB,
    5: 2 * MIB,
    6: 4 * MIB,
    8: 8 * MIB,
    9: 16 * MIB,
}
ESP32_FLASH_SIZES = {code: MIB << code for code in range(8)}

# Where the ESP8266's boot ROM can put a segment: data RAM, and instruction RAM.
_ESP8266_MEMORY = ((0x3FFE8000, 0x40000000), (0x40100000, 0x40108000))


class BadEspImage(BadFirmware):
    def __init__(self, reason: str) -> None:
        super().__init__(
            f"this is not an image for an ESP chip, or it is damaged: {reason}",
            "Get the file again from where it came from, and compare its size",
        )


@dataclass(frozen=True)
class Segment:
    address: int
    offset: int
    size: int


@dataclass(frozen=True)
class EspImage:
    """What the header says, and that the checksums are right."""

    chip: str
    flash_size: int | None  # in bytes; None: a code that we do not know
    segments: tuple[Segment, ...]
    end: int  # the first byte after checksum and hash


def parse(data: bytes) -> EspImage:
    """The image that begins at the first byte; raises BadEspImage."""
    if len(data) < 24:
        raise BadEspImage(f"it has only {len(data)} bytes")
    if data[0] != MAGIC:
        raise BadEspImage(f"it begins with the byte {data[0]:#04x} where {MAGIC:#04x} is expected")
    try:
        return _parse_esp8266(data)
    except BadEspImage as error:
        if not _looks_like_esp32(data):
            raise error
    return _parse_esp32(data)


def with_flash_size(data: bytes, chip: str, flash_size: int) -> bytes:
    """The same image with another size in its header: an ESP8266 believes the header, not the flash chip."""
    codes = ESP8266_FLASH_SIZES if chip == "esp8266" else ESP32_FLASH_SIZES
    code = next((code for code, size in codes.items() if size == flash_size), None)
    if code is None:
        raise BadFirmware(
            f"{chip} knows no flash of {flash_size} bytes",
            f"Possible are: {', '.join(size_name(size) for size in sorted(set(codes.values())))}",
        )
    changed = data[:3] + bytes([code << 4 | data[3] & 0x0F]) + data[4:]
    if chip == "esp8266" or not data[23]:
        return changed
    end = parse(data).end - 32  # the boot loader's own hash is made anew, as esptool does
    return changed[:end] + hashlib.sha256(changed[:end]).digest() + changed[end + 32 :]


def size_name(size: int) -> str:
    return f"{size // MIB}M" if size >= MIB and size % MIB == 0 else f"{size // 1024}K"


def _parse_esp8266(data: bytes) -> EspImage:
    segments, end = _segments(data, 8)
    for segment in segments:
        if not any(
            low <= segment.address and segment.address + segment.size <= high for low, high in _ESP8266_MEMORY
        ):
            raise BadEspImage(f"a segment would be loaded to {segment.address:#010x}, where no memory is")
    return EspImage("esp8266", ESP8266_FLASH_SIZES.get(data[3] >> 4), segments, _checked(data, segments, end))


def _looks_like_esp32(data: bytes) -> bool:
    """By its chip number, and the reserved bytes of the longer header, which are zero; the last one is 0 or 1."""
    (chip,) = struct.unpack_from("<H", data, 12)
    return chip in CHIPS and data[19:23] == bytes(4) and data[23] in (0, 1)


def _parse_esp32(data: bytes) -> EspImage:
    (chip,) = struct.unpack_from("<H", data, 12)
    segments, end = _segments(data, 24)
    end = _checked(data, segments, end)
    if data[23]:
        if len(data) < end + 32:
            raise BadEspImage("it ends before its SHA-256")
        if hashlib.sha256(data[:end]).digest() != data[end : end + 32]:
            # The flash size, mode and frequency may have been changed afterwards without a new hash (esptool v3).
            raise BadEspImage("its SHA-256 is wrong")
        end += 32
    return EspImage(CHIPS[chip], ESP32_FLASH_SIZES.get(data[3] >> 4), segments, end)


def _segments(data: bytes, position: int) -> tuple[tuple[Segment, ...], int]:
    count = data[1]
    if not 1 <= count <= 16:
        raise BadEspImage(f"it claims to have {count} segments")
    segments = []
    for _ in range(count):
        if position + 8 > len(data):
            raise BadEspImage("it ends within the header of a segment")
        address, size = struct.unpack_from("<II", data, position)
        position += 8
        if size > len(data) - position:
            raise BadEspImage("it ends within a segment")
        segments.append(Segment(address, position, size))
        position += size
    return tuple(segments), position


def _checked(data: bytes, segments: tuple[Segment, ...], end: int) -> int:
    """The checksum is the last byte of the 16 that the segments end in, or of the next 16."""
    place = end | 15
    if place >= len(data):
        raise BadEspImage("it ends before its checksum")
    checksum = CHECKSUM_START
    for segment in segments:
        checksum = reduce(xor, data[segment.offset : segment.offset + segment.size], checksum)
    if checksum != data[place]:
        raise BadEspImage("its checksum is wrong")
    return place + 1
