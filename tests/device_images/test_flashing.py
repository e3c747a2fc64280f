"""The real esptool and an ESP8266's boot ROM: written, compared, started; and all that goes wrong on the way."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farkernel.device_images import build, flashing
from farkernel.device_images.build import Request
from farkernel.device_images.errors import BadFirmware, ToolMissing
from farkernel.device_images.flash_errors import (
    BadPort,
    BoardVanished,
    EsptoolFailed,
    NotInBootMode,
    UnknownChip,
    VerifyFailed,
    WriteFailed,
    WrongChip,
    WrongFlashSize,
)
from farkernel.device_images.flashing import Flashed, FlashJob, Step
from farkernel.launcher.board.errors import BoardBusy, BoardGone
from farkernel.launcher.errors import FarkernelError
from tests.device_images.samples import FACTORY, NVS, esp32_firmware, esp8266_firmware, noise
from tests.sites.esp8266_rom import ESP32_MAGIC, Esp8266Rom, Faults, on_pty, on_rfc2217

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

# Noise does not shrink: several blocks go over the line.
FIRMWARE = esp8266_firmware(0x30000)
IMAGE = FIRMWARE.ljust(0x100000, b"\xff") + b"what a file system has"


def written(port: str, data: bytes, steps: list[Step] | None = None) -> Flashed:
    return flashing.flash(
        FlashJob(port, data, connect_attempts=2), (steps if steps is not None else []).append
    )


def failure(rom: Esp8266Rom, data: bytes = FIRMWARE) -> FarkernelError:
    with on_pty(rom) as port, pytest.raises(FarkernelError) as error:
        written(port, data)
    return error.value


def test_a_firmware() -> None:
    rom = Esp8266Rom(flash_size=1 << 20)
    steps: list[Step] = []
    with on_pty(rom) as port:
        done = written(port, FIRMWARE, steps)
    assert (done.chip, done.mac, done.flash_size, done.size) == (
        "esp8266",
        "5c:cf:7f:56:78:12",
        1 << 20,
        len(FIRMWARE),
    )
    assert rom.flash[3] == 0x20  # a firmware alone takes the size of the flash that it is on
    assert rom.flash[4 : len(FIRMWARE)] == FIRMWARE[4:]
    assert steps[0].doing == "looking for the board"
    percents = [step.percent for step in steps if step.doing == "writing"]
    assert percents == sorted(percents, key=lambda percent: percent or 0)
    assert len(percents) > 3
    assert percents[-1] == 100
    assert steps[-1].doing == "comparing what was written"


def test_an_image_is_written_as_it_is() -> None:
    rom = Esp8266Rom()
    rom.flash[0x200000:0x200004] = b"left"
    with on_pty(rom) as port:
        written(port, IMAGE)
    assert rom.flash[: len(IMAGE)] == IMAGE
    assert rom.flash[0x200000:0x200004] == b"left"  # nothing else is touched


def test_over_the_old_one() -> None:
    """Flash that is not erased first would be a mixture of both."""
    rom = Esp8266Rom()
    rom.flash[:0x40000] = noise(0x40000, 7)
    with on_pty(rom) as port:
        written(port, FIRMWARE)
        written(port, FIRMWARE)
    assert rom.flash[4 : len(FIRMWARE)] == FIRMWARE[4:]


@pytest.mark.timeout(300)
def test_over_rfc2217_with_the_reset_lines() -> None:
    """pySerial waits 50 ms for each setting of such a port: 45 s for the smallest firmware."""
    rom = Esp8266Rom()
    small = esp8266_firmware()
    with on_rfc2217(rom) as port:
        written(port, small)
    assert rom.flash[4 : len(small)] == small[4:]
    assert rom.resets[0] == "boot loader"
    assert rom.resets[-1] == "application"


@pytest.mark.parametrize(
    ("faults", "error", "words"),
    [
        (Faults(silent=True), NotInBootMode, "no boot loader answers at"),
        (Faults(magic=ESP32_MAGIC), WrongChip, "is esp32, and the file is for esp8266"),
        (Faults(magic=0x1234), UnknownChip, "a chip that esptool does not know"),
        (Faults(refuse_block=2), WriteFailed, "refused to write: Failed to write compressed data"),
        (Faults(wrong_md5=True), VerifyFailed, "is not what was sent"),
        (Faults(stuck_at_zero=0x5000), VerifyFailed, "is not what was sent"),
    ],
)
def test_faults(faults: Faults, error: type[FarkernelError], words: str) -> None:
    found = failure(Esp8266Rom(faults=faults))
    assert type(found) is error
    assert words in found.what


def test_nothing_is_written_to_another_chip() -> None:
    rom = Esp8266Rom(faults=Faults(magic=ESP32_MAGIC))
    failure(rom)
    assert rom.blocks == 0
    assert rom.flash == b"\xff" * len(rom.flash)
    rom = Esp8266Rom()
    assert isinstance(failure(rom, esp32_firmware()), WrongChip)
    assert rom.blocks == 0


def test_a_board_that_goes_away_in_the_middle() -> None:
    found = failure(Esp8266Rom(faults=Faults(vanish_at_block=3)))
    assert isinstance(found, BoardVanished)
    assert "stopped answering after" in found.what
    assert "incomplete: flash it again" in found.advice


def test_a_flash_that_is_too_small() -> None:
    rom = Esp8266Rom(flash_size=1 << 20)
    found = failure(rom, IMAGE)
    assert isinstance(found, WrongFlashSize)
    assert "has 1M of flash, and the file is for 4M" in found.what
    assert "--flash-size 1M" in found.advice
    assert rom.blocks == 0


def test_an_esp32_that_fills_its_flash_must_have_the_size_of_its_image(tmp_path: Path) -> None:
    (tmp_path / "lesson").mkdir()
    (tmp_path / "fw.bin").write_bytes(esp32_firmware(0, 0x1000, NVS, FACTORY, version=b"v1.26.0"))
    image = build.build(Request("esp32", tmp_path / "fw.bin", tmp_path / "lesson", flash_size=8 << 20))
    assert flashing._plan(image.data) == flashing._Plan("esp32", 0, 8 << 20, "keep", exactly=True)
    bare = (tmp_path / "fw.bin").read_bytes()
    assert flashing._plan(bare) == flashing._Plan("esp32", 0x1000, None, "keep", exactly=False)


@contextmanager
def locked(port: str) -> Iterator[None]:
    descriptor = os.open(port, os.O_RDWR | os.O_NOCTTY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def test_a_port_that_somebody_holds() -> None:
    with on_pty(Esp8266Rom()) as port, locked(port), pytest.raises(BoardBusy) as error:
        written(port, FIRMWARE)
    assert f"{port} is in use by" in error.value.what


def test_cancelled_while_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """esptool does not outlive us: the next one finds the port free."""

    def cancel(step: Step) -> None:
        if step.percent:
            raise KeyboardInterrupt

    rom = Esp8266Rom()
    with on_pty(rom) as port:
        with pytest.raises(KeyboardInterrupt):
            flashing.flash(FlashJob(port, FIRMWARE), cancel)
        rom.restart()
        written(port, FIRMWARE)
    assert rom.flash[4 : len(FIRMWARE)] == FIRMWARE[4:]


def test_silence_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flashing, "SILENCE", 3.0)
    monkeypatch.setattr(sys, "executable", _sleeping_program())
    with on_pty(Esp8266Rom()) as port, pytest.raises(BoardVanished, match="before anything was written"):
        written(port, FIRMWARE)


def _sleeping_program() -> str:
    place = os.path.join(os.environ["HOME"], "python")
    with open(place, "w") as file:
        file.write("#!/bin/sh\nexec sleep 100\n")
    os.chmod(place, 0o700)
    return place


def test_esptools_settings_and_modules_of_others_are_not_used(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("esptool.py", "serial.py"):
        with open(os.path.join(tmp_path, name), "w") as file:
            file.write("raise SystemExit('not this one')")
    with open(os.path.join(tmp_path, "esptool.cfg"), "w") as file:
        file.write("[esptool]\ncustom_reset_sequence = nonsense\nchip = esp32\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ESPTOOL_CHIP", "esp32")
    with on_pty(Esp8266Rom()) as port:
        assert written(port, FIRMWARE).chip == "esp8266"


@pytest.mark.parametrize(
    ("port", "error"),
    [
        ("/dev/ttyNONE9", BoardGone),
        ("/etc/passwd", BadPort),
        ("/etc", BadPort),
        ("nowhere", BadPort),
        ("--help", BadPort),
        ("spy:///dev/null?file=/tmp/x", BadPort),
        ("rfc2217://host:1?logging=debug", BadPort),
        ("rfc2217://host", BadPort),
        ("/dev/tty\0", BadPort),
        ("", BadPort),
    ],
)
def test_what_is_no_port(port: str, error: type[FarkernelError]) -> None:
    with pytest.raises(error):
        written(port, FIRMWARE)


@pytest.mark.parametrize(
    "data", [b"", b"#!/bin/sh", b"\xff" * 5000, b"UF2\n" + bytes(508), FIRMWARE[:100], FIRMWARE[:-1]]
)
def test_what_is_no_firmware(data: bytes) -> None:
    with pytest.raises(BadFirmware):
        written("/dev/null", data)


def test_without_esptool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "esptool", None)
    monkeypatch.setattr(flashing, "find_spec", lambda name: None)
    with pytest.raises(ToolMissing, match="esptool is not installed"):
        written("/dev/null", FIRMWARE)


def test_a_device_that_is_no_serial_line() -> None:
    with pytest.raises((NotInBootMode, BoardGone, EsptoolFailed)):
        written("/dev/null", FIRMWARE)


def test_two_boards_at_once() -> None:
    """Two cables, two threads: nothing is shared."""
    first, second = Esp8266Rom(), Esp8266Rom()
    other = FIRMWARE.replace(b"v1.25.0", b"v1.24.1")
    other = other[:-16] + esp_md5(other)
    with on_pty(first) as one, on_pty(second) as two:
        thread = threading.Thread(target=written, args=(one, FIRMWARE))
        thread.start()
        written(two, other)
        thread.join()
    assert b"v1.25.0" in first.flash
    assert b"v1.24.1" in second.flash


def esp_md5(data: bytes) -> bytes:
    from tests.device_images.samples import md5

    (size,) = struct.unpack_from("<I", data, 0x8FFC)
    return md5(data[4:size])
