"""Firmware files for tests: the formats are the real ones, what is in them is not."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Sequence
from functools import reduce
from operator import xor

from farkernel.device_images import uf2

BANNER = b"MicroPython v1.25.0 on 2025-04-15; ESP module with ESP8266"
BANNER_1M = b"MicroPython v1.25.0 on 2025-04-15; ESP module (1M) with ESP8266"
BANNER_512K = b"MicroPython v1.25.0 on 2025-04-15; ESP module (512K) with ESP8266"

Segments = Sequence[tuple[int, bytes]]
RAM_SEGMENTS: Segments = ((0x40100000, bytes(range(256)) * 4), (0x3FFE8000, b"data" * 64))


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def esp8266_image(segments: Segments = RAM_SEGMENTS, flash_code: int = 4) -> bytes:
    """What the boot ROM loads."""
    return _image(bytes([0xE9, len(segments), 0, flash_code << 4]) + struct.pack("<I", 0x40100000), segments)


def esp8266_firmware(size: int = 0xA000, banner: bytes = BANNER, image: bytes | None = None) -> bytes:
    """As ports/esp8266/makeimg.py puts it together; `size` without the MD5."""
    start = esp8266_image() if image is None else image
    start = start.ljust(0x9000 - 4, b"\xff") + struct.pack("<I", size)
    code = (banner + b"\0").ljust(256, b"\xa5") + noise(size - 0x9000 - 256)
    return start + code + md5((start + code)[4:])


def esp32_bootloader(chip: int = 0, flash_code: int = 2) -> bytes:
    header = bytes([0xE9, 1, 0, flash_code << 4]) + struct.pack("<I", 0x40080000)
    extended = bytes([0xEE, 0, 0, 0]) + struct.pack("<H", chip) + bytes(9) + b"\1"
    image = _image(header + extended, ((0x3FFF0018, noise(2000)),))
    return image + hashlib.sha256(image).digest()


def partition(kind: int, subtype: int, start: int, size: int, label: str) -> bytes:
    return struct.pack("<HBBII16sI", 0x50AA, kind, subtype, start, size, label.encode(), 0)


NVS = partition(1, 2, 0x9000, 0x6000, "nvs")
FACTORY = partition(0, 0, 0x10000, 0x1F0000, "factory")
VFS = partition(1, 0x81, 0x200000, 0x200000, "vfs")


def partition_table(*entries: bytes) -> bytes:
    table = b"".join(entries)
    return (table + b"\xeb\xeb" + b"\xff" * 14 + md5(table)).ljust(0xC00, b"\xff")


def esp32_firmware(
    chip: int = 0, offset: int = 0x1000, *entries: bytes, version: bytes = b"v1.25.0"
) -> bytes:
    """As MicroPython gives it out: from the boot loader on, the application at 0x10000."""
    table = partition_table(*(entries or (NVS, FACTORY, VFS)))
    start = esp32_bootloader(chip).ljust(0x8000 - offset, b"\xff") + table
    application = b"MicroPython " + version + b" on 2025-04-15; Generic ESP32 module with ESP32\0"
    return start.ljust(0x10000 - offset, b"\xff") + application + noise(5000)


def rp2_firmware(
    version: str = "v1.25.0", start: int = 0x100A0000, size: int = 1408 * 1024, family: int = 0xE48BFF56
) -> bytes:
    """A UF2 file with binary info behind the second boot stage: a list, three entries (one is ROMFS), a text."""
    flash = bytearray(noise(0x2000))
    base = 0x10000000
    list_at, version_at, romfs_at, device_at, text_at, name_at = (
        0x1000,
        0x1100,
        0x1180,
        0x1200,
        0x1300,
        0x1380,
    )
    struct.pack_into("<5I", flash, 0x110, 0x7188EBF2, base + list_at, base + list_at + 12, 0, 0xE71AA390)
    struct.pack_into("<3I", flash, list_at, base + version_at, base + romfs_at, base + device_at)
    struct.pack_into("<HHIIIIH", flash, romfs_at, 7, 0x504D, base + name_at, 0x10060000, 0x40000, 0, 1)
    struct.pack_into("<HHII", flash, version_at, 6, 0x5052, 0x11A9BC3A, base + text_at)
    struct.pack_into("<HHIIIIH", flash, device_at, 7, 0x504D, base + name_at, start, size, 0, 0x1F)
    flash[text_at : text_at + len(version) + 1] = version.encode() + b"\0"
    return uf2.serialize(family, uf2.pieces(base, bytes(flash)))


def _image(header: bytes, segments: Segments) -> bytes:
    out, checksum = header, 0xEF
    for address, data in segments:
        out += struct.pack("<II", address, len(data)) + data
        checksum = reduce(xor, data, checksum)
    return out.ljust(len(out) | 15, b"\0") + bytes([checksum])
