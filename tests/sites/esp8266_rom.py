"""An ESP8266 in its boot ROM, and after the upload of esptool's flasher in that: on a PTY or over RFC2217, for the real esptool.

Written from Espressif's "Serial Protocol" (esptool's documentation).  The uploaded flasher is Xtensa code: it is taken, and
not run; what it would answer is answered here.  The flash behaves as NOR flash does: erased to 0xff, written bits only fall.
"""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import threading
import tty
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import serial
from serial.rfc2217 import PortManager

END, ESCAPE = 0xC0, 0xDB
SECTOR = 4096
ESP8266_MAGIC, ESP32_MAGIC = 0xFFF0C101, 0x00F01D83
_MAGIC_ADDRESS = 0x40001000
_SPI_COMMAND, _SPI_COMMAND_CODE, _SPI_ANSWER = 0x60000200, 0x60000224, 0x60000240
_BAD_CHECKSUM, _SPI_FAILED, _UNKNOWN = 0xC1, 0xC4, 0xFF
_ROM_UNKNOWN = 0x05


@dataclass
class Faults:
    """What goes wrong, and when."""

    silent: bool = False  # no boot mode: it never answers
    magic: int = ESP8266_MAGIC  # another chip
    refuse_block: int | None = None  # the flash cannot be written any more from this block on
    vanish_at_block: int | None = None  # pulled out
    wrong_md5: bool = False
    stuck_at_zero: int | None = None  # the byte at this address of the flash


class Vanished(Exception):
    """The board is gone: whoever serves it closes the line."""


class Slip:
    """Packets between END bytes."""

    def __init__(self) -> None:
        self._packet: bytearray | None = None
        self._escaped = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        for byte in data:
            if byte == END:
                if self._packet:
                    yield bytes(self._packet)
                    self._packet = None
                else:
                    self._packet = bytearray()
            elif self._packet is None:
                continue
            elif self._escaped:
                self._packet.append({0xDC: END, 0xDD: ESCAPE}[byte])
                self._escaped = False
            elif byte == ESCAPE:
                self._escaped = True
            else:
                self._packet.append(byte)


def slip(packet: bytes) -> bytes:
    return b"\xc0" + packet.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + b"\xc0"


