"""The partition table of ESP32 chips; sans-I/O.

Format: ESP-IDF's "Partition Tables": entries of 32 bytes at 0x8000 in the flash, then the MD5 of them, then 0xff.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from .errors import BadFirmware
from .region import BLOCK, Region

OFFSET = 0x8000
SIZE = 0xC00
DATA = 1
FAT = 0x81  # of the type DATA; MicroPython's "vfs" has it too, with littlefs inside
_ENTRY = struct.Struct("<HBBII16sI")
_MAGIC = 0x50AA
_MD5_MAGIC = 0xEBEB


class BadPartitionTable(BadFirmware):
    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the partition table in this firmware is damaged: {reason}",
            "Get the file again from where it came from",
        )


@dataclass(frozen=True)
class Partition:
    kind: int
    subtype: int
    region: Region
    label: str


def parse(data: bytes) -> tuple[Partition, ...]:
    """The table that begins at the first byte; raises BadPartitionTable."""
    partitions: list[Partition] = []
    for position in range(0, min(len(data), SIZE) - _ENTRY.size + 1, _ENTRY.size):
        entry = data[position : position + _ENTRY.size]
        magic, kind, subtype, start, size, label, _ = _ENTRY.unpack(entry)
        if magic == _MD5_MAGIC:
            if hashlib.md5(data[:position], usedforsecurity=False).digest() != entry[16:]:
                raise BadPartitionTable("its MD5 is wrong")
            return _checked(partitions)
        if entry == b"\xff" * _ENTRY.size:
            return _checked(partitions)
        if magic != _MAGIC:
            raise BadPartitionTable(f"entry {position // _ENTRY.size} has no mark")
        name = label.split(b"\0", 1)[0].decode("ascii", "replace")
        partitions.append(Partition(kind, subtype, Region(start, size), name))
    raise BadPartitionTable("it has no end")


def _checked(partitions: list[Partition]) -> tuple[Partition, ...]:
    if not partitions:
        raise BadPartitionTable("it is empty")
    end = OFFSET + BLOCK
    for partition in sorted(partitions, key=lambda partition: partition.region.start):
        if partition.region.start < end or not partition.region.size:
            raise BadPartitionTable(f"the place of {partition.label!a} cannot be right")
        end = partition.region.end
    return tuple(partitions)
