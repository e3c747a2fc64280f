"""What a firmware file of MicroPython's ESP32 port says about itself; sans-I/O.

Such a file begins with the boot loader, which lies at 0x1000 on some chips and at 0 on others; an image that begins
with the flash itself (`esptool merge-bin`) has 0xff before it.  The partition table inside says where the files lie.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import esp_image, file_system, partition_table
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
        found = self._data_partitions()
        if "vfs" not in found and "ffat" in found:
            raise BadFirmware(
                "this firmware keeps its files in a FAT file system (partition 'ffat')",
                "Take MicroPython's firmware without TinyUF2",
            )
        if "vfs" in found:
            region = found["vfs"].region
        elif self.fills_flash:
            end = max(partition.region.end for partition in self.partitions)
            region = Region(end, max(flash_size - end, 0))
        else:
            raise BadFirmware(
                "this firmware's partition table names no place for files",
                "Take MicroPython 1.26 or newer, or say where its files are with --region START:SIZE",
            )
        if region.end > flash_size:
            raise NoRoom(
                f"this firmware has its files up to {size_name(region.end)}, "
                f"and the flash has only {size_name(flash_size)}"
            )
        if region.start % BLOCK or region.size % BLOCK or region.blocks < 2:
            raise NoRoom("there is no room of whole blocks for files in this firmware's partition table")
        return region

    @property
    def fills_flash(self) -> bool:
        """It makes its `vfs` itself when it starts, from the table's last partition to the end of the flash.

        Since 1.26 (main.c: boardctrl_startup; micropython#17337); it asks the flash chip for the size, not the header.
        """
        modern = self.version is None or self.version >= (1, 26, 0)
        return modern and not {"vfs", "ffat"} & self._data_partitions().keys()

    def has_files(self, data: bytes) -> bool:
        """Whether the image brings a file system that must end where the flash ends."""
        if not self.fills_flash:
            return False
        return file_system.begins_at(data, max(part.region.end for part in self.partitions) - self.offset)

    def _data_partitions(self) -> dict[str, Partition]:
        return {
            partition.label: partition
            for partition in self.partitions
            if partition.kind == partition_table.DATA
        }


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
