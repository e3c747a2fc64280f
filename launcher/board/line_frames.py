"""What a board's far line looks like on the keeper's unix socket: frames of a type, a length, and that many bytes.

The line itself is the agent's (`far_serial`), which only the keeper reaches; kernels and commands are
other processes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import Enum

_HEADER = struct.Struct(">cI")
LONGEST = 8 * 1024 * 1024


class FrameError(Exception):
    """The other end speaks something else."""


class Frame(Enum):
    """Types; those of the client are small letters."""

    WRITE = b"w"  # bytes for the board
    PASTE = b"p"  # code for raw-paste mode
    SIGNALS = b"s"  # JSON: dtr, rts; answered by DONE
    OPENED = b"O"  # empty; or PROBLEM
    DATA = b"D"  # bytes of the board
    DONE = b"K"  # of SIGNALS; or PROBLEM
    PROBLEM = b"E"  # JSON: an error, as `FarkernelError.as_dict` gives it
    CLOSED = b"C"  # why, as text: nothing follows


def pack(kind: Frame, data: bytes = b"") -> bytes:
    return _HEADER.pack(kind.value, len(data)) + data


class FrameReader:
    """Bytes in, frames out."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Frame, bytes]]:
        """Raises `FrameError`; what came whole before is given out first."""
        self._data += data
        while len(self._data) >= _HEADER.size:
            letter, size = _HEADER.unpack_from(self._data)
            try:
                kind = Frame(letter)
            except ValueError:
                raise FrameError(f"no such frame: {letter!r}") from None
            if size > LONGEST:
                raise FrameError(f"a frame of {size} bytes")
            if len(self._data) < _HEADER.size + size:
                return
            content = bytes(self._data[_HEADER.size : _HEADER.size + size])
            del self._data[: _HEADER.size + size]
            yield kind, content
