"""Flashing with the real esptool, where the board is plugged in.

`flash(job, progress)` needs nothing of the rest: a port, a file's content, somebody to tell.  esptool runs as a program
of its own: it may hang, end itself, and is under another licence than we are.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..launcher.agent.holds import group_of, holder_of
from . import esp32
from .errors import BadFirmware, ToolMissing
from .esp8266 import firmware as esp8266
from .esp_image import parse as parse_esp_image
from .esptool_output import EsptoolOutput
from .flash_errors import BoardVanished, FlashError, WrongChip, WrongFlashSize
from .serial_device import checked

BAUD = 460800
# esptool's own longest wait is for erasing a whole chip, 120 s.
SILENCE = 150.0
CONNECT_ATTEMPTS = 7  # esptool's own default


@dataclass(frozen=True)
class FlashJob:
    port: str
    data: bytes
    baud: int = BAUD
    connect_attempts: int = CONNECT_ATTEMPTS


@dataclass(frozen=True)
class Flashed:
    chip: str
    mac: str
    flash_size: int | None
    size: int
    seconds: float


@dataclass(frozen=True)
class Step:
    """What is going on: `percent` only while writing."""

    doing: str
    percent: int | None = None


Progress = Callable[[Step], None]


@dataclass(frozen=True)
class _Plan:
    chip: str
    offset: int
    flash_size: int | None  # that the image counts on; None: any
    size_option: str
    exactly: bool = False  # also a larger flash would be wrong


def flash(job: FlashJob, progress: Progress) -> Flashed:
    """Write, compare what was written, start the board.  Raises FlashError, BoardError, ImageError.

    Nothing is written before it is known that the chip and the size of its flash are right.
    """
    plan = _plan(job.data)
    port = checked(job.port)
    if find_spec("esptool") is None:
        raise ToolMissing("esptool", "flash boards")
    began = time.monotonic()
    progress(Step("looking for the board"))
    with tempfile.TemporaryDirectory(prefix="farkernel-") as place:
        found = EsptoolOutput(job.port)
        try:
            _run(port, ["--after", "no-reset", "flash-id"], found, job, place, progress)
        except FlashError as error:
            # Whatever goes wrong with a board of another kind, that it is one is what there is to say.
            if found.chip in (None, plan.chip):
                raise
            raise WrongChip(job.port, str(found.chip), plan.chip) from error
        if found.chip != plan.chip:
            raise WrongChip(job.port, found.chip or "of an unknown kind", plan.chip)
        needed = max(plan.flash_size or 0, plan.offset + len(job.data))
        if found.flash_size is not None and found.flash_size < needed:
            raise WrongFlashSize(job.port, found.flash_size, needed)
        if found.flash_size is not None and plan.exactly and found.flash_size != plan.flash_size:
            raise WrongFlashSize(job.port, found.flash_size, needed)
        progress(Step(f"writing to {found.chip}, {found.mac}", 0))
        file = Path(place, "image.bin")
        file.write_bytes(job.data)
        written = EsptoolOutput(job.port)
        arguments = ["--chip", plan.chip, "--baud", str(job.baud)]
        arguments += ["write-flash", "--flash-size", plan.size_option, hex(plan.offset), str(file)]
        _run(port, arguments, written, job, place, progress)
        if not written.verified:
            raise written.failure(0)
    return Flashed(plan.chip, found.mac or "", found.flash_size, len(job.data), time.monotonic() - began)


def _plan(data: bytes) -> _Plan:
    """Where a file belongs; raises BadFirmware."""
    try:
        image = parse_esp_image(data)
    except BadFirmware as error:
        if data[:1] != b"\xff":
            raise BadFirmware(
                f"esptool cannot flash this file: {error.what}",
                "ESP8266 and ESP32 boards take images for them only",
            ) from error
        image = None
    if image is not None and image.chip == "esp8266":
        try:
            bare = len(data) == esp8266.parse(data).size
        except esp8266.DamagedFirmware:
            raise
        except BadFirmware:
            bare = True  # a program that is not MicroPython
        # An image counts on the size that its header names; a firmware alone takes what there is.
        return _Plan("esp8266", 0, None if bare else image.flash_size, "detect" if bare else "keep")
    found = esp32.parse(data)
    exactly = found.has_files(data)
    size = found.bootloader.flash_size if exactly else None
    return _Plan(found.bootloader.chip, found.offset, size, "keep", exactly)


def _run(
    port: str, arguments: Sequence[str], output: EsptoolOutput, job: FlashJob, place: str, progress: Progress
) -> None:
    """One run of esptool; raises what its output says."""
    # -P: what lies about in the directory is not imported.  There esptool finds no esptool.cfg either.
    command = [sys.executable, "-P", "-m", "esptool", "--port", port]
    command += ["--connect-attempts", str(job.connect_attempts), *arguments]
    with _started(command, place) as process:
        for line in _lines(process, output):
            percent = output.feed(line)
            if percent is not None:
                progress(Step("writing", percent))
            elif line.startswith("Verifying"):
                progress(Step("comparing what was written"))
        try:
            status = process.wait(SILENCE)
        except subprocess.TimeoutExpired:
            raise BoardVanished(job.port, output.percent) from None
    if status:
        raise output.failure(status, group_of(port), holder_of(port))


@contextmanager
def _started(command: Sequence[str], place: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ESPTOOL_")}
    environment |= {"NO_COLOR": "1", "TERM": "dumb", "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen(
        command,
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _lines(process: subprocess.Popen[bytes], output: EsptoolOutput) -> Iterator[str]:
    """Whatever ends a line, also a carriage return; raises BoardVanished when nothing comes for too long."""
    assert process.stdout is not None
    rest = b""
    while True:
        readable, _, _ = select.select([process.stdout], [], [], SILENCE)
        if not readable:
            raise BoardVanished(output.port, output.percent)
        piece = os.read(process.stdout.fileno(), 65536)
        *lines, rest = (rest + piece).replace(b"\r", b"\n").split(b"\n")
        yield from (line.decode("utf-8", "replace") for line in lines)
        if not piece:
            yield rest.decode("utf-8", "replace")
            return
        rest = rest[-4096:]
