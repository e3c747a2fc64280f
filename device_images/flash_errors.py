"""What can go wrong while a board is flashed, each with what to do next."""

from __future__ import annotations

from ..launcher.board.errors import BoardError
from ..launcher.text import one_line
from .esp_image import size_name

_BOOT_MODE = (
    "Hold its FLASH (BOOT, GPIO0) button, press RESET once, let go of FLASH, and try again; "
    "look also whether the cable carries data and whether this is the right port"
)
_HALF_WRITTEN = "What is on the board now is incomplete: flash it again"


class FlashError(BoardError):
    """Base: a board was not flashed."""

    kind = "flash"


class BadPort(FlashError):
    kind = "flash-port"

    def __init__(self, port: str) -> None:
        super().__init__(
            f"{one_line(port)!r} is not a serial device",
            "Name one like /dev/ttyUSB0, a target whose address is serial:///dev/…, or rfc2217://HOST:PORT",
        )


class NotInBootMode(FlashError):
    kind = "flash-no-boot-mode"

    def __init__(self, port: str, also_open: str = "") -> None:
        other = (
            f" ({one_line(also_open)} has the port open too, and may take its answers)" if also_open else ""
        )
        super().__init__(f"no boot loader answers at {one_line(port)}{other}", _BOOT_MODE)


class WrongChip(FlashError):
    kind = "flash-wrong-chip"

    def __init__(self, port: str, found: str, wanted: str) -> None:
        super().__init__(
            f"the board at {one_line(port)} is {one_line(found)}, and the file is for {wanted}",
            "Nothing was written. Take the other board, or a file for this one",
        )


class UnknownChip(FlashError):
    kind = "flash-unknown-chip"

    def __init__(self, port: str) -> None:
        super().__init__(
            f"the board at {one_line(port)} has a chip that esptool does not know",
            "Nothing was written. Try a newer esptool: pip install --upgrade esptool",
        )


class WrongFlashSize(FlashError):
    kind = "flash-size"

    def __init__(self, port: str, found: int, wanted: int) -> None:
        super().__init__(
            f"the board at {one_line(port)} has {size_name(found)} of flash, and the file is for {size_name(wanted)}",
            f"Nothing was written. Make the image for this board: --flash-size {size_name(found)}",
        )


class WriteFailed(FlashError):
    kind = "flash-write"

    def __init__(self, port: str, said: str) -> None:
        super().__init__(
            f"the board at {one_line(port)} refused to write: {one_line(said)}",
            f"{_HALF_WRITTEN}. If it happens again its flash is worn out, or its power too weak (try another USB port)",
        )


class VerifyFailed(FlashError):
    kind = "flash-verify"

    def __init__(self, port: str) -> None:
        super().__init__(
            f"what the board at {one_line(port)} has in its flash is not what was sent",
            f"{_HALF_WRITTEN}, more slowly (--baud 115200). If it happens again its flash is worn out",
        )


class BoardVanished(FlashError):
    kind = "flash-gone"

    def __init__(self, port: str, percent: int | None) -> None:
        when = "before anything was written" if percent is None else f"after {percent} % was written"
        super().__init__(
            f"the board at {one_line(port)} stopped answering {when}",
            ("Try again" if percent is None else _HALF_WRITTEN)
            + ", with a shorter cable or more slowly (--baud 115200)",
        )


class EsptoolFailed(FlashError):
    """Anything else: esptool's own words."""

    kind = "flash-esptool"

    def __init__(self, port: str, status: int, said: str) -> None:
        super().__init__(
            f"esptool ended with status {status} at {one_line(port)}: {one_line(said)[:500] or 'it said nothing'}",
            "See the documentation of esptool about this message",
        )
