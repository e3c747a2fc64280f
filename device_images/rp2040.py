"""What a firmware of MicroPython's rp2 port says about itself; sans-I/O.

It has "binary info", as picotool reads it (pico-sdk: binary_info/structure.h): two marks near the beginning of flash,
between them the ends of a list of entries; MicroPython names its version there, and the place of its files.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from . import uf2
from .errors import BadFirmware
from .region import BLOCK, Region
from .uf2 import PAYLOAD, Uf2

FLASH = 0x10000000  # XIP_BASE: where the flash is in the chip's memory
FLASH_END = FLASH + (16 << 20)
_MARK, _MARK_END = 0x7188EBF2, 0xE71AA390
_MARKS_END = FLASH + 4096  # behind the second boot stage on RP2040, behind the vectors on RP2350
_ID_AND_STRING, _BLOCK_DEVICE = 6, 7
_WRITABLE = 0x0002  # ROMFS is a block device too, and only read
_PROGRAM_VERSION = 0x11A9BC3A
_ENTRIES_LIMIT = 1000


class NoBinaryInfo(BadFirmware):
    def __init__(self, what: str) -> None:
        super().__init__(
            f"this firmware does not say where its files are ({what})",
            "Take MicroPython from https://micropython.org/download/?port=rp2, or say it with --region START:SIZE",
        )


@dataclass(frozen=True)
class Rp2Firmware:
    uf2: Uf2
    version: tuple[int, int, int] | None
    storage: Region | None  # in the flash

    def region(self) -> Region:
        """Where it looks for its files (rp2_flash.c); raises BadFirmware."""
        if self.storage is None:
            raise NoBinaryInfo("no block device is named in it")
        if self.storage.start % BLOCK or self.storage.size % BLOCK or self.storage.blocks < 2:
            raise NoBinaryInfo("what it says is not made of whole blocks")
        return self.storage

    def with_file_system(self, start: int, data: bytes) -> bytes:
        """One UF2 file of both; `start`: in the flash."""
        added = uf2.pieces(FLASH + start, data.ljust(-(-len(data) // BLOCK) * BLOCK, b"\xff"))
        taken = {address for address, _ in added}
        if any(address in taken for address, _ in self.uf2.blocks):
            raise BadFirmware("the firmware itself lies where the files would be", "Correct --region")
        return uf2.serialize(self.uf2.family, [*self.uf2.blocks, *added])


def parse(data: bytes) -> Rp2Firmware:
    """Raises BadFirmware (BadUf2)."""
    file = uf2.parse(data)
    if file.chip is None:
        raise BadFirmware(
            f"this UF2 file is for another chip (family {file.family:#010x})", "Take a firmware for RP2040"
        )
    memory = _Memory(file)
    version, storage = None, None
    for address, kind in memory.entries():
        if kind == _ID_AND_STRING and memory.word(address + 4) == _PROGRAM_VERSION:
            version = _version(memory.text(memory.word(address + 8)))
        elif kind == _BLOCK_DEVICE and storage is None and (memory.word(address + 20) or 0) & _WRITABLE:
            storage = _storage(memory.word(address + 8), memory.word(address + 12))
    return Rp2Firmware(file, version, storage)


def _storage(start: int | None, size: int | None) -> Region | None:
    if start is None or size is None or not FLASH <= start < FLASH_END or not 0 < size <= FLASH_END - start:
        return None
    return Region(start - FLASH, size)


def _version(text: str) -> tuple[int, int, int] | None:
    parts = text.removeprefix("v").split("-")[0].split(".")
    if not 2 <= len(parts) <= 3 or not all(
        part.isascii() and part.isdigit() and len(part) < 5 for part in parts
    ):
        return None
    numbers = [int(part) for part in parts]
    return numbers[0], numbers[1], numbers[2] if len(numbers) > 2 else 0


class _Memory:
    """What a program on the chip would read; None where the file has nothing."""

    def __init__(self, file: Uf2) -> None:
        self._blocks = file.memory()

    def byte(self, address: int) -> int | None:
        block = self._blocks.get(address - address % PAYLOAD)
        return None if block is None else block[address % PAYLOAD]

    def word(self, address: int | None) -> int | None:
        if address is None or address % 4:
            return None
        block = self._blocks.get(address - address % PAYLOAD)
        return None if block is None else int(struct.unpack_from("<I", block, address % PAYLOAD)[0])

    def text(self, address: int | None, limit: int = 64) -> str:
        out = bytearray()
        while address is not None and len(out) < limit and (byte := self.byte(address)):
            out.append(byte)
            address += 1
        return out.decode("ascii", "replace")

    def entries(self) -> Iterator[tuple[int, int]]:
        """(address, kind) of each; nothing, if there is no binary info."""
        for place in range(FLASH, _MARKS_END, 4):
            if self.word(place) == _MARK and self.word(place + 16) == _MARK_END:
                first, end = self.word(place + 4) or 0, self.word(place + 8) or 0
                for pointer in range(first, min(end, first + 4 * _ENTRIES_LIMIT), 4):
                    address = self.word(pointer)
                    core = self.word(address)
                    if address is not None and core is not None:
                        yield address, core & 0xFFFF
                return
