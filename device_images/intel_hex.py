"""Intel HEX files, as micro:bits take them; sans-I/O."""

from __future__ import annotations

from .errors import BadFirmware

_DATA, _END, _SEGMENT, _START_SEGMENT, _LINEAR, _START = range(6)


class BadHex(BadFirmware):
    def __init__(self, reason: str) -> None:
        super().__init__(
            f"this is not an Intel HEX file, or it is damaged: {reason}",
            "Get the file again from where it came from",
        )


def parse(data: bytes) -> dict[int, bytes]:
    """Address → bytes of each record; raises BadHex.  Universal hex files (for two kinds of micro:bit) are refused."""
    found: dict[int, bytes] = {}
    base = 0
    ended = False
    for number, line in enumerate(data.split(), 1):
        if ended:
            raise BadHex(f"line {number} comes after the end")
        kind, address, content = _record(line, number)
        if kind == _DATA:
            found[base + address] = content
        elif kind == _END:
            ended = True
        elif kind in (_SEGMENT, _LINEAR) and len(content) == 2:
            base = int.from_bytes(content, "big") << (16 if kind == _LINEAR else 4)
        elif kind not in (_START_SEGMENT, _START):
            raise BadHex(f"line {number} has the unknown kind {kind} (a universal hex file for two boards?)")
    if not ended:
        raise BadHex("it has no end")
    return found


def records(address: int, data: bytes) -> list[bytes]:
    """Lines for data anywhere in 32 bits, 16 bytes on each."""
    out = []
    upper = -1
    for start in range(0, len(data), 16):
        place = address + start
        if place >> 16 != upper:
            upper = place >> 16
            out.append(_line(_LINEAR, 0, upper.to_bytes(2, "big")))
        out.append(_line(_DATA, place & 0xFFFF, data[start : start + 16]))
    return out


def _record(line: bytes, number: int) -> tuple[int, int, bytes]:
    try:
        raw = bytes.fromhex(line[1:].decode("ascii"))
    except ValueError:
        raw = b""
    if line[:1] != b":" or len(raw) < 5 or raw[0] != len(raw) - 5 or sum(raw) & 0xFF:
        raise BadHex(f"line {number} is wrong")
    return raw[3], raw[1] << 8 | raw[2], raw[4:-1]


def _line(kind: int, address: int, content: bytes) -> bytes:
    raw = bytes([len(content), address >> 8, address & 0xFF, kind]) + content
    return b":" + (raw + bytes([-sum(raw) & 0xFF])).hex().upper().encode()
