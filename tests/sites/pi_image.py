"""Small images of cards: a partition table, a FAT boot partition with what Raspberry Pi OS has there, and a second one."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

SECTOR = 512
START = 8192  # sectors, as Raspberry Pi OS has it
BOOT_SECTORS = 80 * 2048  # FAT32 wants 65,525 clusters
ROOT_SECTORS = 4 * 2048
CMDLINE = "console=serial0,115200 console=tty1 root=PARTUUID=4c4e106f-02 rootfstype=ext4 fsck.repair=yes rootwait quiet\n"
BOOKWORM: Mapping[str, bytes] = {"cmdline.txt": CMDLINE.encode(), "config.txt": b"arm_64bit=1\n"}
TRIXIE: Mapping[str, bytes] = {
    **BOOKWORM,
    "user-data": b"#cloud-config\n",
    "meta-data": b"instance_id: rpios-image\n",
    "network-config": b"# nothing\n",
}


def make_image(place: Path, files: Mapping[str, bytes] = TRIXIE, gpt: bool = False) -> Path:
    with open(place, "wb") as image:
        image.truncate((START + BOOT_SECTORS + ROOT_SECTORS + 2048) * SECTOR)
        image.write(_mbr((0xEE, 1, 0xFFFFFFFF)) if gpt else partition_table(BOOT_SECTORS, ROOT_SECTORS))
        if gpt:
            image.seek(SECTOR)
            image.write(_gpt_header())
            image.seek(2 * SECTOR)
            image.write(_gpt_entries())
        image.seek((START + BOOT_SECTORS) * SECTOR)
        image.write(os.urandom(4096))  # a file system that is none of ours
    kilobytes = BOOT_SECTORS * SECTOR // 1024
    subprocess.run(
        ["mkfs.vfat", "-F", "32", "-n", "bootfs", "--offset", str(START), str(place), str(kilobytes)],
        check=True,
        capture_output=True,
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
    )
    for path, data in files.items():
        write(place, path, data)
    return place


def mtools(image: Path, *command: str, data: bytes = b"") -> bytes:
    program, *arguments = command
    return subprocess.run(
        [program, "-i", f"{image}@@{START * SECTOR}", *arguments],
        input=data,
        check=True,
        capture_output=True,
        env={**os.environ, "MTOOLS_SKIP_CHECK": "1"},
    ).stdout


def write(image: Path, path: str, data: bytes) -> None:
    mtools(image, "mcopy", "-", f"::/{path}", data=data)


def read(image: Path, path: str) -> bytes:
    return mtools(image, "mtype", f"::/{path}")


def tree(image: Path) -> set[str]:
    """Every file on the boot partition."""
    said = mtools(image, "mdir", "-b", "-/", "::").decode()
    return {line.removeprefix("::/") for line in said.splitlines() if line and not line.endswith("/")}


def partition_table(boot: int, root: int) -> bytes:
    """An MBR, for so many sectors."""
    return _mbr((0x0C, START, boot), (0x83, START + boot, root))


def _mbr(*entries: tuple[int, int, int]) -> bytes:
    table = b"".join(struct.pack("<B3xB3xII", 0, kind, start, size) for kind, start, size in entries)
    return b"\0" * 446 + table.ljust(64, b"\0") + b"\x55\xaa"


def _gpt_header() -> bytes:
    return struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, 1, 0, 34, 0, b"", 2, 128, 128, 0)


def _gpt_entries() -> bytes:
    rows = [(START + BOOT_SECTORS, ROOT_SECTORS), (START, BOOT_SECTORS)]
    return b"".join(
        struct.pack("<16s16sQQQ72s", b"\x01" * 16, b"\x02" * 16, start, start + size - 1, 0, b"")
        for start, size in rows
    )
