"""`farkernel image BOARD FOLDER …`: one file to flash; `farkernel image check FILE`: what a firmware file is."""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ...device_images import build, firmware, manifest
from ...device_images.build import Image, Request
from ...device_images.errors import ImageError
from ...device_images.manifest import KnownFirmware
from ...device_images.region import Region
from ..errors import FarkernelError
from ..text import clean
from . import table
from .arguments import ActionParser, add_json
from .image_pi import configure_raspberrypi, run_raspberrypi
from .output import emit, say

DEBIAN_MICROBIT = Path("/usr/share/firmware-microbit-micropython/firmware.hex")


class Kind(NamedTuple):
    """What can be made or done: a word after `farkernel image`."""

    name: str
    summary: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


class BadNumber(FarkernelError):
    kind = "usage"

    def __init__(self, option: str, text: str, example: str) -> None:
        super().__init__(f"{text!r} cannot be understood after {option}", f"Write it like {example}")


class NotWritten(ImageError):
    kind = "file"

    def __init__(self, path: Path, reason: str, advice: str) -> None:
        super().__init__(f"{str(path)!r} was not written: {reason}", advice)


def configure_image(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(
        dest="board", metavar="BOARD", title="boards", required=True, parser_class=ActionParser
    )
    for kind in KINDS:
        added = kinds.add_parser(
            kind.name, help=kind.summary, description=f"{kind.summary[0].upper()}{kind.summary[1:]}."
        )
        kind.configure(added)
        added.set_defaults(run=kind.run)


def run_image(arguments: argparse.Namespace) -> int:
    return int(arguments.run(arguments))


# -- making ------------------------------------------------------------------------------------------------


def _configure_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="what the board shall have as its files")
    parser.add_argument(
        "--firmware", metavar="FILE", type=Path, required=True, help="MicroPython for this board"
    )
    _add_output(parser)
    parser.add_argument(
        "--flash-size", metavar="SIZE", help="of the board: 1M, 2M, 4M …; 4M unless it is known"
    )
    parser.add_argument(
        "--region",
        metavar="START:SIZE",
        help="where the files lie, in bytes (0x… or with K, M), if it is not known",
    )
    _add_compile(parser)
    _add_common(parser)


def _configure_rp2040(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="what the board shall have as its files")
    parser.add_argument(
        "--firmware", metavar="FILE", type=Path, required=True, help="MicroPython's .uf2 file"
    )
    _add_output(parser)
    parser.add_argument(
        "--region",
        metavar="START:SIZE",
        help="where the files lie, in bytes (0x… or with K, M), if it is not known",
    )
    _add_compile(parser)
    _add_common(parser)


def _configure_microbit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="has main.py in it, and nothing else")
    parser.add_argument(
        "--firmware",
        metavar="FILE",
        type=Path,
        default=DEBIAN_MICROBIT,
        help=f"MicroPython's .hex file; {DEBIAN_MICROBIT} unless given",
    )
    _add_output(parser)
    _add_common(parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="the file to make")


def _add_compile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-compile", action="store_true", help="leave modules as .py; they become .mpy otherwise"
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--manifest",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="more known firmwares (TOML)",
    )
    add_json(parser)


def run_build(arguments: argparse.Namespace) -> int:
    output: Path = arguments.output
    _check_output(output, arguments.folder, arguments.firmware)
    image = build.build(
        Request(
            board=arguments.board,
            firmware=arguments.firmware,
            folder=arguments.folder,
            flash_size=_size("--flash-size", getattr(arguments, "flash_size", None)),
            region=_region(getattr(arguments, "region", None)),
            compile=not getattr(arguments, "no_compile", True),
            manifests=tuple(arguments.manifest),
        )
    )
    _write(output, image.data)
    if arguments.json:
        emit(_as_json(output, image))
    else:
        for line in _report(output, image):
            say(line)
    return 0


def _check_output(output: Path, folder: Path, source: Path) -> None:
    place = output.resolve()
    if place.is_relative_to(folder.resolve()):
        raise NotWritten(
            output, "it would lie in the folder that it is made from", "Name a place outside of it"
        )
    if place == source.resolve():
        raise NotWritten(output, "it is the firmware itself", "Give the image another name")


