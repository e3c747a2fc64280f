"""Telling firmwares apart, whatever their file is called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.device_images import firmware
from farkernel.device_images.errors import BadFirmware, UnreadableFile
from farkernel.device_images.firmware import Facts
from tests.device_images.samples import esp32_firmware, esp8266_firmware, rp2_firmware

DEBIAN = Path("/usr/share/firmware-microbit-micropython/firmware.hex")
VERSION = (1, 25, 0)
ESP32_PROOF = "the checksums of its boot loader and partition table"


@pytest.mark.parametrize(
    ("data", "facts"),
    [
        (esp8266_firmware(), Facts("esp8266", "esp8266", VERSION, "its own MD5")),
        (esp32_firmware(), Facts("esp32", "esp32", VERSION, ESP32_PROOF)),
        (b"\xff" * 0x1000 + esp32_firmware(), Facts("esp32", "esp32", VERSION, ESP32_PROOF)),
        (esp32_firmware(9, 0), Facts("esp32", "esp32s3", VERSION, ESP32_PROOF)),
        (rp2_firmware(), Facts("rp2040", "rp2040", VERSION, "all its blocks are there")),
        (DEBIAN.read_bytes(), Facts("microbit", "nrf51822", None, "the checksums of its lines")),
    ],
)
def test_each_kind(data: bytes, facts: Facts) -> None:
    assert firmware.identify(data) == facts


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "no firmware for a board that we know"),
        (b"<!DOCTYPE html><title>404", "no firmware for a board that we know"),
        (esp8266_firmware()[:-1], "this MicroPython for ESP8266 is damaged"),
        (esp32_firmware()[:2000], "it ends within a segment"),
        (esp32_firmware()[:2100], "holds only a boot loader"),
        (rp2_firmware()[:-512], "not a UF2 file for flash, or it is damaged"),
        (b":00000001FF", "not MicroPython for the micro:bit"),
    ],
)
def test_damage_is_named(data: bytes, what: str) -> None:
    with pytest.raises(BadFirmware) as error:
        firmware.identify(data)
    assert what in error.value.what
    assert error.value.advice


@given(st.sampled_from([esp8266_firmware(), esp32_firmware(), rp2_firmware()]), st.data())
def test_damage_anywhere_ends_well(good: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(good)))
    junk = data.draw(st.binary(max_size=20))
    cut = data.draw(st.integers(0, len(good)))
    try:
        firmware.identify((good[:place] + junk + good[place + len(junk) :])[:cut])
    except BadFirmware:
        return


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(1 << 40)
    for name, reason in (
        ("none", "No such file"),
        ("", "Is a directory|not an ordinary file"),
        ("pipe", "not an ordinary file"),
        ("huge", "no firmware has more than 64 MiB"),
    ):
        with pytest.raises(UnreadableFile, match=reason):
            firmware.read(tmp_path / name)
    with pytest.raises(UnreadableFile, match="not an ordinary file"):
        firmware.read("/dev/zero")
