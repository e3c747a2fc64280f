"""What can be wrong with an image of a card, with a boot partition, or with room for either."""

from __future__ import annotations

from ...launcher.text import one_line
from ..errors import ImageError

_GET_IT = "Raspberry Pi OS is at https://www.raspberrypi.com/software/operating-systems/"


class NotAnImage(ImageError):
    kind = "not-an-image"

    def __init__(self, path: str, why: str, advice: str = _GET_IT) -> None:
        super().__init__(f"{path} is no image of a card: {one_line(why)}", advice)


class NoBootPartition(ImageError):
    kind = "no-boot-partition"

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path} has no boot partition of a Raspberry Pi: {why}", _GET_IT)


class NoRoom(ImageError):
    kind = "no-room"

    def __init__(self, where: str, needed: int, free: int) -> None:
        super().__init__(
            f"{where} has {_size(free)} free, and {_size(needed)} are needed",
            "Make room there, or take fewer wheels or fewer hosts at a time",
        )


class MtoolsMissing(ImageError):
    kind = "tool-missing"

    def __init__(self) -> None:
        super().__init__(
            "mtools is not installed, which writes into images without being root",
            "Install it: sudo apt install mtools; or write the card first and use --onto",
        )


class BootPartitionFailed(ImageError):
    """mtools, or the mounted partition, refused."""

    kind = "boot-partition"

    def __init__(self, where: str, doing: str, why: str) -> None:
        super().__init__(
            f"{where}: {doing} failed: {one_line(why)[:300]}", "See to that, and make the card again"
        )


class NotWhatWasWritten(ImageError):
    kind = "not-what-was-written"

    def __init__(self, where: str, path: str) -> None:
        super().__init__(
            f"{where}: what was read back of {path} is not what was written", "Try another card or disk"
        )


class ImageInUse(ImageError):
    kind = "image-in-use"

    def __init__(self, path: str, by: str) -> None:
        super().__init__(f"{path} is in use: {by}", "End that first, or give another place with --out")


def _size(size: int) -> str:
    return f"{size / (1 << 30):.3g} GiB" if size >= 1 << 30 else f"{max(size, 0) / (1 << 20):.3g} MiB"
