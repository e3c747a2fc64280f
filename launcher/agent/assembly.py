"""A message that comes in piece by piece, put together in place.

Large ones lie in huge pages where Linux has them: taking 50 MB of memory in pages of 4 KiB costs more than filling it.
"""

import mmap
from typing import Union

from .frames import Buffer

#: So much must have come before room is made for all that was announced.
LARGE = 1 << 20
_HUGE_PAGES = getattr(mmap, "MADV_HUGEPAGE", None)  # Python 3.8, Linux


class Assembly(object):
    """`size`: of the whole message, as announced.  Whoever adds sees to it that no more than that comes."""

    __slots__ = ("_buffer", "filled", "size")

    def __init__(self, size: int, first: Buffer) -> None:
        self.size = size
        self.filled = len(first)
        self._buffer: Union[bytearray, memoryview] = bytearray(first)

    def __repr__(self) -> str:
        return "<Assembly %d of %d bytes>" % (self.filled, self.size)

    def add(self, piece: Buffer) -> None:
        end = self.filled + len(piece)
        if isinstance(self._buffer, bytearray):
            self._buffer += piece
            if end >= LARGE:
                self._buffer = _with_room(self._buffer, self.size)
        else:
            self._buffer[self.filled : end] = piece
        self.filled = end

    def whole(self) -> Buffer:
        """Once everything has come."""
        return self._buffer


def _with_room(begun: bytearray, size: int) -> Union[bytearray, memoryview]:
    """The same bytes with room for the rest, if that is worth it and to be had."""
    if _HUGE_PAGES is None or size < 4 * LARGE:
        return begun
    try:
        room = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        room.madvise(_HUGE_PAGES)  # type: ignore[attr-defined,unused-ignore]  # novm: looked for above
    except OSError:
        return begun  # a limit of address space, or a kernel without huge pages
    view = memoryview(room)
    view[: len(begun)] = begun
    return view