class Esp8266Rom:
    """The chip; sans-I/O: bytes in, `send` is called with bytes out."""

    def __init__(self, flash_size: int = 4 << 20, faults: Faults | None = None) -> None:
        self.flash = bytearray(b"\xff" * flash_size)
        self.faults = faults or Faults()
        self.send: Callable[[bytes], None] = lambda data: None
        self.resets: list[str] = []
        self.commands: list[int] = []
        self.blocks = 0
        self._commands: dict[int, Callable[[bytes], None]] = {
            0x02: self._flash_begin,
            0x03: self._flash_data,
            0x04: self._done,
            0x05: self._done,
            0x06: self._memory_end,
            0x07: self._done,
            0x08: self._sync,
            0x09: self._write_registers,
            0x0A: self._read_register,
        }
        self._stub_commands: dict[int, Callable[[bytes], None]] = {
            0x0B: self._done,
            0x0D: self._done,
            0x0F: self._done,
            0x10: self._deflate_begin,
            0x11: self._deflate_data,
            0x12: self._done,
            0x13: self._md5,
            0xD0: self._erase_all,
            0xD1: self._erase_region,
            0xD3: self._done,
        }
        self.restart()

    def restart(self) -> None:
        self.stub = False
        self._slip = Slip()
        self._address = 0
        self._inflate = zlib.decompressobj()
        self._command = 0
        # A 26 MHz crystal by its UART divider, no ESP8285, and a MAC address.
        self._registers = {
            _MAGIC_ADDRESS: self.faults.magic,
            0x60000014: 26_000_000 * 2 // 115200,
            0x3FF00050: 0x12000000,
            0x3FF00054: 0x00345678,
            0x3FF0005C: 0x005CCF7F,
        }

    def reset(self, into: str) -> None:
        self.resets.append(into)
        self.restart()

    def feed(self, data: bytes) -> None:
        """Raises Vanished."""
        if self.faults.silent:
            return
        for packet in self._slip.feed(data):
            self._packet(packet)

    def _packet(self, packet: bytes) -> None:
        if len(packet) < 8 or packet[0] != 0:
            return
        _, self._command, size, checksum = struct.unpack_from("<BBHI", packet)
        self.commands.append(self._command)
        data = packet[8 : 8 + size]
        if self._command in (0x03, 0x07, 0x11):
            content, found = data[16:], 0xEF
            for byte in content:
                found ^= byte
            if found != checksum & 0xFF:
                self._refuse(_BAD_CHECKSUM)
                return
            data = content
        handler = self._commands.get(self._command)
        if handler is None and self.stub:
            handler = self._stub_commands.get(self._command)
        if handler is None:
            self._refuse(_UNKNOWN if self.stub else _ROM_UNKNOWN)
        else:
            handler(data)

    def _answer(self, value: int = 0, body: bytes = b"", status: bytes = b"\0\0") -> None:
        header = struct.pack("<BBHI", 1, self._command, len(body) + 2, value)
        self.send(slip(header + body + status))

    def _refuse(self, code: int) -> None:
        self._answer(status=bytes([code, 0]) if self.stub else bytes([1, code]))

    def _done(self, data: bytes) -> None:
        self._answer()

    # -- what the ROM knows ----------------------------------------------------------------------

    def _sync(self, data: bytes) -> None:
        for _ in range(8):  # the value tells the ROM from the flasher
            self._answer(0 if self.stub else 0x20120707)

    def _read_register(self, data: bytes) -> None:
        (address,) = struct.unpack("<I", data)
        self._answer(self._registers.get(address, 0))

    def _write_registers(self, data: bytes) -> None:
        for position in range(0, len(data) - 15, 16):
            address, value, mask, _ = struct.unpack_from("<4I", data, position)
            self._register(address, self._registers.get(address, 0) & ~mask | value & mask)
        self._answer()

    def _register(self, address: int, value: int) -> None:
        if address == _SPI_COMMAND and value & 1 << 18:  # a command to the flash chip, answered at once
            command = self._registers.get(_SPI_COMMAND_CODE, 0) & 0xFF
            capacity = len(self.flash).bit_length() - 1
            self._registers[_SPI_ANSWER] = 0xEF | 0x40 << 8 | capacity << 16 if command == 0x9F else 0
            value &= ~(1 << 18)
        self._registers[address] = value

    def _memory_end(self, data: bytes) -> None:
        _, entry = struct.unpack("<II", data)
        self._answer()
        if entry:
            self.stub = True
            self.send(slip(b"OHAI"))

    def _flash_begin(self, data: bytes) -> None:
        size, _, _, self._address = struct.unpack_from("<4I", data)
        self._erase(self._address, size)
        self._answer()

    def _flash_data(self, data: bytes) -> None:
        if self._takes_block():
            self._store(data)
            self._answer()

    # -- what the flasher knows too --------------------------------------------------------------

    def _deflate_begin(self, data: bytes) -> None:
        size, _, _, self._address = struct.unpack_from("<4I", data)
        self._inflate = zlib.decompressobj()
        self._erase(self._address, size)
        self._answer()

    def _deflate_data(self, data: bytes) -> None:
        if self._takes_block():
            self._store(self._inflate.decompress(data))
            self._answer()

    def _md5(self, data: bytes) -> None:
        start, size = struct.unpack_from("<II", data)
        digest = hashlib.md5(self.flash[start : start + size], usedforsecurity=False).digest()
        self._answer(body=digest[::-1] if self.faults.wrong_md5 else digest)

    def _erase_all(self, data: bytes) -> None:
        self._erase(0, len(self.flash))
        self._answer()

    def _erase_region(self, data: bytes) -> None:
        self._erase(*struct.unpack_from("<II", data))
        self._answer()

    # -- the flash -------------------------------------------------------------------------------

    def _takes_block(self) -> bool:
        number, self.blocks = self.blocks, self.blocks + 1
        if self.faults.vanish_at_block is not None and number >= self.faults.vanish_at_block:
            raise Vanished
        if self.faults.refuse_block is not None and number >= self.faults.refuse_block:
            self._refuse(_SPI_FAILED)
            return False
        return True

    def _erase(self, start: int, size: int) -> None:
        first, end = start // SECTOR * SECTOR, -(-(start + size) // SECTOR) * SECTOR
        self.flash[first:end] = b"\xff" * (end - first)

    def _store(self, data: bytes) -> None:
        old = self.flash[self._address : self._address + len(data)]
        assert len(old) == len(data), "written past the end of the flash"
        new = data if not old.strip(b"\xff") else bytes(a & b for a, b in zip(old, data, strict=True))
        self.flash[self._address : self._address + len(data)] = new
        self._address += len(data)
        if self.faults.stuck_at_zero is not None:
            self.flash[self.faults.stuck_at_zero] = 0


