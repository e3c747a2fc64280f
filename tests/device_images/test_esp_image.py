"""The image format of ESP chips: what esptool itself finds in it, and what damage is seen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.device_images import esp_image
from farkernel.device_images.errors import BadFirmware
from farkernel.device_images.esp_image import BadEspImage, Segment
from tests.device_images.samples import RAM_SEGMENTS, esp32_bootloader, esp8266_image


def test_esp8266() -> None:
    data = esp8266_image()
    image = esp_image.parse(data + b"more")
    assert image.chip == "esp8266"
    assert image.flash_size == 4 << 20
    assert image.segments == (Segment(0x40100000, 16, 1024), Segment(0x3FFE8000, 1048, 256))
    assert image.end == len(data)


@pytest.mark.parametrize(("chip", "name"), sorted(esp_image.CHIPS.items()))
def test_esp32(chip: int, name: str) -> None:
    data = esp32_bootloader(chip)
    image = esp_image.parse(data + b"\xff" * 100)
    assert (image.chip, image.flash_size, image.end) == (name, 4 << 20, len(data))


@pytest.mark.parametrize(("data", "chip"), [(esp8266_image(), "ESP8266"), (esp32_bootloader(9), "ESP32-S3")])
def test_esptool_reads_the_samples_as_we_do(tmp_path: Path, data: bytes, chip: str) -> None:
    path = tmp_path / "image.bin"
    path.write_bytes(data)
    command = [sys.executable, "-m", "esptool", "image-info", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert chip in done.stdout
    assert "(valid)" in done.stdout
    assert "invalid" not in done.stdout


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it has only 0 bytes"),
        (b"\x7fELF" + bytes(100), "it begins with the byte 0x7f where 0xe9 is expected"),
        (b"\xe9\x00" + bytes(100), "it claims to have 0 segments"),
        (b"\xe9\x11" + bytes(100), "it claims to have 17 segments"),
        (esp8266_image()[:1040], "it ends within the header of a segment"),
        (esp8266_image()[:1200], "it ends within a segment"),
        (esp8266_image()[:-1], "it ends before its checksum"),
        (esp8266_image()[:-1] + b"\0", "its checksum is wrong"),
        (
            esp8266_image([(0x20000000, b"1234")]),
            "a segment would be loaded to 0x20000000, where no memory is",
        ),
        (esp32_bootloader()[:-1], "it ends before its SHA-256"),
        (esp32_bootloader()[:-1] + b"\0", "its SHA-256 is wrong"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, reason: str) -> None:
    with pytest.raises(BadEspImage) as error:
        esp_image.parse(data)
    assert error.value.what.endswith(f"damaged: {reason}")
    assert "Get the file again" in error.value.advice


@given(st.data())
def test_a_wrong_byte_in_a_segment_is_seen(data: st.DataObject) -> None:
    good = esp8266_image()
    segment = esp_image.parse(good).segments[data.draw(st.integers(0, len(RAM_SEGMENTS) - 1))]
    place = segment.offset + data.draw(st.integers(0, segment.size - 1))
    other = data.draw(st.integers(1, 255))
    with pytest.raises(BadEspImage):
        esp_image.parse(good[:place] + bytes([good[place] ^ other]) + good[place + 1 :])


@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=300).map(lambda tail: b"\xe9\x01" + tail),
        st.tuples(st.integers(0, 60), st.binary(max_size=12)).map(
            lambda change: (
                esp32_bootloader()[: change[0]] + change[1] + esp32_bootloader()[change[0] + len(change[1]) :]
            )
        ),
    )
)
def test_any_bytes_are_an_image_or_an_error(data: bytes) -> None:
    try:
        image = esp_image.parse(data)
    except BadEspImage:
        return
    assert image.end <= len(data)
    assert all(segment.offset + segment.size <= len(data) for segment in image.segments)


def test_another_flash_size_changes_four_bits() -> None:
    data = esp8266_image()
    changed = esp_image.with_flash_size(data, "esp8266", 1 << 20)
    assert changed[3] == 0x20
    assert changed[:3] + changed[4:] == data[:3] + data[4:]
    assert esp_image.parse(changed).flash_size == 1 << 20


def test_a_flash_size_that_there_is_not() -> None:
    with pytest.raises(BadFirmware, match="esp8266 knows no flash of 3000 bytes"):
        esp_image.with_flash_size(esp8266_image(), "esp8266", 3000)
