"""The few bytes around a kernel's messages on the link (docs/architecture.md §4)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from ...backends.contract import Buffer

_NUMBER = struct.Struct(">Q")
_NUMBER_AND_TIME = struct.Struct(">QQ")


def pack_request(number: int, message: Sequence[Buffer]) -> list[Buffer]:
    """A numbered request of a client."""
    return [_NUMBER.pack(number), *message]


def unpack_message(data: Buffer) -> tuple[int, float, memoryview]:
    """Number, time (seconds since 1970) and the ZMTP-encoded message; raises `ValueError`."""
    if len(data) < _NUMBER_AND_TIME.size:
        raise ValueError(f"a message of {len(data)} bytes is too short to have a number")
    number, microseconds = _NUMBER_AND_TIME.unpack_from(data)
    return number, microseconds / 1e6, memoryview(data)[_NUMBER_AND_TIME.size :]
