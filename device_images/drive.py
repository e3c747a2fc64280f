"""Boards that show themselves as a drive: an RP2040 in its boot loader takes .uf2 files, a micro:bit .hex files.

Copying a file onto the drive is all that there is to it; the board takes it in, restarts, and the drive goes away.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ..launcher.text import one_line
from . import firmware
from .flash_errors import FlashError

# What its boot loader puts onto the drive, and the firmwares that it takes.
_MARKS = {"INFO_UF2.TXT": ("rp2040", "firmware.uf2"), "DETAILS.TXT": ("microbit", "firmware.hex")}
_FAILED = "FAIL.TXT"  # by the micro:bit's interface chip (DAPLink)


class NotADrive(FlashError):
    kind = "flash-port"

    def __init__(self, place: Path) -> None:
        super().__init__(
            f"{one_line(place)!r} is not the drive of a board",
            "An RP2040 shows its drive (RPI-RP2) when it is plugged in with BOOTSEL held; a micro:bit always does",
        )


class WrongFile(FlashError):
    kind = "flash-wrong-chip"

    def __init__(self, place: Path, board: str, found: str) -> None:
        super().__init__(
            f"the drive {one_line(place)!r} is a board of the kind {board}, and the file is for {found}",
            "Nothing was written. Take the other board, or a file for this one",
        )


class CopyFailed(FlashError):
    kind = "flash-write"

    def __init__(self, place: Path, reason: str) -> None:
        super().__init__(
            f"the file could not be copied to {one_line(place)!r}: {one_line(reason)}",
            "Plug the board in again and repeat it; what is on it now may be incomplete",
        )


def copy(place: Path, data: bytes) -> str:
    """The name that the file has got there.  Raises FlashError, and BadFirmware for what no board takes."""
    found = next((about for mark, about in _MARKS.items() if (place / mark).is_file()), None)
    if found is None:
        raise NotADrive(place)
    board, name = found
    facts = firmware.identify(data)
    if facts.board != board:
        raise WrongFile(place, board, facts.chip)
    before = _failure(place)
    try:
        with open(place / name, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        # An RP2040 restarts at the last block; then the drive is gone before the system has finished with it.
        if board != "rp2040" or error.errno not in (errno.EIO, errno.ENODEV, errno.ENXIO):
            raise CopyFailed(place, error.strerror or str(error)) from error
    after = _failure(place)
    if after is not None and after != before:
        raise CopyFailed(place, after[1])
    return name


def _failure(place: Path) -> tuple[int, str] | None:
    """When and why the board refused a file; None: it did not, or the drive is gone already."""
    try:
        with open(place / _FAILED, "rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns, file.read(300).decode("utf-8", "replace")
    except OSError:
        return None
