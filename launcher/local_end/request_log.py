"""What clients asked and has not been answered yet, on disk, so that a killed keeper forgets no cell.

One append-only file per kernel.  Each request is written before it is acted on; it gets its number when it is forwarded
(also written first), and is struck out when the kernel is done with it.  The file is started afresh when little of it
is open any more.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..messages import Message

log = logging.getLogger(__name__)

_ENTRY = struct.Struct(">BBQQI")  # kind, channel, serial, number, length of what follows
_HELD, _NUMBERED, _DONE = 1, 2, 3
# Writing afresh costs more than a cell that runs at once: not for each of them.
_EMPTY_AT = 64 * 1024  # when nothing is open
_COMPACT_AT = 16 * 1024 * 1024

CHANNELS = ("shell", "control", "stdin")


@dataclass
class Request:
    """One message of a client.  ``frames`` begins with its ROUTER identity; ``number`` is 0 until it is forwarded."""

    serial: int
    channel: str
    frames: list[bytes]
    number: int = 0
    busy_sent: bool = False
    replied: bool = False
    idle_sent: bool = False
    started: float | None = None  # when the kernel said that it works on it (time.monotonic)
    heard: int = 0  # the number of the last that it published
    interrupted: bool = False  # by a signal that has reached the kernel
    input_open: bool = False  # the kernel has asked its user something, and has no answer yet

    @cached_property
    def message(self) -> Message:
        """Taken apart; its identities begin with the client's.  Raises `MessageError`."""
        return Message.split(self.frames)

    @property
    def is_cell(self) -> bool:
        return self.message.msg_type == "execute_request"

    @property
    def expects_reply(self) -> bool:
        return self.message.msg_type.endswith("_request")


class RequestLog:
    """The file and what is open in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.open: dict[int, Request] = {}
        self.numbers = dict.fromkeys(CHANNELS, 0)
        self._serial = 0
        self._size = 0
        self._failed = False
        for request in self._read():
            self.open[request.serial] = request

    def __repr__(self) -> str:
        return f"<RequestLog {self._path.name}: {len(self.open)} open, numbers {self.numbers}>"

    def add(self, channel: str, frames: list[bytes], numbered: bool = False) -> Request:
        """Write a new request down; with ``numbered`` it has its number at once, and may be forwarded."""
        self._serial += 1
        request = Request(self._serial, channel, frames)
        if numbered:
            request.number = self._next_number(channel)
        self.open[request.serial] = request
        self._append(_held(request))
        return request

    def number(self, request: Request) -> int:
        """Give it the next number of its channel, and write that down; it may then be forwarded."""
        request.number = self._next_number(request.channel)
        self._append(_entry(_NUMBERED, request))
        return request.number

    def _next_number(self, channel: str) -> int:
        self.numbers[channel] += 1
        return self.numbers[channel]

    def done(self, request: Request) -> None:
        """The kernel is done with it, or it was answered here."""
        if self.open.pop(request.serial, None) is None:
            return
        self._append(_entry(_DONE, request))
        if self._size > (_COMPACT_AT if self.open else _EMPTY_AT) and self._open_bytes() < self._size // 2:
            self._rewrite()

    def raise_numbers(self, taken: dict[str, int]) -> None:
        """The agent has seen higher numbers than we remember: go on after them."""
        for channel in CHANNELS:
            self.numbers[channel] = max(self.numbers[channel], taken.get(channel, 0))

    def close(self) -> None:
        os.close(self._file)

    def _open_bytes(self) -> int:
        return sum(len(frame) for request in self.open.values() for frame in request.frames)

    def _append(self, entries: bytes) -> None:
        try:
            written = os.write(self._file, entries)
            if written < len(entries):
                raise OSError(28, os.strerror(28))
            self._size += written
            self._failed = False
        except OSError as error:
            # A full disk must not stop the notebook: the request goes its way, only a SIGKILL now would forget it.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            if not self._failed:
                log.error(
                    "cannot write %s: %s; requests are not on disk until there is room", self._path, error
                )
            self._failed = True

    def _rewrite(self) -> None:
        """Start the file afresh with what is open.  The counters come first, or numbers would be used twice."""
        try:
            os.ftruncate(self._file, 0)
        except OSError as error:
            log.error("cannot empty %s: %s", self._path, error)
            return
        self._size = 0
        markers = [Request(self._serial, name, [], number=self.numbers[name]) for name in CHANNELS]
        self._append(b"".join(_entry(_DONE, marker) for marker in markers))
        for request in self.open.values():
            self._append(_held(request))

    def _read(self) -> Iterator[Request]:
        """What was open when the file was last written.  A torn entry at the end is cut off: it was never acted on."""
        data = memoryview(os.pread(self._file, os.fstat(self._file).st_size, 0))
        found: dict[int, Request] = {}
        position = 0
        while position + _ENTRY.size <= len(data):
            kind, channel, serial, number, length = _ENTRY.unpack_from(data, position)
            end = position + _ENTRY.size + length
            if end > len(data) or channel >= len(CHANNELS):
                break
            body = data[position + _ENTRY.size : end]
            position = end
            name = CHANNELS[channel]
            self._serial = max(self._serial, serial)
            self.numbers[name] = max(self.numbers[name], number)
            if kind == _HELD:
                found[serial] = Request(serial, name, _unpack(body), number=number)
            elif kind == _NUMBERED and serial in found:
                found[serial].number = number
            elif kind == _DONE:
                found.pop(serial, None)
        if position < len(data):
            os.ftruncate(self._file, position)
        self._size = position
        yield from found.values()


def _entry(kind: int, request: Request, body: bytes = b"") -> bytes:
    channel = CHANNELS.index(request.channel)
    return _ENTRY.pack(kind, channel, request.serial, request.number, len(body)) + body


def _held(request: Request) -> bytes:
    frames = request.frames
    lengths = struct.pack(f">I{len(frames)}I", len(frames), *map(len, frames))
    return _entry(_HELD, request, b"".join((lengths, *frames)))


def _unpack(body: memoryview) -> list[bytes]:
    (count,) = struct.unpack_from(">I", body)
    lengths = struct.unpack_from(f">{count}I", body, 4)
    frames, position = [], 4 + 4 * count
    for length in lengths:
        frames.append(bytes(body[position : position + length]))
        position += length
    return frames
