"""Known firmwares: by content, and bad copies by name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.device_images import manifest
from farkernel.device_images.errors import UnreadableFile
from farkernel.device_images.manifest import BadManifest, KnownFirmware, NotWhatItSays, Standing, Verdict

DEBIAN = Path("/usr/share/firmware-microbit-micropython/firmware.hex")
CONTENT = b"firmware"
KNOWN = KnownFirmware(
    "MicroPython",
    "esp8266",
    "1.25.0",
    "esp/fw.bin",
    len(CONTENT),
    hashlib.sha256(CONTENT).hexdigest(),
    "our server",
)


@pytest.mark.parametrize(
    ("path", "data", "standing"),
    [
        ("renamed.bin", CONTENT, Standing.KNOWN),
        ("downloads/esp/fw.bin", CONTENT, Standing.KNOWN),
        ("downloads/esp/fw.bin", CONTENT[:-1], Standing.WRONG_SIZE),
        ("esp/fw.bin", b"Firmware", Standing.WRONG_HASH),
        ("fw.bin", b"Firmware", Standing.UNKNOWN),
        ("esp/other.bin", b"Firmware", Standing.UNKNOWN),
    ],
)
def test_standing(path: str, data: bytes, standing: Standing) -> None:
    verdict = manifest.check(path, data, [KNOWN])
    assert verdict == Verdict(
        standing,
        None if standing is Standing.UNKNOWN else KNOWN,
        len(data),
        hashlib.sha256(data).hexdigest(),
    )


@pytest.mark.parametrize(
    ("standing", "what"),
    [
        (Standing.WRONG_SIZE, "'fw.bin' has 3 bytes, and MicroPython 1.25.0 has 8"),
        (
            Standing.WRONG_HASH,
            "'fw.bin' has not the SHA-256 of MicroPython 1.25.0: something in it was changed",
        ),
    ],
)
def test_a_bad_copy_is_explained(standing: Standing, what: str) -> None:
    error = NotWhatItSays("fw.bin", Verdict(standing, KNOWN, 3, ""))
    assert error.what == what
    assert error.advice.startswith("Get it again (our server)")


def test_ours_is_right_about_debians_firmware() -> None:
    verdict = manifest.check(DEBIAN, DEBIAN.read_bytes(), manifest.load())
    assert verdict.standing is Standing.KNOWN


def test_what_is_printed_can_be_read(tmp_path: Path) -> None:
    odd = KnownFirmware('a "quoted" \\ name\x1b[31m', "esp32", "", "x.bin", 1, "0" * 64)
    path = tmp_path / "more.toml"
    path.write_text(manifest.entry(KNOWN) + "\n\n" + manifest.entry(odd) + "\n", "utf-8")
    loaded = manifest.load([path])
    assert loaded[-2] == KNOWN
    assert loaded[-1].name == 'a "quoted" \\ name'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[firmware", "Expected ']]'"),
        ("", "it must hold tables"),
        ("firmware = 3", "it must hold tables"),
        ("firmware = [3]", "entry 1 is not a table"),
        ("other = 1\n" + manifest.entry(KNOWN), "it must hold tables"),
        (manifest.entry(KNOWN) + "\ncolour = 1", "entry 1 has an unknown key 'colour'"),
        (
            manifest.entry(KNOWN).replace("size = 8", 'size = "8"'),
            "'size' of entry 1 must be of the type int",
        ),
        (
            manifest.entry(KNOWN).replace("size = 8", "size = true"),
            "'size' of entry 1 must be of the type int",
        ),
        (manifest.entry(KNOWN).replace("size = 8\n", ""), "entry 1 has no 'size'"),
        (manifest.entry(KNOWN).replace("size = 8", "size = 0"), "sha256 or size of entry 1 cannot be right"),
        (manifest.entry(KNOWN).replace(KNOWN.sha256, "abc"), "sha256 or size of entry 1 cannot be right"),
        ("#" * (1 << 21), "it has more than 1 MiB"),
    ],
)
def test_a_wrong_list(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "more.toml"
    path.write_text(text)
    with pytest.raises(BadManifest) as error:
        manifest.load([path])
    assert reason in error.value.what
    assert str(path) in error.value.what


def test_no_list(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="No such file"):
        manifest.load([tmp_path / "none.toml"])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_list_or_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "more.toml"
    path.write_bytes(data)
    with pytest.raises(BadManifest):
        manifest.load([path])
