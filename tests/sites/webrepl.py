"""A WebREPL in front of a virtual board: what MicroPython's `webrepl` module does, over a board's own REPL.

It speaks to one client at a time, asks for the password, and sends what the REPL prints as text frames of up to 100 bytes
(not always UTF-8: the board does not look).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator

from .boards import VirtualBoard

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class WebReplSite:
    """Serve with `served`; ``port`` is where."""

    def __init__(self, board: VirtualBoard, password: str) -> None:
        self.port = 0
        self.writers: set[asyncio.StreamWriter] = set()
        self._board = board
        self._password = password

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        line = -1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            key = next(
                part.split(b": ")[1] for part in head.split(b"\r\n") if part.startswith(b"Sec-WebSocket-Key")
            )
            accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
            writer.write(b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
            text(writer, b"Password: ")
            typed = b""
            while not typed.endswith(b"\n"):
                typed += await frame(reader)
            if typed.rstrip() != self._password.encode():
                text(writer, b"\r\nAccess denied\r\n")
                return
            text(writer, b"\r\nWebREPL connected\r\n>>> ")
            line = os.open(self._board.device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            asyncio.get_running_loop().add_reader(line, self._said, line, writer)
            while True:
                os.write(line, await frame(reader))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            if line >= 0:
                asyncio.get_running_loop().remove_reader(line)
                os.close(line)
            self.writers.discard(writer)
            writer.close()

    def _said(self, line: int, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            text(writer, os.read(line, 100))


def text(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(bytes([0x81, len(data)]) + data)


async def frame(reader: asyncio.StreamReader) -> bytes:
    """The next text frame's payload; anything else ends the connection."""
    first, second = await reader.readexactly(2)
    if first != 0x81 or not second & 0x80:
        raise ConnectionError
    size = second & 0x7F
    if size == 126:
        size = int.from_bytes(await reader.readexactly(2), "big")
    mask = await reader.readexactly(4)
    payload = await reader.readexactly(size)
    return bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


@contextlib.asynccontextmanager
async def served(board: VirtualBoard, password: str) -> AsyncIterator[WebReplSite]:
    site = WebReplSite(board, password)
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0)
    site.port = server.sockets[0].getsockname()[1]
    try:
        yield site
    finally:
        server.close()
        for writer in list(site.writers):
            writer.close()
        await server.wait_closed()
