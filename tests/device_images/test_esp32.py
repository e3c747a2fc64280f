"""ESP32: the partition table, and where MicroPython's files are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.device_images import esp32, partition_table
from farkernel.device_images.errors import BadFirmware
from farkernel.device_images.esp8266.firmware import NoRoom
from farkernel.device_images.esp_image import MIB
from farkernel.device_images.partition_table import BadPartitionTable, Partition
from farkernel.device_images.region import Region
from tests.device_images.samples import (
    FACTORY,
    NVS,
    VFS,
    esp32_bootloader,
    esp32_firmware,
    esp8266_firmware,
    partition,
)
from tests.device_images.samples import (
    partition_table as table,
)

GOOD = table(NVS, FACTORY, VFS)


def test_a_table() -> None:
    assert partition_table.parse(GOOD) == (
        Partition(1, 2, Region(0x9000, 0x6000), "nvs"),
        Partition(0, 0, Region(0x10000, 0x1F0000), "factory"),
        Partition(1, 0x81, Region(0x200000, 0x200000), "vfs"),
    )


def test_a_table_without_md5() -> None:
    assert len(partition_table.parse((NVS + VFS).ljust(256, b"\xff"))) == 2


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it has no end"),
        (NVS * 3, "it has no end"),
        (b"\xff" * 64, "it is empty"),
        (NVS + b"\0" * 32, "entry 1 has no mark"),
        (table(NVS, NVS), "the place of 'nvs' cannot be right"),
        (table(partition(1, 2, 0x1000, 0x1000, "low")), "the place of 'low' cannot be right"),
        (table(partition(1, 2, 0x9000, 0, "none")), "the place of 'none' cannot be right"),
        (table(NVS).replace(b"nvs", b"nvt"), "its MD5 is wrong"),
    ],
)
def test_bad_tables(data: bytes, reason: str) -> None:
    with pytest.raises(BadPartitionTable) as error:
        partition_table.parse(data)
    assert error.value.what.endswith(reason)


@given(st.integers(0, 4 * 32 - 1), st.integers(1, 255))
def test_a_wrong_byte_is_seen(place: int, other: int) -> None:
    bad = GOOD[:place] + bytes([GOOD[place] ^ other]) + GOOD[place + 1 :]
    try:
        assert partition_table.parse(bad) == partition_table.parse(GOOD)
    except BadPartitionTable:
        return
    assert 96 <= place < 112  # nothing is in the row of the MD5 before it


@given(st.binary(max_size=400))
def test_any_bytes_are_a_table_or_an_error(data: bytes) -> None:
    try:
        assert partition_table.parse(data)
    except BadPartitionTable:
        return


@pytest.mark.parametrize(("chip", "offset"), [(0, 0x1000), (2, 0x1000), (9, 0), (5, 0), (18, 0x2000)])
def test_a_firmware(chip: int, offset: int) -> None:
    found = esp32.parse(esp32_firmware(chip, offset))
    assert found.offset == offset
    assert found.version == (1, 25, 0)
    assert found.region(4 * MIB) == Region(0x200000, 0x200000)


@pytest.mark.parametrize("chip", [0, 18])
def test_an_image_of_the_whole_flash(chip: int) -> None:
    """As `esptool merge-bin` and we make it."""
    offset = 0x1000 if chip == 0 else 0x2000
    found = esp32.parse(b"\xff" * offset + esp32_firmware(chip, offset))
    assert found.offset == 0
    assert found.region(4 * MIB) == Region(0x200000, 0x200000)


@pytest.mark.parametrize(
    ("entries", "flash", "what"),
    [
        ((NVS, FACTORY), 4 * MIB, "names no place for files"),
        ((NVS, FACTORY, partition(1, 0x81, 0x200000, 0x200000, "ffat")), 4 * MIB, "FAT file system"),
        ((NVS, FACTORY, partition(1, 0x81, 0x200000, 0x1800, "vfs")), 4 * MIB, "no room of whole blocks"),
    ],
)
def test_no_place_for_files(entries: tuple[bytes, ...], flash: int, what: str) -> None:
    with pytest.raises(BadFirmware, match=what):
        esp32.parse(esp32_firmware(0, 0x1000, *entries)).region(flash)


@pytest.mark.parametrize(("flash", "size"), [(4 * MIB, 0x200000), (16 * MIB, 0xE00000)])
def test_from_1_26_on_files_fill_the_flash(flash: int, size: int) -> None:
    data = esp32_firmware(0, 0x1000, NVS, FACTORY, version=b"v1.26.1")
    found = esp32.parse(data)
    assert found.fills_flash
    assert found.region(flash) == Region(0x200000, size)
    assert not found.has_files(data)
    with pytest.raises(NoRoom, match="no room of whole blocks"):
        found.region(2 * MIB)


def test_a_small_flash() -> None:
    with pytest.raises(NoRoom, match="files up to 4M, and the flash has only 2M"):
        esp32.parse(esp32_firmware()).region(2 * MIB)


def test_not_a_whole_firmware() -> None:
    with pytest.raises(BadFirmware, match="no partition table"):
        esp32.parse(esp32_bootloader())
    with pytest.raises(BadFirmware, match="for ESP8266, not for ESP32"):
        esp32.parse(esp8266_firmware())
