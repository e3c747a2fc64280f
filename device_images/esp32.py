"""What a firmware file of MicroPython's ESP32 port says about itself; sans-I/O.

Such a file begins with the boot loader, which lies at 0x1000 on some chips and at 0 on others; an image that begins
with the flash itself (`esptool merge-bin`) has 0xff before it.  The partition table inside says where the files lie.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import esp_image, partition_table
from .errors import BadFirmware
from .esp8266.firmware import NoRoom, version_in
from .esp_image import BOOTLOADER_OFFSETS, EspImage, size_name
from .partition_table import Partition
from .region import BLOCK, Region


@dataclass(frozen=True)
class Esp32Firmware:
    bootloader: EspImage
    offset: int  # in the flash, of the file's first byte
    partitions: tuple[Partition, ...]
    version: tuple[int, int, int] | None

    def region(self, flash_size: int) -> Region:
        """Of the partition that MicroPython's flashbdev.py looks for; raises BadFirmware."""
        found = {
            partition.label: partition
            for partition in self.partitions
            if partition.kind == partition_table.DATA
        }
        if "vfs" not in found and "ffat" in found:
            raise BadFirmware(
                "this firmware keeps its files in a FAT file system (partition 'ffat')",
                "Take MicroPython's firmware without TinyUF2",
            )
        if "vfs" not in found:
            raise BadFirmware(
                "this firmware's partition table names no place for files: the board makes one when it starts",
                "Say where it is: start the firmware once, ask `vfs` of esp32.Partition, and use --region START:SIZE",
            )
        region = found["vfs"].region
        if region.end > flash_size:
            raise NoRoom(
                f"this firmware has its files up to {size_name(region.end)}, "
                f"and the flash has only {size_name(flash_size)}"
            )
        if region.start % BLOCK or region.size % BLOCK or region.blocks < 2:
            raise BadFirmware("the partition 'vfs' is not made of whole blocks", "Take another firmware")
        return region


def parse(data: bytes) -> Esp32Firmware:
    """Raises BadFirmware."""
    begin = 0
    if data[:1] == b"\xff":
        begin = next((place for place in (0x1000, 0x2000) if data[place : place + 1] == b"\xe9"), 0)
    bootloader = esp_image.parse(data[begin:])
    if bootloader.chip == "esp8266":
        raise BadFirmware("this firmware is for ESP8266, not for ESP32", "Use `farkernel image esp8266`")
    offset = BOOTLOADER_OFFSETS.get(bootloader.chip, 0) - begin
    table = data[partition_table.OFFSET - offset :][: partition_table.SIZE]
    if offset < 0 or not table:
        raise BadFirmware(
            "this file holds only a boot loader or an application, no partition table",
            "Take the whole firmware from https://micropython.org/download/?port=esp32, not the .app-bin for updates",
        )
    return Esp32Firmware(bootloader, offset, partition_table.parse(table), version_in(data))
