"""Finding the boot partition: MBR, GPT, and what is no image of a card."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.device_images.raspberrypi.errors import NoBootPartition, NotAnImage
from farkernel.device_images.raspberrypi.partitions import Partition, boot_partition, packing
from farkernel.launcher.errors import FarkernelError
from tests.sites.pi_image import BOOT_SECTORS, SECTOR, START, make_image


def find(data: bytes) -> Partition:
    return boot_partition(lambda offset, count: data[offset : offset + count], len(data), "x.img")


@pytest.mark.parametrize("gpt", [False, True])
def test_of_a_real_table(tmp_path: Path, gpt: bool) -> None:
    data = make_image(tmp_path / "pi.img", {}, gpt).read_bytes()
    assert find(data) == Partition(START * SECTOR, BOOT_SECTORS * SECTOR)


FAT = b"\xeb\x58\x90" + b"\0" * 79 + b"FAT32   " + b"\0" * 420 + b"\x55\xaa"


def table(*entries: tuple[int, int, int]) -> bytes:
    packed = b"".join(struct.pack("<B3xB3xII", 0, *entry) for entry in entries)
    return b"\0" * 446 + packed.ljust(64, b"\0") + b"\x55\xaa"


@pytest.mark.parametrize(
    ("data", "error", "expected"),
    [
        (b"", NotAnImage, "x.img is no image of a card: it is empty"),
        (b"\0" * 4096, NotAnImage, "it is empty"),
        (b"<html>" * 1000, NotAnImage, "it has no partition table"),
        (FAT * 4, NotAnImage, "it is a single FAT partition"),
        (table(), NoBootPartition, "its partition table is empty"),
        (table((0x0C, 1, 9)), NotAnImage, "it ends before its partitions do"),
        (table((0x83, 1, 1)) + b"\0" * 512, NoBootPartition, "none of its partitions is FAT"),
        (table((0xEE, 1, 9)) + b"\0" * 9999, NoBootPartition, "its partition table is empty"),
    ],
)
def test_what_is_none(data: bytes, error: type[FarkernelError], expected: str) -> None:
    with pytest.raises(error) as caught:
        find(data)
    assert expected in caught.value.what
    assert caught.value.advice


def test_the_first_fat_counts() -> None:
    assert find(table((0x83, 1, 1), (0x0C, 2, 1), (0x0C, 3, 1)) + b"\0" * 512 + FAT + FAT) == Partition(
        1024, 512
    )


@given(st.binary(max_size=600), st.binary(min_size=64, max_size=64), st.binary(max_size=1500))
def test_any_table_is_found_in_or_refused(front: bytes, entries: bytes, rest: bytes) -> None:
    data = front[:446].ljust(446, b"\0") + entries + b"\x55\xaa" + rest
    try:
        found = find(data)
    except (NotAnImage, NoBootPartition):
        return
    assert 0 <= found.start < found.start + found.size <= len(data)


def test_packed_files_are_known() -> None:
    assert [packing(head) for head in (b"\xfd7zXZ\0\0\4", b"\x1f\x8b\x08", b"PK\3\4", b"BZh9", b"\0")] == [
        "xz",
        "gzip",
        "zip",
        "bzip2",
        "",
    ]