def _write(path: Path, data: bytes) -> None:
    """All of it or nothing."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                os.fchmod(descriptor, 0o666 & ~_umask())
            os.replace(name, path)
        except OSError:
            os.unlink(name)
            raise
    except OSError as error:
        raise NotWritten(path, error.strerror or str(error), "Name another place with -o") from error


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _report(output: Path, image: Image) -> list[str]:
    version = _version(image.version, image.known)
    proof = (
        f"known: {image.known.name}"
        if image.known
        else f"not in the list of known firmwares; whole by {image.proof}"
    )
    lines = [f"MicroPython {version or 'of an unknown version'} for {image.chip} ({proof})."]
    lines += [f"Note: {note}." for note in image.notes]
    if image.left_out:
        lines.append(f"Left out: {', '.join(image.left_out[:5])}{' …' if len(image.left_out) > 5 else ''}.")
    count = f"{len(image.files)} files" if len(image.files) != 1 else "1 file"
    if image.region is None:
        lines.append(f"{count} of {table.size(sum(image.files.values()))}.")
    else:
        lines.append(
            f"{count} in {table.size(image.used_blocks * 4096)} of {table.size(image.region.size)} "
            f"from {image.region.start:#x} on."
        )
    how = (
        f"farkernel board flash DEVICE {output}"
        if image.suffix == ".bin"
        else f"copy {output} to the board's drive"
    )
    lines.append(f"Made {output} ({table.size(len(image.data))}). Next: {how}")
    return lines


def _version(found: tuple[int, int, int] | None, known: KnownFirmware | None) -> str:
    """As the firmware says it, or the list of those that are known; empty: unknown."""
    if found is not None:
        return ".".join(map(str, found))
    return known.version if known else ""


def _as_json(output: Path, image: Image) -> dict[str, object]:
    return {
        "output": str(output),
        "bytes": len(image.data),
        "chip": image.chip,
        "version": _version(image.version, image.known) or None,
        "known": image.known.name if image.known else None,
        "files": dict(image.files),
        "left_out": list(image.left_out),
        "region": [image.region.start, image.region.size] if image.region else None,
        "used": image.used_blocks * 4096 if image.region else None,
        "flash_size": image.flash_size,
        "notes": list(image.notes),
    }


def _size(option: str, text: str | None) -> int | None:
    """`4M`, `512K`, `4MB`, `0x90000`, `1024`."""
    if text is None:
        return None
    found = re.fullmatch(r"(?i:(0x[0-9a-f]{1,8})|([0-9]{1,9})([KM]?)(?:i?B)?)", text, re.ASCII)
    if found is None:
        raise BadNumber(option, text, "4M, 512K or 0x100000")
    if found[1]:
        return int(found[1], 16)
    return int(found[2]) << {"": 0, "k": 10, "m": 20}[found[3].lower()]


def _region(text: str | None) -> Region | None:
    if text is None:
        return None
    start, colon, size = text.partition(":")
    if not colon:
        raise BadNumber("--region", text, "0x100000:1M")
    return Region(_size("--region", start) or 0, _size("--region", size) or 0)


# -- checking ----------------------------------------------------------------------------------------------


def _configure_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="a firmware, for any board")
    parser.add_argument(
        "--entry", action="store_true", help="print what a list of known firmwares would say of it"
    )
    _add_common(parser)


def run_check(arguments: argparse.Namespace) -> int:
    data = firmware.read(arguments.file)
    verdict = manifest.refuse_bad_copy(arguments.file, data, manifest.load(arguments.manifest))
    facts = firmware.identify(data)
    version = _version(facts.version, verdict.firmware)
    if arguments.entry:
        name = f"MicroPython for {facts.chip}"
        print(
            manifest.entry(
                verdict.firmware
                or KnownFirmware(
                    name,
                    facts.board,
                    version,
                    clean(arguments.file.name),
                    verdict.size,
                    verdict.sha256,
                    "measured here",
                )
            )
        )
    elif arguments.json:
        emit(
            {
                "file": str(arguments.file),
                "standing": verdict.standing.value,
                "name": verdict.firmware.name if verdict.firmware else None,
                "board": facts.board,
                "chip": facts.chip,
                "version": version or None,
                "proof": facts.proof,
                "bytes": verdict.size,
                "sha256": verdict.sha256,
            }
        )
    else:
        say(
            f"MicroPython {version or 'of an unknown version'} for {facts.chip} (farkernel image {facts.board})."
        )
        if verdict.firmware is not None:
            say(f"Known: {verdict.firmware.name} ({verdict.firmware.source}).")
        else:
            say(f"Not in the list of known firmwares. It is whole by {facts.proof}.")
        print(f"{verdict.size} bytes, SHA-256 {verdict.sha256}")
    return 0


KINDS = (
    Kind("esp8266", "MicroPython and a folder in one file for an ESP8266", _configure_build, run_build),
    Kind("esp32", "MicroPython and a folder in one file for an ESP32", _configure_build, run_build),
    Kind(
        "rp2040",
        "MicroPython and a folder in one file for a Pico or other RP2040",
        _configure_rp2040,
        run_build,
    ),
    Kind("microbit", "MicroPython and a main.py in one file for a micro:bit", _configure_microbit, run_build),
    Kind(
        "raspberrypi",
        "cards for Raspberry Pis, from a roster and your Raspberry Pi OS image",
        configure_raspberrypi,
        run_raspberrypi,
    ),
    Kind("check", "what a firmware file is, and whether it is whole", _configure_check, run_check),
)