@contextmanager
def on_pty(rom: Esp8266Rom) -> Iterator[str]:
    """Its device; a PTY has no DTR and RTS, so it is in its boot ROM from the start."""
    master, slave = os.openpty()
    tty.setraw(slave)
    device = os.ttyname(slave)
    over = threading.Event()

    def send(data: bytes) -> None:
        while data:
            data = data[os.write(master, data) :]

    def serve() -> None:
        try:
            while not over.is_set():
                rom.feed(os.read(master, 65536))
        except (OSError, Vanished):
            pass
        finally:
            os.close(master)  # who has the device open gets an error from now on, as when a cable is pulled

    rom.send = send
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield device
    finally:
        over.set()
        if thread.is_alive():
            os.write(slave, b"\0")  # wakes the read
        thread.join()
        os.close(slave)


class _Lines(serial.SerialBase):
    """The far end's serial port as PortManager drives it: DTR and RTS through the usual two transistors."""

    cts = dsr = ri = cd = False

    def __init__(self, rom: Esp8266Rom) -> None:
        super().__init__()
        self._rom = rom
        self._in_reset = False
        self.is_open = True

    def _reconfigure_port(self) -> None:
        """Speeds are no matter here."""

    def read(self, size: int = 1, /) -> bytes:
        return b""

    def write(self, b: Any, /) -> int | None:
        return None

    def reset_input_buffer(self) -> None:
        """Nothing is held back."""

    def reset_output_buffer(self) -> None:
        """Nothing is held back."""

    def _update_dtr_state(self) -> None:
        self._changed()

    def _update_rts_state(self) -> None:
        self._changed()

    def _changed(self) -> None:
        """RTS alone holds it in reset; DTR alone pulls GPIO0, which says what it starts into.

        While both are on neither does, but a capacitor keeps the chip in reset for a moment: the lines come one by one.
        """
        if self.rts and not self.dtr:
            self._in_reset = True
        elif self._in_reset and not self.rts:
            self._in_reset = False
            self._rom.reset("boot loader" if self.dtr else "application")


@contextmanager
def on_rfc2217(rom: Esp8266Rom) -> Iterator[str]:
    """Its URL; one client after the other."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            with connection:
                _serve(connection, rom)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"rfc2217://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in connections:
            connection.close()
        thread.join()


def _serve(connection: socket.socket, rom: Esp8266Rom) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    class Writer:
        @staticmethod
        def write(data: bytes) -> None:
            connection.sendall(data)

    manager = PortManager(cast(Any, _Lines(rom)), cast(Any, Writer))
    rom.send = lambda data: connection.sendall(b"".join(manager.escape(data)))
    try:
        while data := connection.recv(65536):
            rom.feed(b"".join(manager.filter(data)))
    except (OSError, Vanished):
        pass
