"""Which cell asked what, and how much nobody saw: small files of a kernel that outlive the keeper.

A kernel's messages name the request that caused them, but not the cell; only the request does (JupyterLab puts
`cellId` into its metadata).  So the requests are remembered here, for `farkernel output --into`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import mmap
import os
import struct
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..messages import Message, MessageError

log = logging.getLogger(__name__)

MOST_CELLS = 10_000
_FIRST_LINE = 200
_NUMBER = struct.Struct("=Q")

Cell = dict[str, Any]  # msg_id, cell (its id, or None), time, line (the first of its code)


class CellLog:
    """The execute requests of a kernel, the newest `most` of them; JSON lines, appended."""

    def __init__(self, path: Path, most: int = MOST_CELLS) -> None:
        self._path = path
        self._most = most
        self._lines = len(read_cells(path))
        self._failed = False
        self._file = -1  # kept open: opening costs more than writing

    def __repr__(self) -> str:
        return f"<CellLog {self._path.name}: {self._lines} cells>"

    def add(self, message: Message) -> bool:
        """An execute_request passes; whether it shows anything.  Whatever is wrong with the disk must not stop it."""
        cell = describe(message)
        if cell is None:
            return False
        try:
            if self._file < 0:
                self._file = _private(str(self._path), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(self._file, json.dumps(cell).encode() + b"\n")
            self._lines += 1
            if self._lines > 2 * self._most:
                self._shorten()
            self._failed = False
        except OSError as error:
            if not self._failed:
                log.error(
                    "cannot write %s: %s; `farkernel output --into` has to go by the code", self._path, error
                )
            self._failed = True
        return True

    def add_missing(self, message: Message) -> None:
        """One that a killed keeper may not have come to write down."""
        if all(cell["msg_id"] != message.msg_id for cell in read_cells(self._path)):
            self.add(message)

    def _shorten(self) -> None:
        kept = read_cells(self._path, self._most)
        temporary = self._path.with_name(f".{self._path.name}.new")
        with open(temporary, "wb", opener=_private) as file:
            file.writelines(json.dumps(cell).encode() + b"\n" for cell in kept)
        os.replace(temporary, self._path)
        self.close()
        self._lines = len(kept)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def describe(message: Message) -> Cell | None:
    """What is remembered of an execute_request; None for what shows nothing."""
    try:
        content, metadata = message.content, message.metadata
        if content.get("silent"):
            return None
        cell = metadata.get("cellId")
        lines = str(content.get("code", "")).strip().splitlines()
        return {
            "msg_id": message.msg_id,
            "cell": cell if isinstance(cell, str) else None,
            "time": time.time(),
            "line": lines[0][:_FIRST_LINE] if lines else "",
        }
    except MessageError:
        return None


def read_cells(path: Path, most: int = MOST_CELLS) -> list[Cell]:
    """The newest `most`, oldest first; a line that was torn by a kill is passed over."""
    try:
        with open(path, "rb") as file:
            return list(deque(_parsed(file), most))
    except FileNotFoundError:
        return []


def _parsed(lines: Iterable[bytes]) -> Iterable[Cell]:
    for line in lines:
        try:
            cell = json.loads(line)
        except ValueError:
            continue
        if isinstance(cell, dict) and isinstance(cell.get("msg_id"), str):
            yield cell


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


class MissedCount:
    """How many outputs came while no client was there, in a mapped file: a killed keeper forgets none."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, _NUMBER.size)
            self._map = mmap.mmap(descriptor, _NUMBER.size)
        finally:
            os.close(descriptor)

    def __repr__(self) -> str:
        return f"<MissedCount {self.count}>"

    @property
    def count(self) -> int:
        return int(_NUMBER.unpack_from(self._map)[0])

    def add(self) -> None:
        _NUMBER.pack_into(self._map, 0, self.count + 1)

    def take(self) -> int:
        """The number, which is 0 from now on: it is said once."""
        count = self.count
        _NUMBER.pack_into(self._map, 0, 0)
        return count

    def close(self) -> None:
        with contextlib.suppress(ValueError):
            self._map.close()


def missed_text(kernel: str, count: int) -> str:
    """What the first cell after coming back says."""
    outputs = "1 output" if count == 1 else f"{count:,} outputs"
    where = "it under its cell" if count == 1 else "them under their cells"
    return (
        f"[farkernel] while nobody watched, this kernel made {outputs}: "
        f"farkernel output {kernel} --into NOTEBOOK.ipynb puts {where}\n"
    )
