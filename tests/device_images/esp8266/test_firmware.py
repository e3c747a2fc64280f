"""MicroPython's ESP8266 firmware: version, variant, the place of its files, and every wrong byte is seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.device_images.errors import BadFirmware
from farkernel.device_images.esp8266 import firmware
from farkernel.device_images.esp8266.firmware import DamagedFirmware, NoRoom, OldFirmware, Variant
from farkernel.device_images.esp_image import MIB
from farkernel.device_images.region import Region
from tests.device_images.samples import (
    BANNER,
    BANNER_1M,
    BANNER_512K,
    esp32_firmware,
    esp8266_firmware,
    esp8266_image,
)

GOOD = esp8266_firmware()


def test_what_it_says() -> None:
    found = firmware.parse(GOOD + b"a file system may follow")
    assert found.size == len(GOOD)
    assert found.version == (1, 25, 0)
    assert found.variant is Variant.STANDARD


@pytest.mark.parametrize(
    ("banner", "version"),
    [
        (b"MicroPython v1.22.2 on 2024-02-22; x", (1, 22, 2)),
        (b"MicroPython v1.13 on 2020-09-02; x", (1, 13, 0)),
        (b"MicroPython v1.26.0-preview.12.gabc123 on 2025-05-01; x", (1, 26, 0)),
        (b"MicroPython, whenever", None),
    ],
)
def test_versions(banner: bytes, version: tuple[int, int, int] | None) -> None:
    assert firmware.parse(esp8266_firmware(banner=banner)).version == version


# flashbdev.py: files begin at the linker file's _firmware_size, one sector later below 1 MiB, and end 20 KiB before the end.
@pytest.mark.parametrize(
    ("banner", "flash", "region"),
    [
        (BANNER, 2 * MIB, Region(0x100000, 0xFB000)),
        (BANNER, 4 * MIB, Region(0x100000, 0x2FB000)),
        (BANNER, 16 * MIB, Region(0x100000, 0xEFB000)),
        (BANNER_1M, MIB, Region(0x99000, 0x62000)),
        (BANNER_1M, 4 * MIB, Region(0x99000, 0x362000)),
    ],
)
def test_where_the_files_are(banner: bytes, flash: int, region: Region) -> None:
    assert firmware.parse(esp8266_firmware(banner=banner)).region(flash) == region
    assert region.blocks * 4096 == region.size


@pytest.mark.parametrize(
    ("banner", "flash", "what"),
    [
        (BANNER, MIB, "has its files from 1024 KiB on, and the flash has only 1M"),
        (BANNER_1M, MIB // 2, "the flash has only 512K"),
        (BANNER_512K, MIB // 2, "for boards with 512 KiB of flash, and has no file system"),
    ],
)
def test_no_room_for_files(banner: bytes, flash: int, what: str) -> None:
    with pytest.raises(NoRoom, match=what) as error:
        firmware.parse(esp8266_firmware(banner=banner)).region(flash)
    assert "made for the size of the board's flash" in error.value.advice


def test_an_old_one_has_fat() -> None:
    found = firmware.parse(esp8266_firmware(banner=b"MicroPython v1.12 on 2019-12-20; x"))
    with pytest.raises(OldFirmware, match=r"MicroPython 1\.12\.0 keeps its files in a FAT"):
        found.region(4 * MIB)


@given(st.integers(4, len(GOOD) - 1), st.integers(1, 255))
def test_a_wrong_byte_anywhere_is_seen(place: int, other: int) -> None:
    """But in the first four, which esptool may change for the flash of the board."""
    bad = GOOD[:place] + bytes([GOOD[place] ^ other]) + GOOD[place + 1 :]
    with pytest.raises(BadFirmware):
        firmware.parse(bad)


@given(st.integers(0, len(GOOD) - 1))
def test_a_cut_is_seen(size: int) -> None:
    with pytest.raises(BadFirmware):
        firmware.parse(GOOD[:size])


def test_damage_is_named() -> None:
    with pytest.raises(DamagedFirmware, match="its MD5 does not match its content"):
        firmware.parse(GOOD[:-1] + bytes([GOOD[-1] ^ 1]))


def test_another_program_with_any_number_there() -> None:
    other = esp8266_image().ljust(0x8FFC, b"\xff") + (0xA000).to_bytes(4, "little") + bytes(0x2000)
    with pytest.raises(BadFirmware, match="not MicroPython's"):
        firmware.parse(other)


def test_another_program() -> None:
    with pytest.raises(BadFirmware, match="not MicroPython's"):
        firmware.parse(esp8266_image().ljust(0x20000, b"\xff"))


def test_an_esp32s() -> None:
    with pytest.raises(BadFirmware, match="for esp32, not for ESP8266"):
        firmware.parse(esp32_firmware())
