"""What a firmware file is, whatever board it is for."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from . import esp32, microbit, rp2040
from .errors import BadFirmware, UnreadableFile
from .esp8266 import firmware as esp8266

LIMIT = 64 << 20
Version = tuple[int, int, int]


@dataclass(frozen=True)
class Facts:
    board: str  # as in `farkernel image BOARD`
    chip: str
    version: Version | None
    proof: str  # what in the file itself shows that it is whole; empty: nothing does


def read(path: str | os.PathLike[str]) -> bytes:
    """The file's content; raises UnreadableFile, also for what is no ordinary file or is far too large."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnreadableFile(os.fspath(path), "it is not an ordinary file")
            data = file.read(LIMIT + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableFile(os.fspath(path), reason) from error
    if len(data) > LIMIT:
        raise UnreadableFile(os.fspath(path), f"no firmware has more than {LIMIT >> 20} MiB")
    return data


def identify(data: bytes) -> Facts:
    """Raises BadFirmware: it is none that we know, or it is damaged."""
    if data[:4] == b"UF2\n":
        uf2 = rp2040.parse(data)
        return Facts("rp2040", uf2.uf2.chip or "", uf2.version, "all its blocks are there")
    if data[:1] == b":":
        microbit.check(data)
        return Facts("microbit", "nrf51822", None, "the checksums of its lines")
    if data[:1] not in (b"\xe9", b"\xff"):
        raise BadFirmware(
            "this is no firmware for a board that we know (ESP8266, ESP32, RP2040, micro:bit)",
            "Take a .bin, .uf2 or .hex file from https://micropython.org/download",
        )
    try:
        found = esp8266.parse(data)
        return Facts("esp8266", "esp8266", found.version, "its own MD5")
    except BadFirmware as error:
        try:
            other = esp32.parse(data)
        except BadFirmware as second:
            raise (second if _is_esp32(data) else error) from None
    return Facts(
        "esp32", other.bootloader.chip, other.version, "the checksums of its boot loader and partition table"
    )


def _is_esp32(data: bytes) -> bool:
    return data[:1] == b"\xff" or (data[23:24] in (b"\0", b"\1") and data[19:23] == bytes(4))
