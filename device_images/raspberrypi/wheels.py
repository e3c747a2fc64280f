"""The wheels that go onto cards: are they all there, and for this kind of machine?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import ImageError
from .card import Release

PYTHON = {Release.CLOUD_INIT: "3.13", Release.FIRST_RUN: "3.11"}  # Debian's
_ARM = ("aarch64", "armv7l", "armv6l")


class WheelsMissing(ImageError):
    kind = "wheels"

    def __init__(
        self, folder: Path, problems: Sequence[str], packages: Sequence[str], release: Release
    ) -> None:
        shown = "; ".join(problems[:10])
        super().__init__(
            f"{folder} cannot make the environment: {shown}",
            "Fetch them: pip download --only-binary=:all: --platform manylinux_2_28_aarch64 --platform "
            f"manylinux2014_aarch64 --python-version {PYTHON[release]} --dest {folder} pip {' '.join(packages)}",
        )


def find_wheels(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.whl") if path.is_file())


def check_wheels(folder: Path, wheels: Sequence[Path], packages: Sequence[str], release: Release) -> None:
    """Raises WheelsMissing."""
    problems = list(_problems(wheels, packages, PYTHON[release]))
    if problems:
        raise WheelsMissing(folder, problems, packages, release)


def _problems(wheels: Sequence[Path], packages: Sequence[str], python: str) -> Iterator[str]:
    names = {_plain(wheel.name.split("-")[0]) for wheel in wheels}
    for package in packages:
        name = _plain(re.split(r"[\[=<>~!]", package)[0])
        if name not in names:
            yield f"there is no wheel of {name}"
    for wheel in wheels:
        parts = wheel.name.removesuffix(".whl").split("-")
        if len(parts) < 5:
            yield f"{wheel.name} is not named as a wheel"
            continue
        interpreter, abi, platform = parts[-3:]
        if platform != "any" and not any(word in platform for word in _ARM):
            yield f"{wheel.name} is for another kind of machine"
        elif (
            interpreter.startswith("cp")
            and abi.startswith("cp")
            and interpreter != f"cp{python.replace('.', '')}"
        ):
            yield f"{wheel.name} is for another Python, and the card has {python}"


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
