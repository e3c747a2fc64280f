"""Flashing with the real esptool, where the board is plugged in.

`flash(job, progress)` needs a port, a file's content, somebody to tell.  esptool runs as a program of its own: it may
hang, end itself, and is under another licence than we are.  `here` runs it on this machine; for another one, somebody
who can reach it brings a `Tool` (`launcher.cli.flash_far`).
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from ..launcher.agent.holds import Held, Hold, group_of, holder_of, user_name
from ..launcher.board.errors import BoardBusy
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
    port: str  # a device, rfc2217://HOST:PORT, or what else the tool knows
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


@dataclass(frozen=True)
class Ended:
    """How a run of esptool ended; ``group`` and ``holder`` of the device, where it failed."""

    status: int
    group: str = ""
    holder: str = ""


class Tool(Protocol):
    """esptool beside a board."""

    @property
    def port(self) -> str:
        """The device, as people are told."""

    @property
    def image(self) -> str:
        """The name of the file to write, for its arguments."""

    def run(self, arguments: Sequence[str]) -> Generator[str, None, Ended]:
        """Its lines as they come.  Raises TimeoutError when nothing comes for `SILENCE`."""


OpenTool = Callable[[FlashJob], AbstractContextManager[Tool]]


def flash(job: FlashJob, progress: Progress, open_tool: OpenTool | None = None) -> Flashed:
    """Write, compare what was written, start the board.  Raises FlashError, BoardError, ImageError.

    Nothing is written before it is known that the chip and the size of its flash are right.
    """
    plan = _plan(job.data)
    began = time.monotonic()
    with (open_tool or here)(job) as tool:
        progress(Step("looking for the board"))
        found = EsptoolOutput(tool.port)
        try:
            _run(tool, ["--after", "no-reset", "flash-id"], found, job, progress)
        except FlashError as error:
            # Whatever goes wrong with a board of another kind, that it is one is what there is to say.
            if found.chip in (None, plan.chip):
                raise
            raise WrongChip(tool.port, str(found.chip), plan.chip) from error
        _refuse_another_board(plan, found, len(job.data))
        progress(Step(f"writing to {found.chip}, {found.mac}", 0))
        written = EsptoolOutput(tool.port)
        arguments = ["--chip", plan.chip, "--baud", str(job.baud)]
        arguments += ["write-flash", "--flash-size", plan.size_option, hex(plan.offset), tool.image]
        _run(tool, arguments, written, job, progress)
        if not written.verified:
            raise written.failure(0)
    return Flashed(plan.chip, found.mac or "", found.flash_size, len(job.data), time.monotonic() - began)


def _refuse_another_board(plan: _Plan, found: EsptoolOutput, size: int) -> None:
    if found.chip != plan.chip:
        raise WrongChip(found.port, found.chip or "of an unknown kind", plan.chip)
    needed = max(plan.flash_size or 0, plan.offset + size)
    if found.flash_size is not None and found.flash_size < needed:
        raise WrongFlashSize(found.port, found.flash_size, needed)
    if found.flash_size is not None and plan.exactly and found.flash_size != plan.flash_size:
        raise WrongFlashSize(found.port, found.flash_size, needed)


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
    tool: Tool, arguments: Sequence[str], output: EsptoolOutput, job: FlashJob, progress: Progress
) -> None:
    """One run of esptool; raises what its output says."""
    run = tool.run(["--connect-attempts", str(job.connect_attempts), *arguments])
    try:
        while True:
            line = next(run)
            percent = output.feed(line)
            if percent is not None:
                progress(Step("writing", percent))
            elif line.startswith("Verifying"):
                progress(Step("comparing what was written"))
    except StopIteration as stop:
        ended: Ended = stop.value
        if ended.status:
            raise output.failure(ended.status, ended.group, ended.holder) from None
    except TimeoutError:
        raise BoardVanished(tool.port, output.percent) from None
    finally:
        run.close()


@contextmanager
def here(job: FlashJob) -> Iterator[Tool]:
    """On this machine; raises `BadPort`, `BoardGone`, `BoardBusy`, `ToolMissing`."""
    port = checked(job.port)
    if find_spec("esptool") is None:
        raise ToolMissing("esptool", "flash boards")
    with tempfile.TemporaryDirectory(prefix="farkernel-") as place, _held(port):
        file = Path(place, "image.bin")
        file.write_bytes(job.data)
        yield _Here(job.port, str(file), port, place)


@contextmanager
def _held(port: str) -> Iterator[None]:
    """As everybody knows it who looks at lock files."""
    if port.startswith("rfc2217:"):
        yield
        return
    try:
        hold = Hold.take(port, f"farkernel board flash of {user_name(os.getuid())}")
    except Held as error:
        raise BoardBusy(port, error.holder) from None
    try:
        yield
    finally:
        hold.release()


@dataclass(frozen=True)
class _Here:
    port: str
    image: str
    device: str
    place: str  # a directory with nothing else in it

    def run(self, arguments: Sequence[str]) -> Generator[str, None, Ended]:
        # -P: what lies about in the directory is not imported.  There esptool finds no esptool.cfg either.
        command = [sys.executable, "-P", "-m", "esptool", "--port", self.device, *arguments]
        with _started(command, self.place) as process:
            yield from _lines(process)
            try:
                status = process.wait(SILENCE)
            except subprocess.TimeoutExpired:
                raise TimeoutError from None
        failed = status and not self.device.startswith("rfc2217:")
        return Ended(status, group_of(self.device), holder_of(self.device)) if failed else Ended(status)


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


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """Whatever ends a line, also a carriage return; raises TimeoutError when nothing comes for too long."""
    assert process.stdout is not None
    rest = b""
    while True:
        readable, _, _ = select.select([process.stdout], [], [], SILENCE)
        if not readable:
            raise TimeoutError
        piece = os.read(process.stdout.fileno(), 65536)
        *lines, rest = (rest + piece).replace(b"\r", b"\n").split(b"\n")
        yield from (line.decode("utf-8", "replace") for line in lines)
        if not piece:
            yield rest.decode("utf-8", "replace")
            return
        rest = rest[-4096:]
