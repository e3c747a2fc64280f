"""From a firmware and a folder to one file: everything at its place, and what does not go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from farkernel.device_images import build, esp32, manifest, uf2
from farkernel.device_images.build import Image, Request
from farkernel.device_images.errors import BadFirmware, DoesNotFit, SourceError, UnfitFile
from farkernel.device_images.esp8266 import firmware as esp8266
from farkernel.device_images.file_system import Geometry, read_files
from farkernel.device_images.manifest import NotWhatItSays
from farkernel.device_images.region import Region
from tests.device_images.samples import (
    BANNER_1M,
    FACTORY,
    NVS,
    esp32_firmware,
    esp8266_firmware,
    noise,
    rp2_firmware,
)

MIB = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "lesson"
    (place / "lib").mkdir(parents=True)
    (place / "main.py").write_bytes(b"import sensor\nprint(sensor.read())\n")
    (place / "lib" / "sensor.py").write_bytes(b"def read():\n    return 41\n")
    return place


def built(folder: Path, board: str, firmware: bytes, **options: object) -> Image:
    path = folder.parent / "firmware.bin"
    path.write_bytes(firmware)
    return build.build(Request(board=board, firmware=path, folder=folder, **options))  # type: ignore[arg-type]


def files_in(image: Image, geometry: Geometry | None = None) -> dict[str, bytes]:
    assert image.region is not None
    return read_files(image.data[image.region.start :], image.region.blocks, geometry)


def test_esp8266(folder: Path) -> None:
    firmware = esp8266_firmware()
    image = built(folder, "esp8266", firmware)
    assert image.data[: len(firmware)] == firmware
    assert set(image.data[len(firmware) : 0x100000]) == {0xFF}
    assert image.region == Region(0x100000, 0x2FB000)
    found = files_in(image)
    assert found["main.py"] == b"import sensor\nprint(sensor.read())\n"
    assert found["lib/sensor.mpy"][:2] == b"M\x06"
    assert image.files == {path: len(data) for path, data in found.items()}
    assert len(image.data) == 0x100000 + image.used_blocks * 4096
    assert (image.chip, image.version, image.known, image.suffix) == ("esp8266", (1, 25, 0), None, ".bin")
    assert image.flash_size == 4 * MIB
    assert esp8266.parse(image.data).size == len(firmware)  # the board's esp.check_fw() is content


@pytest.mark.parametrize(
    ("banner", "asked", "size", "code", "region"),
    [
        (b"MicroPython v1.25.0 on 2025-04-15; x", 2 * MIB, 2 * MIB, 3, Region(0x100000, 0xFB000)),
        (BANNER_1M, None, MIB, 2, Region(0x99000, 0x62000)),
        (BANNER_1M, 4 * MIB, 4 * MIB, 4, Region(0x99000, 0x362000)),
    ],
)
def test_esp8266_flash_sizes(
    folder: Path, banner: bytes, asked: int | None, size: int, code: int, region: Region
) -> None:
    """The board believes the header: the end of its files' place comes from there."""
    image = built(folder, "esp8266", esp8266_firmware(banner=banner), flash_size=asked)
    assert (image.flash_size, image.region) == (size, region)
    assert image.data[3] >> 4 == code
    assert "main.py" in files_in(image)


def test_the_same_image_each_time(folder: Path) -> None:
    assert built(folder, "esp8266", esp8266_firmware()) == built(folder, "esp8266", esp8266_firmware())


def test_an_image_can_be_made_from_an_image(folder: Path) -> None:
    first = built(folder, "esp8266", esp8266_firmware())
    assert built(folder, "esp8266", first.data).data == first.data


def test_without_compiling(folder: Path) -> None:
    image = built(folder, "esp8266", esp8266_firmware(), compile=False)
    assert files_in(image)["lib/sensor.py"] == b"def read():\n    return 41\n"


def test_an_old_micropython_gets_source(folder: Path) -> None:
    image = built(folder, "esp8266", esp8266_firmware(banner=b"MicroPython v1.18 on 2022-01-17; x"))
    assert "lib/sensor.py" in files_in(image)
    assert image.notes == ("modules stay source: this MicroPython is older than 1.19",)


def test_without_main(folder: Path) -> None:
    (folder / "main.py").unlink()
    assert "there is no main.py" in built(folder, "esp8266", esp8266_firmware()).notes[0]


