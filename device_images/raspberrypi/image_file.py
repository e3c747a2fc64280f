"""Copies of an image: unpacked if it is packed, whole or not there at all."""

from __future__ import annotations

import fcntl
import glob
import gzip
import lzma
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from .boot import ImageBoot
from .errors import ImageInUse, NoRoom, NotAnImage
from .partitions import boot_partition, packing

Progress = Callable[[int, int | None], None]  # bytes done, of how many if that is known
_BLOCK = 1 << 20
_ZEROS = bytes(_BLOCK)
_CLONE = 0x40049409  # FICLONE of <linux/fs.h>: the copy shares its blocks until one of the two is changed


def copy_image(source: Path, place: Path, progress: Progress) -> None:
    """Unpack or copy; raises NotAnImage, NoRoom, OSError.  ``place`` is a file that there is."""
    with open(source, "rb") as packed:
        head = packed.read(8)
        packed.seek(0)
        kind = packing(head)
        total = os.fstat(packed.fileno()).st_size if not kind else None
        if total is not None:
            _see_that_it_fits(place, os.fstat(packed.fileno()).st_blocks * 512)
        with open(place, "r+b") as copy, _unpacked(packed, kind, str(source)) as stream:
            if not kind and _cloned(packed, copy):
                return
            _pump(stream, copy, str(source), total, progress)


def open_boot(image: Path, name: str) -> ImageBoot:
    """The boot partition in it.  Raises NotAnImage, NoBootPartition, MtoolsMissing."""
    with open(image, "rb") as file:
        size = os.fstat(file.fileno()).st_size

        def read(offset: int, count: int) -> bytes:
            file.seek(offset)
            return file.read(count)

        return ImageBoot(image, boot_partition(read, size, name), name)


@contextmanager
def fresh_file(place: Path) -> Iterator[Path]:
    """A file beside `place` that takes its place if all goes well.  Raises ImageInUse."""
    if place.exists() and not place.is_file():
        raise ImageInUse(str(place), "it is a device or a directory, and an image is a file")
    _see_that_it_is_free(place)
    descriptor, name = tempfile.mkstemp(prefix=".farkernel-", suffix=".img", dir=place.parent)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield Path(name)
        os.fchmod(descriptor, 0o600)  # there are keys in it
        os.fsync(descriptor)
        os.replace(name, place)
    except BaseException:
        os.unlink(name)
        raise
    finally:
        os.close(descriptor)


def _see_that_it_is_free(place: Path) -> None:
    for path in glob.glob("/sys/block/loop*/loop/backing_file"):
        try:
            backing = Path(path).read_text("utf-8").rstrip("\n")
        except OSError:
            continue
        if backing == str(place.resolve()):
            raise ImageInUse(str(place), f"it is mounted by /dev/{path.split('/')[3]}")


def _see_that_it_fits(place: Path, needed: int) -> None:
    found = os.statvfs(place)
    free = found.f_bavail * found.f_frsize
    if free < needed:
        raise NoRoom(str(place.parent), needed, free)


@contextmanager
def _unpacked(packed: IO[bytes], kind: str, name: str) -> Iterator[IO[bytes]]:
    if kind == "xz":
        with lzma.open(packed) as stream:
            yield stream
    elif kind == "gzip":
        with gzip.open(packed) as unzipped:
            yield cast(IO[bytes], unzipped)
    elif kind == "zip":
        with _archive(packed, name) as archive:
            images = [each for each in archive.namelist() if each.lower().endswith(".img")]
            if len(images) != 1:
                raise NotAnImage(
                    name, f"it is a zip file with {len(images)} .img files in it", "Unpack it: unzip"
                )
            with archive.open(images[0]) as stream:
                yield stream
    elif kind:
        tool = {"zstd": "unzstd", "bzip2": "bunzip2"}[kind]
        raise NotAnImage(name, f"it is packed by {kind}", f"Unpack it first: {tool} {name}")
    else:
        yield packed


def _archive(packed: IO[bytes], name: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(packed)
    except zipfile.BadZipFile as error:
        raise NotAnImage(name, f"it is damaged: {error}", "Download it again") from None


def _cloned(source: IO[bytes], copy: IO[bytes]) -> bool:
    try:
        fcntl.ioctl(copy.fileno(), _CLONE, source.fileno())
    except OSError:
        return False
    return True


def _pump(stream: IO[bytes], copy: IO[bytes], name: str, total: int | None, progress: Progress) -> None:
    """Blocks of zeros are left out: most of an image is empty."""
    done = 0
    while block := _read(stream, name):
        if block == _ZEROS[: len(block)]:
            copy.seek(len(block), os.SEEK_CUR)
        else:
            copy.write(block)
        done += len(block)
        progress(done, total)
    copy.truncate(done)


def _read(stream: IO[bytes], name: str) -> bytes:
    try:
        return stream.read(_BLOCK)
    except (lzma.LZMAError, gzip.BadGzipFile, zipfile.BadZipFile, EOFError) as error:
        raise NotAnImage(name, f"it is damaged: {error}", "Download it again") from None
