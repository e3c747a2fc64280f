"""One file to flash, from a firmware and a folder: the order of things, the same for every board."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import esp32, file_system, firmware, manifest, microbit, rp2040
from .bytecode import OLDEST, Compiler, Version, compile_files
from .errors import BadFirmware, UnfitFile
from .esp8266 import firmware as esp8266
from .esp_image import BOOTLOADER_OFFSETS, MIB, size_name, with_flash_size
from .file_system import FileSystem, Geometry
from .folder import FolderContent, read_folder
from .manifest import KnownFirmware
from .region import BLOCK, Region

FOLDER_LIMIT = 32 << 20  # more than any board's flash
DEFAULT_FLASH = 4 * MIB


@dataclass(frozen=True)
class Request:
    board: str
    firmware: Path
    folder: Path
    flash_size: int | None = None  # None: as the firmware's header says, else DEFAULT_FLASH
    region: Region | None = None  # None: where the firmware looks for its files
    compile: bool = True
    manifests: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Image:
    """What `build` made; `data` is the file to flash."""

    data: bytes
    chip: str
    suffix: str
    version: Version | None
    known: KnownFirmware | None
    proof: str
    files: Mapping[str, int]  # on the board: path → bytes
    left_out: tuple[str, ...]
    region: Region | None = None
    used_blocks: int = 0
    flash_size: int | None = None
    notes: tuple[str, ...] = field(default=())


def build(request: Request) -> Image:
    """Raises ImageError."""
    data = firmware.read(request.firmware)
    verdict = manifest.refuse_bad_copy(request.firmware, data, manifest.load(request.manifests))
    facts = firmware.identify(data)
    if facts.board != request.board:
        raise BadFirmware(
            f"this firmware is for {facts.chip}, not for {request.board}",
            f"Use `farkernel image {facts.board}`",
        )
    content = read_folder(request.folder, FOLDER_LIMIT)
    work = _Work(request, facts, data, content, verdict.firmware)
    return BUILDERS[request.board](work)


@dataclass
class _Work:
    request: Request
    facts: firmware.Facts
    data: bytes
    content: FolderContent
    known: KnownFirmware | None
    notes: list[str] = field(default_factory=list)

    def file_system(self, region: Region, geometry: Geometry | None = None) -> FileSystem:
        files = self.content.files
        if self.request.compile:
            if self.facts.version is not None and self.facts.version < OLDEST:
                self.notes.append("modules stay source: this MicroPython is older than 1.19")
            else:
                with Compiler(self.facts.version, self.facts.chip) as compiler:
                    files = compile_files(files, compiler)
        if not any(file.path == "main.py" for file in files):
            self.notes.append(
                "there is no main.py: the board will do nothing by itself but wait at its prompt"
            )
        self.content = FolderContent(files, self.content.folders, self.content.left_out)
        return file_system.make(files, self.content.folders, region.blocks, geometry)

    def image(
        self,
        data: bytes,
        suffix: str,
        region: Region | None = None,
        used: int = 0,
        flash_size: int | None = None,
    ) -> Image:
        return Image(
            data,
            self.facts.chip,
            suffix,
            self.facts.version,
            self.known,
            self.facts.proof,
            {file.path: len(file.data) for file in self.content.files},
            self.content.left_out,
            region,
            used,
            flash_size,
            tuple(self.notes),
        )


def _build_esp8266(work: _Work) -> Image:
    found = esp8266.parse(work.data)
    if work.request.flash_size is None and found.variant is esp8266.Variant.FLASH_1M:
        flash_size = MIB
    else:
        flash_size = work.request.flash_size or DEFAULT_FLASH
    region = work.request.region or found.region(flash_size)
    # The board takes the end of its files' place from the size in this header.
    data = with_flash_size(work.data[: found.size], "esp8266", flash_size)
    return _with_file_system(work, data, 0, region, flash_size)


def _build_esp32(work: _Work) -> Image:
    found = esp32.parse(work.data)
    flash_size = work.request.flash_size or found.bootloader.flash_size or DEFAULT_FLASH
    region = work.request.region or found.region(flash_size)
    data = work.data
    if found.fills_flash:
        # Its files end where the flash ends, so flashing must know for which flash that is: the header says it.
        begin = BOOTLOADER_OFFSETS.get(found.bootloader.chip, 0) - found.offset
        data = data[:begin] + with_flash_size(data[begin:], found.bootloader.chip, flash_size)
    return _with_file_system(work, data, found.offset, region, flash_size)


def _with_file_system(work: _Work, data: bytes, offset: int, region: Region, flash_size: int) -> Image:
    """An image of the flash from its first byte on."""
    image = b"\xff" * offset + data
    if region.start % BLOCK or region.size % BLOCK or region.blocks < 2:
        raise BadFirmware("a file system needs whole blocks of 4096 bytes, two at least", "Correct --region")
    if region.end > flash_size:
        raise BadFirmware(
            f"the files' place ends at {region.end} bytes, and the flash has {size_name(flash_size)}",
            "Correct --flash-size or --region",
        )
    if len(image.rstrip(b"\xff")) > region.start and not file_system.begins_at(image, region.start):
        raise BadFirmware(
            f"the firmware has {len(image)} bytes and would lie over the files, which begin at {region.start}",
            "Correct --region, or take a smaller firmware",
        )
    made = work.file_system(region)
    whole = image[: region.start].ljust(region.start, b"\xff") + made.data
    return work.image(whole, ".bin", region, made.used_blocks, flash_size)


def _build_rp2040(work: _Work) -> Image:
    found = rp2040.parse(work.data)
    region = work.request.region or found.region()
    # rp2's _boot.py mounts with progsize=256.
    made = work.file_system(region, Geometry(program_size=256))
    return work.image(found.with_file_system(region.start, made.data), ".uf2", region, made.used_blocks)


def _build_microbit(work: _Work) -> Image:
    if work.request.region or work.request.flash_size:
        raise UnfitFile(
            "--region", "a micro:bit has no place for files that could be chosen", "Leave the option out"
        )
    return work.image(microbit.embed(work.data, work.content.files), ".hex")


BUILDERS: Mapping[str, Callable[[_Work], Image]] = {
    "esp8266": _build_esp8266,
    "esp32": _build_esp32,
    "rp2040": _build_rp2040,
    "microbit": _build_microbit,
}