@pytest.mark.parametrize(("chip", "offset"), [(0, 0x1000), (9, 0)])
def test_esp32(folder: Path, chip: int, offset: int) -> None:
    firmware = esp32_firmware(chip, offset)
    image = built(folder, "esp32", firmware)
    assert image.region == Region(0x200000, 0x200000)
    assert image.data[:offset] == b"\xff" * offset
    assert image.data[offset : offset + len(firmware)] == firmware
    assert sorted(files_in(image)) == ["lib/sensor.mpy", "main.py"]


def test_esp32_that_fills_its_flash(folder: Path) -> None:
    """The header says for which flash it is, with a hash that is right again."""
    firmware = esp32_firmware(0, 0x1000, NVS, FACTORY, version=b"v1.27.0")
    image = built(folder, "esp32", firmware, flash_size=8 * MIB)
    assert image.region == Region(0x200000, 0x600000)
    found = esp32.parse(image.data)
    assert found.bootloader.flash_size == 8 * MIB
    assert found.has_files(image.data)
    assert sorted(files_in(image)) == ["lib/sensor.mpy", "main.py"]
    again = built(folder, "esp32", image.data, flash_size=4 * MIB)
    assert again.region == Region(0x200000, 0x200000)


def test_rp2040(folder: Path) -> None:
    image = built(folder, "rp2040", rp2_firmware())
    assert (image.suffix, image.region) == (".uf2", Region(0xA0000, 1408 * 1024))
    memory = uf2.parse(image.data).memory()
    flash = b"".join(memory.get(0x10000000 + place, b"\xff" * 256) for place in range(0, 2 * MIB, 256))
    found = read_files(flash[0xA0000:], 352, Geometry(program_size=256))
    assert sorted(found) == ["lib/sensor.mpy", "main.py"]


def test_a_region_by_hand(folder: Path) -> None:
    region = Region(0x180000, 0x80000)
    image = built(folder, "esp32", esp32_firmware(), region=region)
    assert image.region == region
    assert "main.py" in files_in(image)


@pytest.mark.parametrize(
    ("region", "what"),
    [
        (Region(0x180001, 0x80000), "needs whole blocks of 4096 bytes"),
        (Region(0x180000, 0x1000), "needs whole blocks of 4096 bytes"),
        (Region(0x380000, 0x90000), "the files' place ends at 4259840 bytes, and the flash has 4M"),
        (Region(0x10000, 0x80000), "would lie over the files"),
    ],
)
def test_a_wrong_region(folder: Path, region: Region, what: str) -> None:
    with pytest.raises(BadFirmware, match=what):
        built(folder, "esp32", esp32_firmware(), region=region)


def test_the_wrong_board(folder: Path) -> None:
    with pytest.raises(BadFirmware, match="for esp32, not for esp8266") as error:
        built(folder, "esp8266", esp32_firmware())
    assert error.value.advice == "Use `farkernel image esp32`"


def test_too_much_for_a_small_flash(folder: Path) -> None:
    (folder / "photo.png").write_bytes(noise(1_100_000))
    with pytest.raises(DoesNotFit, match=r"the board's 1004 KiB.*the largest: photo\.png \(1074 KiB\)"):
        built(folder, "esp8266", esp8266_firmware(), flash_size=2 * MIB)


def test_a_wrong_source(folder: Path) -> None:
    (folder / "lib" / "sensor.py").write_bytes(b"def read(:\n")
    with pytest.raises(SourceError, match=r"'lib/sensor\.py' does not compile"):
        built(folder, "esp8266", esp8266_firmware())


def test_a_bad_copy_of_a_known_firmware(folder: Path) -> None:
    firmware = esp8266_firmware()
    verdict = manifest.check("firmware.bin", firmware, [])
    known = manifest.KnownFirmware("Ours", "esp8266", "1.25.0", "firmware.bin", len(firmware), verdict.sha256)
    path = folder.parent / "more.toml"
    path.write_text(manifest.entry(known))
    image = built(folder, "esp8266", firmware, manifests=(path,))
    assert image.known == known
    with pytest.raises(NotWhatItSays, match="has not the SHA-256 of Ours"):
        built(folder, "esp8266", esp8266_firmware(banner=b"other"), manifests=(path,))


def test_microbit_takes_no_region(folder: Path) -> None:
    debian = Path("/usr/share/firmware-microbit-micropython/firmware.hex").read_bytes()
    with pytest.raises(UnfitFile, match="no place for files"):
        built(folder, "microbit", debian, region=Region(0, 8192))
