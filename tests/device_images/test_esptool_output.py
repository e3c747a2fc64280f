"""esptool's words, made into facts and errors: each of them as esptool 5.6 printed it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.device_images.esptool_output import EsptoolOutput
from farkernel.device_images.flash_errors import (
    BoardVanished,
    EsptoolFailed,
    NotInBootMode,
    UnknownChip,
    VerifyFailed,
    WriteFailed,
)
from farkernel.launcher.board.errors import BoardBusy, BoardGone, BoardPermission
from farkernel.launcher.errors import FarkernelError

PORT = "/dev/ttyUSB0"
FOUND = """\
esptool v5.6.0
Serial port /dev/ttyUSB0:
Connecting...

Detecting chip type... ESP8266
Connected to ESP8266 on /dev/ttyUSB0:
Chip type:          ESP8266EX
Features:           Wi-Fi, 160MHz
Crystal frequency:  26MHz
MAC:                5c:cf:7f:56:78:12

Uploading stub flasher...
Running stub flasher...
Stub flasher running.

Flash Memory Information:
=========================
Manufacturer: ef
Device: 4016
Detected flash size: 4MB

Staying in bootloader.
"""
WRITING = """\
Configuring flash size...
Flash will be erased from 0x00000000 to 0x00049fff...
Writing at 0x00004000 ━╸                               5.5% 16.00kB/292.97kB [0s]
Writing at 0x00024000 ━━━━━━━━━━━━━━╸                 49.2% 144.00kB/292.97kB [0s]
"""
WRITTEN = """\
Writing at 0x000493e0 ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 100.0% 292.97kB/292.97kB [0s]
Wrote 300000 bytes at 0x00000000 in 0.5 seconds (5006.3 kbit/s).
Verifying written data...
Hash of data verified.

