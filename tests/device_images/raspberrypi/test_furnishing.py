"""Cards' files on boot partitions: in images by mtools, and mounted; what is said when it cannot be done."""

from __future__ import annotations

import gzip
import lzma
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from farkernel.device_images.raspberrypi import first_run
from farkernel.device_images.raspberrypi.boot import Boot, ImageBoot, MountedBoot
from farkernel.device_images.raspberrypi.card import Release
from farkernel.device_images.raspberrypi.errors import (
    BootPartitionFailed,
    ImageInUse,
    MtoolsMissing,
    NoBootPartition,
    NoRoom,
    NotAnImage,
    NotWhatWasWritten,
)
from farkernel.device_images.raspberrypi.furnishing import furnish
from farkernel.device_images.raspberrypi.image_file import copy_image, fresh_file, open_boot
from farkernel.device_images.raspberrypi.partitions import Partition
from tests.device_images.raspberrypi.cards import usual
from tests.sites import pi_image
from tests.sites.pi_image import BOOKWORM, CMDLINE, TRIXIE, make_image


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    place = tmp_path / "ipykernel-7.1.0-py3-none-any.whl"
    place.write_bytes(os.urandom(70_000))
    return place


def test_onto_an_image_of_trixie(tmp_path: Path, wheel: Path) -> None:
    image = make_image(tmp_path / "pi.img")
    behind = image.read_bytes()[-8 << 20 :]
    shown: list[str] = []
    done = furnish(open_boot(image, "pi.img"), usual(), [wheel], None, shown.append)
    assert done.release is Release.CLOUD_INIT
    assert pi_image.tree(image) == {*TRIXIE, *done.files}
    assert pi_image.read(image, f"farkernel/wheels/{wheel.name}") == wheel.read_bytes()
    assert b'hostname: "pi01"' in pi_image.read(image, "user-data")
    assert pi_image.read(image, "cmdline.txt") == CMDLINE.encode()
    assert set(shown) == set(done.files)
    assert image.read_bytes()[-8 << 20 :] == behind  # nothing else has changed


def test_onto_an_image_of_bookworm_and_again(tmp_path: Path, wheel: Path) -> None:
    image = make_image(tmp_path / "pi.img", BOOKWORM)
    for _ in range(2):
        done = furnish(open_boot(image, "pi.img"), usual(), [wheel], None)
        assert done.release is Release.FIRST_RUN
        assert pi_image.tree(image) == {*BOOKWORM, *done.files}
        line = pi_image.read(image, "cmdline.txt").decode()
        assert line == CMDLINE.strip() + (
            " cfg80211.ieee80211_regdom=DE systemd.run=/boot/firstrun.sh systemd.run_success_action=reboot "
            "systemd.unit=kernel-command-line.target\n"
        )
    done = furnish(open_boot(image, "pi.img"), usual(), [], None)
    assert not any("wheels" in path for path in pi_image.tree(image))  # what was there before is gone


def test_onto_a_mounted_partition(tmp_path: Path, wheel: Path) -> None:
    for name, data in TRIXIE.items():
        (tmp_path / "boot" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "boot" / name).write_bytes(data)
    done = furnish(MountedBoot(tmp_path / "boot"), usual(), [wheel], None)
    written = {
        str(path.relative_to(tmp_path / "boot")) for path in (tmp_path / "boot").rglob("*") if path.is_file()
    }
    assert written == {*TRIXIE, *done.files}
    with pytest.raises(NoBootPartition, match="is the card mounted"):
        MountedBoot(tmp_path / "none")
    (tmp_path / "home").mkdir()
    with pytest.raises(NoBootPartition, match=r"there is no cmdline\.txt or no config\.txt"):
        furnish(MountedBoot(tmp_path / "home"), usual(), [], None)


def test_too_much_is_said_before_anything_is_written(tmp_path: Path) -> None:
    image = make_image(tmp_path / "pi.img")
    large = tmp_path / "torch-2-cp313-none-any.whl"
    with open(large, "wb") as file:
        file.truncate(100 << 20)
    before = pi_image.tree(image)
    with pytest.raises(NoRoom, match=r"pi\.img has 7.* MiB free, and 1.. MiB are needed"):
        furnish(open_boot(image, "pi.img"), usual(), [large], None)
    assert pi_image.tree(image) == before


