"""Where the boot partition lies in an image of a card: MBR (what Raspberry Pi OS has), or GPT (UEFI 2.10 §5)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .errors import NoBootPartition, NotAnImage

SECTOR = 512
Reader = Callable[[int, int], bytes]  # offset, size → at most that many bytes

_PACKED = {
    b"\xfd7zXZ\0": "xz",
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
}
_EXTENDED = (0x05, 0x0F, 0x85)
_GPT = 0xEE
_MOST_ENTRIES = 256


class Partition(NamedTuple):
    """In bytes."""

    start: int
    size: int


def packing(head: bytes) -> str:
    """By what a file is packed; empty: by nothing that we know."""
    return next((name for mark, name in _PACKED.items() if head.startswith(mark)), "")


def boot_partition(read: Reader, size: int, name: str) -> Partition:
    """The first partition with a FAT file system.  Raises NotAnImage, NoBootPartition."""
    first = read(0, SECTOR)
    if len(first) < SECTOR or first[510:512] != b"\x55\xaa":
        raise NotAnImage(name, "it has no partition table" if first.strip(b"\0") else "it is empty")
    if _is_fat(first):
        raise NotAnImage(
            name, "it is a single FAT partition; write files onto it with --onto, once it is mounted"
        )
    found = list(_partitions(first, read))
    if not found:
        raise NoBootPartition(name, "its partition table is empty")
    for each in found:
        if each.start + each.size > size:
            raise NotAnImage(
                name, "it ends before its partitions do; it was not copied or downloaded to its end"
            )
    for each in found:
        if _is_fat(read(each.start, SECTOR)):
            return each
    raise NoBootPartition(name, "none of its partitions is FAT")


def _partitions(first: bytes, read: Reader) -> Iterator[Partition]:
    entries = [first[446 + 16 * number :][:16] for number in range(4)]
    if any(entry[4] == _GPT for entry in entries):
        yield from _gpt_partitions(read)
        return
    for entry in entries:
        start, sectors = struct.unpack_from("<II", entry, 8)
        if entry[4] and entry[4] not in _EXTENDED and start and sectors:
            yield Partition(start * SECTOR, sectors * SECTOR)


def _gpt_partitions(read: Reader) -> Iterator[Partition]:
    header = read(SECTOR, SECTOR)
    if len(header) < 92 or header[:8] != b"EFI PART":
        return
    place, count, size = struct.unpack_from("<QII", header, 72)
    if not 128 <= size <= 4096:
        return
    for number in range(min(count, _MOST_ENTRIES)):
        entry = read(place * SECTOR + number * size, size)
        if len(entry) < size:
            return
        start, last = struct.unpack_from("<QQ", entry, 32)
        if entry[:16].strip(b"\0") and 0 < start <= last:
            yield Partition(start * SECTOR, (last - start + 1) * SECTOR)


def _is_fat(sector: bytes) -> bool:
    """By the marks that every formatter leaves (Microsoft, "FAT: General Overview of On-Disk Format")."""
    return (
        len(sector) == SECTOR
        and sector[510:512] == b"\x55\xaa"
        and sector[0] in (0xEB, 0xE9)
        and (sector[54:57] == b"FAT" or sector[82:85] == b"FAT")
    )
