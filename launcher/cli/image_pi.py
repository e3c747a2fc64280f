"""`farkernel image raspberrypi`: cards for all hosts of a roster."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...device_images.raspberrypi import wheels as wheels_module
from ...device_images.raspberrypi.boot import Boot, MountedBoot
from ...device_images.raspberrypi.card import Card, Release
from ...device_images.raspberrypi.errors import NotAnImage
from ...device_images.raspberrypi.furnishing import Furnished, furnish, release_of
from ...device_images.raspberrypi.image_file import copy_image, fresh_file, open_boot
from ...device_images.raspberrypi.partitions import packing
from .. import configuration
from ..errors import FarkernelError
from ..fleet.cards import cards, known_hosts
from ..fleet.roster import Host, Roster
from ..fleet.roster_file import read_roster
from ..targets_file import write_file
from . import table
from .arguments import add_json
from .output import complain, emit, say, terminal_columns

_SHOW_EVERY = 0.2


class Unclear(FarkernelError):
    kind = "usage"


def configure_raspberrypi(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Cards for Raspberry Pis: name, user, Wi-Fi and kernels of each host of a roster, on a copy of your own "
        "Raspberry Pi OS image, or on a card that is written and mounted already. No root is needed."
    )
    parser.add_argument("--roster", metavar="ROSTER", type=Path, required=True, help="a CSV or TOML file")
    parser.add_argument(
        "--image", metavar="FILE", type=Path, help="Raspberry Pi OS: .img, .img.xz, .img.gz or .zip"
    )
    parser.add_argument("--out", metavar="DIRECTORY", type=Path, help="where HOST.img is made for each host")
    parser.add_argument(
        "--onto", metavar="DIRECTORY", type=Path, help="a mounted boot partition; with one --host"
    )
    parser.add_argument(
        "--host", metavar="HOST", action="append", default=[], help="only this one (may be repeated)"
    )
    parser.add_argument(
        "--release",
        choices=[each.value for each in Release],
        help="how the image takes orders, if it cannot be seen from it",
    )
    add_json(parser)


def run_raspberrypi(arguments: argparse.Namespace) -> int:
    _check(arguments)
    roster = read_roster(arguments.roster)
    keys = configuration.directories()[-1] / "fleets" / f"{roster.name}-host-keys"
    chosen = cards(roster, [name.lower() for name in arguments.host], keys)
    _warn(roster, arguments)
    rows = list(_onto(arguments, roster, chosen) if arguments.onto else _into(arguments, roster, chosen))
    everybody = cards(roster, [], keys) if arguments.host else chosen
    place = keys.parent / f"{roster.name}.known_hosts"
    write_file(place, known_hosts(everybody).encode())
    if arguments.json:
        emit({"fleet": roster.name, "known_hosts": str(place), "cards": rows})
    else:
        say(f"Next: write {'them' if len(rows) > 1 else 'it'} to cards with Raspberry Pi Imager or dd."
            if arguments.image else "Next: unmount the card, and start the Pi with it.")  # fmt: skip
        say(f"So that SSH knows these Pis: cat {place} >> ~/.ssh/known_hosts")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if bool(arguments.image) == bool(arguments.onto):
        raise Unclear(
            "neither or both of --image and --onto are given", "Take --image FILE --out DIRECTORY, or --onto"
        )
    if arguments.image and not arguments.out:
        raise Unclear("--image is given, and no --out", "Say where the images shall be made: --out DIRECTORY")
    if arguments.onto and len(arguments.host) != 1:
        raise Unclear("a mounted card is for one host", "Say which: --host HOST")


def _warn(roster: Roster, arguments: argparse.Namespace) -> None:
    secret = roster.card.password or roster.card.wifi_password or any(host.password for host in roster.hosts)
    if secret and arguments.roster.stat().st_mode & 0o077:
        complain(f"Others can read {roster.file}, and it holds passwords: chmod 600 {roster.file}")
    if arguments.json:
        return
    for note in roster.notes:
        say(note)
    if roster.environment is None:
        say("Note: the roster has no [environment], so these cards bring no kernel of their own.")
    elif roster.environment.wheels is None:
        say(
            "Note: [environment] names no wheels; at their first start the Pis fetch packages from the network."
        )


# -- making ------------------------------------------------------------------------------------------------


def _into(
    arguments: argparse.Namespace, roster: Roster, chosen: Sequence[tuple[Host, Card]]
) -> Iterator[dict[str, Any]]:
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    with _raw(arguments.image, out, len(chosen)) as source:
        for number, (host, card) in enumerate(chosen, 1):
            place = out / f"{host.name}.img"
            shower = Shower(f"{host.name} ({number} of {len(chosen)})")
            with fresh_file(place) as fresh:
                copy_image(source, fresh, shower.bytes)
                boot = open_boot(fresh, str(arguments.image))
                done = _furnish(boot, card, roster, arguments.release, shower)
            shower.close()
            yield _row(arguments, host, str(place), done)


@contextmanager
def _raw(image: Path, out: Path, count: int) -> Iterator[Path]:
    """The image itself, or what it unpacks to: once for all cards."""
    try:
        with open(image, "rb") as file:
            packed = packing(file.read(8))
    except OSError as error:
        raise NotAnImage(str(image), error.strerror or str(error)) from None
    if not packed or count == 1:
        yield image
        return
    base = out / ".farkernel-base.img"
    try:
        base.touch(0o600)
        shower = Shower(f"unpacking {image.name}")
        copy_image(image, base, shower.bytes)
        shower.close()
        yield base
    finally:
        base.unlink(missing_ok=True)


def _onto(
    arguments: argparse.Namespace, roster: Roster, chosen: Sequence[tuple[Host, Card]]
) -> Iterator[dict[str, Any]]:
    boot = MountedBoot(arguments.onto)
    for host, card in chosen:
        shower = Shower(host.name)
        done = _furnish(boot, card, roster, arguments.release, shower)
        shower.close()
        yield _row(arguments, host, str(arguments.onto), done)


def _furnish(boot: Boot, card: Card, roster: Roster, wanted: str | None, shower: Shower) -> Furnished:
    release = Release(wanted) if wanted else release_of(boot)
    wheels: list[Path] = []
    if roster.environment is not None and roster.environment.wheels is not None:
        folder = roster.environment.wheels
        wheels = wheels_module.find_wheels(folder)
        wheels_module.check_wheels(folder, wheels, roster.environment.packages, release)
    return furnish(boot, card, wheels, release, shower.file)


def _row(arguments: argparse.Namespace, host: Host, place: str, done: Furnished) -> dict[str, Any]:
    if not arguments.json:
        student = f" for {host.student}" if host.student else ""
        say(
            f"{place}: {host.name}{student}, {len(done.files)} files, {table.size(done.bytes)} ({done.release.value})."
        )
    return {
        "host": host.name,
        "student": host.student,
        "card": place,
        "release": done.release.value,
        "files": list(done.files),
        "bytes": done.bytes,
    }


class Shower:
    """Progress on a terminal's stderr: one line that changes in place."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._wanted = sys.stderr.isatty()
        self._shown = 0.0

    def bytes(self, done: int, total: int | None) -> None:
        share = f"{100 * done // total:3d} %  " if total else ""
        self._show(f"{share}{table.size(done)}")

    def file(self, path: str) -> None:
        self._show(path)

    def close(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _show(self, text: str) -> None:
        now = time.monotonic()
        if not self._wanted or now - self._shown < _SHOW_EVERY:
            return
        self._shown = now
        line = table.cut(f"{self._what}  {text}", (terminal_columns(sys.stderr) or 80) - 1)
        sys.stderr.write(f"\r{line}\x1b[K")
        sys.stderr.flush()
