"""Boards that are a drive: the right file is copied, another one is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from farkernel.device_images import drive
from farkernel.device_images.drive import CopyFailed, NotADrive, WrongFile
from farkernel.device_images.errors import BadFirmware
from tests.device_images.samples import esp8266_firmware, rp2_firmware

DEBIAN = Path("/usr/share/firmware-microbit-micropython/firmware.hex")


@pytest.fixture
def pico(tmp_path: Path) -> Path:
    (tmp_path / "INFO_UF2.TXT").write_text(
        "UF2 Bootloader v3.0\nModel: Raspberry Pi RP2\nBoard-ID: RPI-RP2\n"
    )
    return tmp_path


@pytest.fixture
def microbit(tmp_path: Path) -> Path:
    (tmp_path / "DETAILS.TXT").write_text("# DAPLink Firmware\nUnique ID: 9900\n")
    return tmp_path


def test_a_pico(pico: Path) -> None:
    assert drive.copy(pico, rp2_firmware()) == "firmware.uf2"
    assert (pico / "firmware.uf2").read_bytes() == rp2_firmware()


def test_a_microbit(microbit: Path) -> None:
    assert drive.copy(microbit, DEBIAN.read_bytes()) == "firmware.hex"
    assert (microbit / "firmware.hex").read_bytes() == DEBIAN.read_bytes()


def test_the_wrong_board(pico: Path) -> None:
    with pytest.raises(WrongFile, match="a board of the kind rp2040, and the file is for esp8266"):
        drive.copy(pico, esp8266_firmware())
    with pytest.raises(BadFirmware):
        drive.copy(pico, b"something else")
    assert [path.name for path in pico.iterdir()] == ["INFO_UF2.TXT"]


def test_a_folder_that_is_no_board(tmp_path: Path) -> None:
    with pytest.raises(NotADrive, match="is not the drive of a board") as error:
        drive.copy(tmp_path, rp2_firmware())
    assert "BOOTSEL" in error.value.advice


def test_a_board_that_refuses(microbit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (microbit / "FAIL.TXT").write_text("from the last time")
    assert drive.copy(microbit, DEBIAN.read_bytes())
    real = os.fsync

    def refusing(descriptor: int) -> None:
        real(descriptor)
        (microbit / "FAIL.TXT").write_text("error: The interface firmware FAILED\r\ntype: target\r\n")

    monkeypatch.setattr(os, "fsync", refusing)
    with pytest.raises(CopyFailed, match="The interface firmware FAILED type: target"):
        drive.copy(microbit, DEBIAN.read_bytes())


def test_a_drive_that_is_pulled_out(microbit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", gone)
    with pytest.raises(CopyFailed, match="Input/output error"):
        drive.copy(microbit, DEBIAN.read_bytes())


def test_a_pico_that_restarts_with_the_last_block(pico: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", gone)
    assert drive.copy(pico, rp2_firmware()) == "firmware.uf2"