def test_a_partition_that_refuses(tmp_path: Path) -> None:
    image = make_image(tmp_path / "pi.img")
    boot = ImageBoot(image, Partition(0, 0), "pi.img")
    with pytest.raises(BootPartitionFailed, match=r"pi\.img: looking at it failed: "):
        furnish(boot, usual(), [], None)
    with pytest.raises(BootPartitionFailed, match="reading none failed"):
        open_boot(image, "pi.img").read("none")


class Forgetful(MountedBoot):
    def read(self, path: str) -> bytes:
        return super().read(path)[:10]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    for name, data in BOOKWORM.items():
        (tmp_path / name).write_bytes(data)
    boot: Boot = Forgetful(tmp_path)
    with pytest.raises(NotWhatWasWritten, match=r"what was read back of .* is not what was written"):
        furnish(boot, usual(), [], None)


def test_without_mtools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        MtoolsMissing, match="sudo apt install mtools; or write the card first and use --onto"
    ):
        ImageBoot(tmp_path / "pi.img", Partition(0, 0), "pi.img")


# -- copies ------------------------------------------------------------------------------------------------


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    return os.urandom(100_000) + bytes(5 << 20) + os.urandom(1000) + bytes(3 << 20)


def copied(source: Path) -> bytes:
    place = source.with_name("copy.img")
    place.touch()
    done: list[int] = []
    copy_image(source, place, lambda count, total: done.append(count))
    assert not done or done[-1] == place.stat().st_size
    assert place.stat().st_blocks * 512 <= 4 << 20  # zeros take no room
    return place.read_bytes()


def test_images_are_unpacked(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.img").write_bytes(content)
    (tmp_path / "a.img.xz").write_bytes(lzma.compress(content, preset=0))
    (tmp_path / "a.img.gz").write_bytes(gzip.compress(content, 1))
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("readme.txt", "x")
        archive.writestr("a.img", content)
    for name in ("a.img", "a.img.xz", "a.img.gz", "a.zip"):
        assert copied(tmp_path / name) == content, name


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.img.zst", b"\x28\xb5\x2f\xfdxxxxx", "it is packed by zstd. Unpack it first: unzstd"),
        ("a.img.xz", lzma.compress(bytes(9999))[:-20], "it is damaged: .*Download it again"),
        ("a.img.xz", b"\xfd7zXZ\0garbage", "it is damaged"),
        ("a.img.gz", gzip.compress(os.urandom(9999))[:900], "it is damaged"),
        ("a.zip", b"PK\3\4 no zip", "it is damaged"),
    ],
)
def test_what_cannot_be_unpacked(tmp_path: Path, name: str, data: bytes, expected: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(NotAnImage, match=expected):
        copied(tmp_path / name)


def test_a_copy_is_whole_or_not_there(tmp_path: Path) -> None:
    place = tmp_path / "pi01.img"
    with pytest.raises(IsADirectoryError), fresh_file(place):
        tmp_path.write_text("half")
    assert list(tmp_path.iterdir()) == []
    with fresh_file(place) as fresh:
        fresh.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["pi01.img"]
    assert place.read_text() == "whole"
    assert place.stat().st_mode & 0o777 == 0o600


def test_a_disk_without_room_is_told_before_anything_is_copied(tmp_path: Path) -> None:
    source = tmp_path / "raspios.img"
    source.write_bytes(os.urandom(2 << 20))
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    try:
        with (
            pytest.raises(NoRoom, match=r"small has 1 MiB free, and 2 MiB are needed"),
            fresh_file(small / "pi.img") as fresh,
        ):
            copy_image(source, fresh, lambda done, total: None)
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_an_image_that_is_mounted_is_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "pi01.img"
    place.write_bytes(bytes(1 << 20))
    command = ["losetup", "--find", "--show", str(place)]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        with pytest.raises(ImageInUse, match=rf"is in use: it is mounted by {device}\."), fresh_file(place):
            pass
        assert [path.name for path in tmp_path.iterdir()] == ["pi01.img"]
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_a_device_is_not_written_to() -> None:
    with pytest.raises(ImageInUse, match="it is a device or a directory"), fresh_file(Path("/dev/null")):
        pass


def test_parameters_of_the_kernel() -> None:
    assert first_run.command_line("a\n") == first_run.command_line(first_run.command_line("a"))
    assert "regdom" not in first_run.command_line(first_run.command_line("a", "DE"))
