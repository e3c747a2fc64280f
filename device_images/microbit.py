"""A program for the BBC micro:bit (the first one, nRF51822): its main.py put into the firmware's hex file; sans-I/O.

The firmware runs a script that it finds at 0x3e000 behind the mark "MP" and its length (as uflash puts it there).
Its own file system has another shape and cannot be brought along, so other files go onto the board later.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from . import intel_hex
from .errors import BadFirmware, DoesNotFit, UnfitFile
from .folder import BoardFile

SCRIPT = 0x3E000
SCRIPT_LIMIT = 8188  # of the 8 KiB that are left to it, without the mark and the length
END_OF_FILE = b":00000001FF"


def embed(firmware: bytes, files: Sequence[BoardFile]) -> bytes:
    """The firmware with main.py in it; raises BadFirmware, UnfitFile, DoesNotFit."""
    for file in files:
        if file.path != "main.py":
            raise UnfitFile(
                file.path,
                "a micro:bit's image can hold nothing but main.py",
                "Put the others onto the board afterwards: farkernel board put",
            )
    if not files:
        raise UnfitFile("main.py", "it is not in the folder", "Put the program there under this name")
    script = files[0].data
    if len(script) > SCRIPT_LIMIT:
        raise DoesNotFit(SCRIPT_LIMIT, [(files[0].path, len(script))])
    memory = check(firmware)
    if any(SCRIPT <= address < SCRIPT + 0x2000 for address in memory):
        raise BadFirmware(
            "this firmware holds a program already, or is for another micro:bit",
            "Take the firmware as it came",
        )
    data = b"MP" + struct.pack("<H", len(script)) + script
    added = intel_hex.records(SCRIPT, data.ljust(-(-len(data) // 16) * 16, b"\0"))
    lines = [line for line in firmware.split() if line.upper() != END_OF_FILE]
    return b"\n".join([*lines, *added, END_OF_FILE, b""])


def check(firmware: bytes) -> dict[int, bytes]:
    """What it holds, by address; raises BadFirmware."""
    memory = intel_hex.parse(firmware)
    if not any(b"micro:bit" in piece for piece in _joined(memory)):
        raise BadFirmware(
            "this is not MicroPython for the micro:bit",
            "Take the one of the Debian package firmware-microbit-micropython",
        )
    return memory


def _joined(memory: dict[int, bytes]) -> list[bytes]:
    """Texts that go over the end of a record are in one piece here."""
    out: list[bytearray] = []
    end = -1
    for address in sorted(memory):
        if address != end:
            out.append(bytearray())
        out[-1] += memory[address]
        end = address + len(memory[address])
    return [bytes(piece) for piece in out]
