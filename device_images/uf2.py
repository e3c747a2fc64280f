"""UF2 files: flash content in blocks of 512 bytes that a board takes in any order; sans-I/O.

Format: https://github.com/microsoft/uf2.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from .errors import BadFirmware

BLOCK = 512
PAYLOAD = 256
FAMILIES = {0xE48BFF56: "rp2040", 0xE48BFF59: "rp2350"}
_HEADER = struct.Struct("<8I")
_FIRST, _SECOND, _LAST = 0x0A324655, 0x9E5D5157, 0x0AB16F30
_NOT_MAIN_FLASH, _HAS_FAMILY = 0x00000001, 0x00002000


class BadUf2(BadFirmware):
    def __init__(self, reason: str) -> None:
        super().__init__(
            f"this is not a UF2 file for flash, or it is damaged: {reason}",
            "Get the file again from where it came from",
        )


@dataclass(frozen=True)
class Uf2:
    family: int
    blocks: tuple[tuple[int, bytes], ...]  # address, content

    @property
    def chip(self) -> str | None:
        return FAMILIES.get(self.family)

    def memory(self) -> dict[int, bytes]:
        return dict(self.blocks)


def parse(data: bytes) -> Uf2:
    """Raises BadUf2.  All blocks must be there, of one family."""
    if not data or len(data) % BLOCK:
        raise BadUf2(f"its size of {len(data)} bytes is not a multiple of {BLOCK}")
    count = len(data) // BLOCK
    families: set[int] = set()
    blocks = []
    for number in range(count):
        block = data[number * BLOCK : (number + 1) * BLOCK]
        first, second, flags, address, size, place, total, family = _HEADER.unpack_from(block)
        if (first, second) != (_FIRST, _SECOND) or struct.unpack_from("<I", block, BLOCK - 4) != (_LAST,):
            raise BadUf2(f"block {number} has not its marks")
        if not flags & _HAS_FAMILY or flags & _NOT_MAIN_FLASH:
            raise BadUf2(f"block {number} says not for which chip it is, or is not for flash")
        if (place, total) != (number, count):
            raise BadUf2(f"block {number} says that it is {place} of {total}")
        if size != PAYLOAD or address % PAYLOAD:
            raise BadUf2(f"block {number} holds {size} bytes for {address:#x}, not {PAYLOAD} bytes")
        families.add(family)
        blocks.append((address, block[_HEADER.size : _HEADER.size + size]))
    if len(families) > 1:
        raise BadUf2("its blocks are for different chips")
    if len({address for address, _ in blocks}) < count:
        raise BadUf2("two of its blocks have one address")
    return Uf2(families.pop(), tuple(blocks))


def serialize(family: int, blocks: Iterable[tuple[int, bytes]]) -> bytes:
    """Each block has PAYLOAD bytes for an address that is a multiple of it."""
    listed = list(blocks)
    out = bytearray()
    for number, (address, content) in enumerate(listed):
        out += _HEADER.pack(_FIRST, _SECOND, _HAS_FAMILY, address, PAYLOAD, number, len(listed), family)
        out += content.ljust(BLOCK - _HEADER.size - 4, b"\0")
        out += struct.pack("<I", _LAST)
    return bytes(out)


def pieces(address: int, data: bytes) -> list[tuple[int, bytes]]:
    """Content cut into blocks; `data` is filled up with 0xff to a whole one."""
    return [
        (address + start, data[start : start + PAYLOAD].ljust(PAYLOAD, b"\xff"))
        for start in range(0, len(data), PAYLOAD)
    ]
