"""The boot partition of a card: in an image (by mtools, which needs no root), or mounted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from .errors import BootPartitionFailed, MtoolsMissing, NoBootPartition
from .partitions import Partition

T = TypeVar("T")


class Boot(Protocol):
    """What is asked of it.  Paths are relative, with ``/``.  All raise BootPartitionFailed."""

    name: str

    def names(self) -> set[str]:
        """What lies at its root."""

    def read(self, path: str) -> bytes: ...

    def write(self, path: str, data: bytes) -> None:
        """Makes the folder that it lies in."""

    def copy(self, source: Path, path: str) -> None:
        """A file of this machine; makes the folder that it lies in."""

    def remove(self, folder: str) -> None:
        """With all that is in it; it need not be there."""

    def free(self) -> int: ...


class MountedBoot:
    """`/media/…/bootfs`."""

    def __init__(self, place: Path) -> None:
        self.name = str(place)
        self._place = place
        if not place.is_dir():
            raise NoBootPartition(self.name, "there is no such directory; is the card mounted?")

    def __repr__(self) -> str:
        return f"<MountedBoot {self.name}>"

    def names(self) -> set[str]:
        return self._try("looking at it", lambda: set(os.listdir(self._place)))

    def read(self, path: str) -> bytes:
        return self._try(f"reading {path}", (self._place / path).read_bytes)

    def write(self, path: str, data: bytes) -> None:
        self._try(f"writing {path}", lambda: self._write(self._place / path, data))

    def copy(self, source: Path, path: str) -> None:
        self.write(path, source.read_bytes())

    def remove(self, folder: str) -> None:
        self._try(f"removing {folder}", lambda: shutil.rmtree(self._place / folder, ignore_errors=True))

    def free(self) -> int:
        found = os.statvfs(self._place)
        return found.f_bavail * found.f_frsize

    def _write(self, place: Path, data: bytes) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_name(f"{place.name}.new")
        try:
            with open(fresh, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, place)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise

    def _try(self, doing: str, do: Callable[[], T]) -> T:
        try:
            return do()
        except OSError as error:
            raise BootPartitionFailed(self.name, doing, error.strerror or str(error)) from None


class ImageBoot:
    """In a file; its path must hold no ``@@``, which mtools takes for its own."""

    def __init__(self, image: Path, partition: Partition, name: str) -> None:
        self.name = name
        self._place = f"{image}@@{partition.start}"
        if shutil.which("mcopy") is None:
            raise MtoolsMissing

    def __repr__(self) -> str:
        return f"<ImageBoot {self._place}>"

    def names(self) -> set[str]:
        said = self._run("looking at it", "mdir", "-b", "::")
        return {line.removeprefix("::/").rstrip("/") for line in said.decode("utf-8", "replace").splitlines()}

    def read(self, path: str) -> bytes:
        return self._run(f"reading {path}", "mtype", f"::/{path}")

    def write(self, path: str, data: bytes) -> None:
        with tempfile.NamedTemporaryFile(prefix="farkernel-") as file:
            file.write(data)
            file.flush()
            self.copy(Path(file.name), path)

    def copy(self, source: Path, path: str) -> None:
        self._make_folders(path)
        # -o: what is there is replaced without a question
        self._run(f"writing {path}", "mcopy", "-o", str(source.absolute()), f"::/{path}")

    def remove(self, folder: str) -> None:
        if folder in self.names():
            self._run(f"removing {folder}", "mdeltree", f"::/{folder}")

    def free(self) -> int:
        said = self._run("looking at it", "mdir", "::").decode("utf-8", "replace")
        found = re.search(r"([0-9][0-9 ]*) bytes free", said)
        if found is None:
            raise BootPartitionFailed(self.name, "looking for its free room", said[-200:])
        return int(found[1].replace(" ", ""))

    def _make_folders(self, path: str) -> None:
        parts = path.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            folder = "/".join(parts[:count])
            try:
                self._run(f"looking at {folder}", "mdir", "-b", f"::/{folder}")
            except BootPartitionFailed:
                self._run(f"making {folder}", "mmd", f"::/{folder}")

    def _run(self, doing: str, program: str, *arguments: str) -> bytes:
        command = [program, "-i", self._place, *arguments]
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            env={**os.environ, "MTOOLSRC": os.devnull, "MTOOLS_SKIP_CHECK": "1", "LC_ALL": "C.UTF-8"},
        )
        if ended.returncode != 0:
            raise BootPartitionFailed(self.name, doing, ended.stderr.decode("utf-8", "replace"))
        return ended.stdout
