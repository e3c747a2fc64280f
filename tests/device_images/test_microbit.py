"""micro:bit: Intel HEX, and a program that the unmodified firmware runs when it starts."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.device_images import intel_hex, microbit
from farkernel.device_images.errors import BadFirmware, DoesNotFit, UnfitFile
from farkernel.device_images.folder import BoardFile
from farkernel.device_images.intel_hex import BadHex

DEBIAN = Path("/usr/share/firmware-microbit-micropython/firmware.hex")
SMALL = b"\n".join([*intel_hex.records(0, b"this is a micro:bit's firmware"), microbit.END_OF_FILE])


def test_exact_lines() -> None:
    assert intel_hex.records(0x3E000, b"MP\x02\x00x\n" + bytes(10)) == [
        b":020000040003F7",
        b":10E000004D500200780A00000000000000000000EF",
    ]


@given(st.integers(0, 0xFFFF0000), st.binary(max_size=100))
def test_round_trip(address: int, data: bytes) -> None:
    address -= address % 16
    lines = [*intel_hex.records(address, data), microbit.END_OF_FILE]
    found = intel_hex.parse(b"\r\n".join(lines))
    assert b"".join(found[place] for place in sorted(found)) == data
    assert min(found, default=address) == address


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it has no end"),
        (SMALL[:-12], "it has no end"),
        (SMALL + b"\n" + SMALL, "comes after the end"),
        (b"hello", "line 1 is wrong"),
        (b":00000001FE", "line 1 is wrong"),
        (b":0000000", "line 1 is wrong"),
        (b":zz", "line 1 is wrong"),
        (b":\xff\xfe", "line 1 is wrong"),
        (b":0400000A9900C0DEBB", "unknown kind 10 (a universal hex file for two boards?)"),
    ],
)
def test_bad_files(data: bytes, reason: str) -> None:
    with pytest.raises(BadHex) as error:
        intel_hex.parse(data)
    assert reason in error.value.what


@given(st.binary(max_size=100))
def test_any_bytes_are_a_file_or_an_error(data: bytes) -> None:
    with contextlib.suppress(BadHex):
        intel_hex.parse(data)


@given(st.integers(0, len(SMALL) - 1), st.integers(0, 255))
def test_a_wrong_character_is_seen(place: int, other: int) -> None:
    """Unless it means the same: digits in small letters, another blank."""
    bad = SMALL[:place] + bytes([other]) + SMALL[place + 1 :]
    try:
        assert intel_hex.parse(bad) == intel_hex.parse(SMALL)
    except BadHex:
        return


def test_what_cannot_come_along() -> None:
    with pytest.raises(UnfitFile, match=r"'data\.txt'.*nothing but main\.py") as error:
        microbit.embed(SMALL, [BoardFile("data.txt", b"")])
    assert "farkernel board put" in error.value.advice
    with pytest.raises(UnfitFile, match="it is not in the folder"):
        microbit.embed(SMALL, [])
    with pytest.raises(DoesNotFit, match=r"main\.py \(8\.0 KiB\)"):
        microbit.embed(SMALL, [BoardFile("main.py", b"#" * 8189)])


def test_other_firmwares() -> None:
    other = b"\n".join([*intel_hex.records(0, b"something"), microbit.END_OF_FILE])
    main = [BoardFile("main.py", b"x")]
    with pytest.raises(BadFirmware, match="not MicroPython for the micro:bit"):
        microbit.embed(other, main)
    with pytest.raises(BadFirmware, match="holds a program already"):
        microbit.embed(microbit.embed(SMALL, main), main)


@pytest.mark.servers
def test_the_real_firmware_runs_it(tmp_path: Path) -> None:
    program = BoardFile("main.py", b"print('from main', 6 * 7)\n" + b"#" * 3000 + b"\nprint('the end')\n")
    image = tmp_path / "image.hex"
    image.write_bytes(microbit.embed(DEBIAN.read_bytes(), [program]))
    said = boot(image, until=b">>> ")
    assert said.startswith(b"\0from main 42\r\nthe end\r\nMicroPython v1.9.2")


def boot(image: Path, until: bytes) -> bytes:
    """What the board says."""
    ours, theirs = socket.socketpair()
    command = ["qemu-system-arm", "-display", "none", "-monitor", "none", "-machine", "microbit"]
    command += ["-device", f"loader,file={image}", "-chardev", f"socket,id=s,fd={theirs.fileno()}"]
    command += ["-serial", "chardev:s"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
    try:
        theirs.close()
        ours.settimeout(30)
        said, deadline = b"", time.monotonic() + 40
        while not said.endswith(until) and time.monotonic() < deadline:
            said += ours.recv(4096)
        return said
    finally:
        process.kill()
        process.wait()
        ours.close()
