"""The client's side of a websocket (RFC 6455), sans-I/O: as much as a WebREPL needs, without extensions."""

from __future__ import annotations

import base64
import hashlib
import os
import struct
from dataclasses import dataclass
from enum import IntEnum

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_LONGEST_ANSWER = 8192
_LONGEST_FRAME = 1 << 20


class Opcode(IntEnum):
    """RFC 6455 §5.2."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class WebsocketError(Exception):
    """What came is no websocket, or breaks its rules."""


@dataclass(frozen=True)
class Frame:
    opcode: Opcode
    payload: bytes


class Websocket:
    """Write `request`, then feed `receive`; frames come once the other side has agreed (`is_open`)."""

    def __init__(self, host: str, key: bytes | None = None) -> None:
        self.is_open = False
        self._key = base64.b64encode(key or os.urandom(16))
        self._host = host
        self._buffer = bytearray()

    def __repr__(self) -> str:
        return f"<Websocket {'open' if self.is_open else 'opening'}, {len(self._buffer)} bytes held>"

    @property
    def request(self) -> bytes:
        """The opening handshake (§4.1)."""
        lines = (
            b"GET / HTTP/1.1",
            b"Host: " + self._host.encode("idna" if self._host.isascii() else "utf-8"),
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Key: " + self._key,
            b"Sec-WebSocket-Version: 13",
        )
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def receive(self, data: bytes) -> list[Frame]:
        """Raises `WebsocketError`."""
        self._buffer += data
        if not self.is_open:
            self._take_answer()
        frames = []
        while self.is_open and (frame := self._next_frame()) is not None:
            frames.append(frame)
        return frames

    def _take_answer(self) -> None:
        head, end, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        if not end:
            if len(head) > _LONGEST_ANSWER or not head.startswith(b"HTTP/"[: len(head)]):
                raise WebsocketError("what answers there is no web server")
            return
        status, *lines = head.split(b"\r\n")
        if status.split(b" ")[1:2] != [b"101"]:
            raise WebsocketError(f"it answered {status[:80].decode('ascii', 'replace')!r}")
        accept = base64.b64encode(hashlib.sha1(self._key + _GUID, usedforsecurity=False).digest())
        fields = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)
        }
        if fields.get(b"sec-websocket-accept") != accept:
            raise WebsocketError("its answer belongs to another question")
        self._buffer[:] = rest
        self.is_open = True

    def _next_frame(self) -> Frame | None:
        """Servers do not mask (§5.1); fragments are as good as frames here: all is a stream of bytes."""
        if len(self._buffer) < 2:
            return None
        first, second = self._buffer[:2]
        size, start = second & 0x7F, 2
        if size == 126:
            size, start = int.from_bytes(self._buffer[2:4], "big"), 4
        elif size == 127:
            size, start = int.from_bytes(self._buffer[2:10], "big"), 10
        if second & 0x80 or first & 0x70 or size > _LONGEST_FRAME:
            raise WebsocketError(f"a frame that begins with {bytes(self._buffer[:2]).hex()} is wrong")
        if len(self._buffer) < start or len(self._buffer) < start + size:
            return None
        try:
            frame = Frame(Opcode(first & 0x0F), bytes(self._buffer[start : start + size]))
        except ValueError:
            raise WebsocketError(f"there is no kind of frame {first & 0x0F}") from None
        del self._buffer[: start + size]
        return frame


def encode(opcode: Opcode, payload: bytes, mask: bytes | None = None) -> bytes:
    """A client's frame: whole, masked (§5.3)."""
    mask = os.urandom(4) if mask is None else mask
    size = len(payload)
    if size < 126:
        head = struct.pack(">BB", 0x80 | opcode, 0x80 | size)
    elif size < 65536:
        head = struct.pack(">BBH", 0x80 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, 0x80 | 127, size)
    repeated = (mask * (size // 4 + 1))[:size]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")
    return head + mask + masked