Hard resetting via RTS pin...
"""
STEPS = "\nFor troubleshooting steps visit: https://docs.espressif.com/projects/esptool/en/latest/troubleshooting.html"


def fed(text: str) -> tuple[EsptoolOutput, list[int]]:
    output = EsptoolOutput(PORT)
    return output, [percent for line in text.split("\n") if (percent := output.feed(line)) is not None]


def test_facts() -> None:
    output, progress = fed(FOUND + WRITING + WRITTEN)
    assert (output.chip, output.mac, output.flash_size) == ("esp8266", "5c:cf:7f:56:78:12", 4 << 20)
    assert progress == [5, 49, 100]
    assert output.verified


@pytest.mark.parametrize(
    ("line", "chip"),
    [
        ("Connected to ESP32 on /dev/ttyUSB0:", "esp32"),
        ("Connected to ESP32-S3 on /dev/ttyACM0:", "esp32s3"),
        ("Detecting chip type... ESP32-C6", "esp32c6"),
    ],
)
def test_chips(line: str, chip: str) -> None:
    assert fed(line)[0].chip == chip


def could_not_open(reason: str) -> str:
    return f"ERROR: A fatal error occurred: Could not open {PORT}, the port is busy or doesn't exist.\n({reason})\n"


def fatal(reason: str) -> str:
    return f"\nERROR: A fatal error occurred: {reason}"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            could_not_open("[Errno 2] could not open port x: [Errno 2] No such file or directory: 'x'"),
            BoardGone,
        ),
        (
            could_not_open("[Errno 13] could not open port x: [Errno 13] Permission denied: 'x'"),
            BoardPermission,
        ),
        (
            could_not_open("[Errno 16] could not open port x: [Errno 16] Device or resource busy: 'x'"),
            BoardBusy,
        ),
        (
            could_not_open("[Errno 11] Could not exclusively lock port x: [Errno 11] Resource temporarily"),
            BoardBusy,
        ),
        (could_not_open("Could not open port rfc2217://h:1: [Errno 111] Connection refused"), BoardGone),
        (fatal("Failed to connect to Espressif device: No serial data received." + STEPS), NotInBootMode),
        (
            fatal("Failed to connect to ESP8266: Invalid head of packet (0x46): Possible serial noise"),
            NotInBootMode,
        ),
        (fatal("Unexpected chip magic value 0x00001234. Failed to autodetect chip type."), UnknownChip),
        (FOUND + fatal("Failed to start stub flasher. There was no response." + STEPS), BoardVanished),
        (FOUND + WRITING + fatal("The chip stopped responding."), BoardVanished),
        (
            FOUND
            + WRITING
            + "\nERROR: A serial exception error occurred: device reports readiness to read but "
            "returned no data (device disconnected or multiple access on port?)\nNote: This error originates …",
            BoardVanished,
        ),
        (
            FOUND + WRITING + fatal("No more data to read from the serial port. This can have many causes"),
            BoardVanished,
        ),
        (
            FOUND
            + WRITING
            + fatal(
                "Failed to write compressed data to flash after seq 2 (result was C400: Failed SPI operation)"
            ),
            WriteFailed,
        ),
        (FOUND + WRITING + WRITTEN + fatal("MD5 of file does not match data in flash!"), VerifyFailed),
        (FOUND + WRITING + WRITTEN + fatal("Write failed, the written flash region is empty."), VerifyFailed),
        (FOUND + WRITING + "\nHard resetting via RTS pin...\n", BoardVanished),
        (FOUND + WRITING + "Traceback (most recent call last):\n  File x\nValueError: what", EsptoolFailed),
        (fatal("Something that nobody has heard of."), EsptoolFailed),
        ("Traceback (most recent call last):\n  File x\nValueError: what", EsptoolFailed),
        ("", EsptoolFailed),
    ],
)
def test_errors(text: str, error: type[FarkernelError]) -> None:
    failure = fed(text)[0].failure(2, "dialout", "minicom, process 4711")
    assert type(failure) is error
    assert PORT in failure.what
    assert failure.advice


def test_what_the_errors_say() -> None:
    denied = fed(could_not_open("[Errno 13] Permission denied"))[0].failure(2, "dialout", "")
    assert "usermod -aG dialout" in denied.advice
    busy = fed(could_not_open("Could not exclusively lock port"))[0].failure(2, "", "minicom, process 4711")
    assert busy.what == "/dev/ttyUSB0 is in use by minicom, process 4711"
    silent = fed(fatal("Failed to connect to Espressif device: No serial data received."))[0]
    assert silent.failure(2).what == "no boot loader answers at /dev/ttyUSB0"
    assert "RESET" in silent.failure(2).advice
    assert (
        "(minicom, process 4711 has the port open too" in silent.failure(2, "", "minicom, process 4711").what
    )
    pulled = fed(FOUND + WRITING + fatal("The chip stopped responding."))[0].failure(2)
    assert pulled.what == "the board at /dev/ttyUSB0 stopped answering after 49 % was written"
    assert "incomplete: flash it again" in pulled.advice
    other = fed("Traceback\nValueError: what\x1b[31m")[0].failure(1)
    assert other.what == "esptool ended with status 1 at /dev/ttyUSB0: Traceback ValueError: what"


@given(st.lists(st.text(max_size=80), max_size=10), st.integers(-20, 300))
def test_any_words_make_an_error_that_can_be_shown(lines: list[str], status: int) -> None:
    output = EsptoolOutput(PORT)
    for line in lines:
        output.feed(line)
    assert str(output.failure(status)).isprintable()


# What esptool 4.7 said to a fake boot ROM (Debian 12 and Raspberry Pi OS have such ones).
OLD = """\
esptool.py v4.7.0
Serial port /dev/pts/0
Connecting...

Detecting chip type... ESP8266
Chip is ESP8266EX
Crystal is 26MHz
MAC: 5c:cf:7f:56:78:12
Uploading stub...
Detected flash size: 4MB
Compressed 131088 bytes to 94569...
Writing at 0x00000000... (16 %)
Writing at 0x0001ceb0... (100 %)
Wrote 131088 bytes (94569 compressed) at 0x00000000 in 0.0 seconds (effective 75675.9 kbit/s)...
Hash of data verified.
"""


def test_the_older_ones_words() -> None:
    output = EsptoolOutput("/dev/pts/0")
    percents = [output.feed(line) for line in OLD.splitlines()]
    assert [percent for percent in percents if percent is not None] == [16, 100]
    assert (output.chip, output.mac, output.flash_size) == ("esp8266", "5c:cf:7f:56:78:12", 4 << 20)
    assert output.verified
