"""Wheels of one file, and pip's own: environments are made without a network."""

from __future__ import annotations

import ensurepip
import zipfile
from pathlib import Path


def little_wheel(folder: Path, name: str, file: str, text: str, version: str = "1") -> Path:
    place = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(place, "w") as wheel:
        wheel.writestr(file, text)
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        names = (file, *(f"{about}/{each}" for each in ("METADATA", "WHEEL", "RECORD")))
        wheel.writestr(f"{about}/RECORD", "".join(f"{each},,\n" for each in names))
    return place


def pip_wheel() -> Path:
    (bundled,) = (Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl")
    return bundled
