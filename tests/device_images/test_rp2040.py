"""RP2040: what binary info says, and one UF2 file of firmware and files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.device_images import rp2040, uf2
from farkernel.device_images.errors import BadFirmware
from farkernel.device_images.region import Region
from farkernel.device_images.rp2040 import NoBinaryInfo
from farkernel.device_images.uf2 import BadUf2
from tests.device_images.samples import rp2_firmware


def test_what_it_says() -> None:
    found = rp2040.parse(rp2_firmware())
    assert found.version == (1, 25, 0)
    assert found.region() == Region(0xA0000, 1408 * 1024)


def test_a_preview() -> None:
    assert rp2040.parse(rp2_firmware("v1.26.0-preview.77.g1234")).version == (1, 26, 0)
    assert rp2040.parse(rp2_firmware("today's")).version is None


@pytest.mark.parametrize(
    ("start", "size"), [(0x20000000, 0x1000), (0x100A0000, 0), (0x10FFF000, 0x2000), (0x100A0001, 0x4000)]
)
def test_a_place_that_cannot_be(start: int, size: int) -> None:
    with pytest.raises(NoBinaryInfo, match="does not say where its files are") as error:
        rp2040.parse(rp2_firmware(start=start, size=size)).region()
    assert "--region" in error.value.advice


def test_no_binary_info() -> None:
    data = uf2.serialize(0xE48BFF56, uf2.pieces(0x10000000, b"\0" * 4096))
    found = rp2040.parse(data)
    assert found.version is None
    with pytest.raises(NoBinaryInfo):
        found.region()


def test_another_chip() -> None:
    with pytest.raises(BadFirmware, match="for another chip"):
        rp2040.parse(rp2_firmware(family=0x1234))


def test_both_in_one_file() -> None:
    firmware = rp2040.parse(rp2_firmware())
    both = uf2.parse(firmware.with_file_system(0xA0000, b"files" * 1000))
    memory = both.memory()
    assert list(both.blocks[:32]) == list(firmware.uf2.blocks)
    content = b"".join(memory[0x100A0000 + place] for place in range(0, 8192, 256))
    assert content == (b"files" * 1000).ljust(
        8192, b"\xff"
    )  # whole sectors: the boot ROM erases those it writes to
    assert len(both.blocks) == 32 + 32


def test_files_over_the_firmware() -> None:
    with pytest.raises(BadFirmware, match="the firmware itself lies where the files would be"):
        rp2040.parse(rp2_firmware()).with_file_system(0x1000, b"files")


@given(st.integers(0, 32 * 512 - 1), st.binary(min_size=1, max_size=16))
def test_any_change_is_a_firmware_or_an_error(place: int, junk: bytes) -> None:
    good = rp2_firmware()
    try:
        found = rp2040.parse((good[:place] + junk + good[place + len(junk) :])[: len(good)])
        found.region()
    except (BadUf2, BadFirmware):
        return
