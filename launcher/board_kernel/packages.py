"""Packages for boards, as mip has them, fetched here and put onto the board: it needs no network of its own.

https://docs.micropython.org/en/latest/reference/packages.html: ``package.json`` with urls, hashes and deps; an index
with ``package/MPY/NAME/VERSION.json`` and ``file/HA/HASH``.  Folders with packages on this machine come first.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ..errors import FarkernelError
from ..text import one_line
from . import board_source

INDEX = "https://micropython.org/pi/v2"
_DEADLINE = 15.0
_LARGEST = 4 << 20
_MOST_FILES = 500
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9._-]{1,50}", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{8,64}", re.ASCII)
_HOSTED = {
    "github": "https://raw.githubusercontent.com/{owner}/{repository}/{version}/{path}",
    "gitlab": "https://gitlab.com/{owner}/{repository}/-/raw/{version}/{path}",
}


class PackageError(FarkernelError):
    """A package that cannot be had, or makes no sense."""

    kind: ClassVar[str] = "package"

    def __init__(self, package: str, why: str, advice: str = "") -> None:
        super().__init__(f"the package {one_line(package)[:120]!r}: {why}", advice or _ADVICE)


_ADVICE = (
    "Without a network give a folder or a file: %mip install ./driver.py; folders in "
    "~/.local/share/farkernel/packages, and those of --from DIR, are found by their names"
)


@dataclass(frozen=True)
class Plan:
    """Files for the board: path below the target folder → content.  ``sources``: where they came from."""

    files: dict[str, bytes] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)


def package_folders(given: Iterable[str] = ()) -> list[Path]:
    """Where packages on this machine are looked for."""
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    configured = [each for each in os.environ.get("FARKERNEL_PACKAGES", "").split(os.pathsep) if each]
    return [
        Path(each).expanduser() for each in (*given, *configured, os.path.join(data, "farkernel", "packages"))
    ]


class Finder:
    """Collects a package and all that it depends on.  Blocking: use `plan` from coroutines."""

    def __init__(self, folders: Iterable[Path], index: str = INDEX, mpy: str = "py") -> None:
        self._folders = list(folders)
        self._index = index.rstrip("/")
        self._mpy = mpy
        self._plan = Plan()
        self._seen: set[str] = set()

    async def plan(self, package: str, version: str = "") -> Plan:
        """Everything to be put onto the board.  Raises `PackageError`."""
        await asyncio.to_thread(self._add, package, version)
        return self._plan

    def _add(self, package: str, version: str = "") -> None:
        name, at, wanted = package.partition("@") if "://" not in package else (package, "", "")
        version = wanted if at else version
        if f"{name}@{version}" in self._seen:
            return
        self._seen.add(f"{name}@{version}")
        path = Path(name).expanduser()
        if name.startswith(("http://", "https://", "github:", "gitlab:")):
            self._add_address(name, version)
        elif "/" in name or path.suffix in (".py", ".mpy", ".json") or path.is_dir():
            self._add_path(name, path)
        elif not _NAME.fullmatch(name):
            raise PackageError(name, "it has no usable name")
        else:
            self._add_name(name, version)

    # -- here

    def _add_path(self, name: str, path: Path) -> None:
        try:
            if path.is_dir() and (path / "package.json").is_file():
                path /= "package.json"
            if path.suffix == ".json":
                self._add_description(name, self._parse(name, path.read_bytes()), str(path.parent))
            elif path.is_dir():
                # A folder with an __init__.py is a package itself, another one holds modules.
                base = path.parent if (path / "__init__.py").is_file() else path
                for file in sorted(path.rglob("*")):
                    relative = file.relative_to(base)
                    if file.is_file() and not any(
                        part.startswith((".", "__pycache__")) for part in relative.parts
                    ):
                        self._put(name, relative.as_posix(), file.read_bytes())
            else:
                self._put(name, path.name, path.read_bytes())
        except OSError as error:
            raise PackageError(name, f"{error.strerror or error}") from None
        self._plan.sources.append(str(path))

    def _add_name(self, name: str, version: str) -> None:
        for folder in self._folders:
            for candidate in (folder / name, folder / f"{name}.py", folder / f"{name}.mpy"):
                if candidate.exists():
                    self._add_path(str(candidate), candidate)
                    return
        if name == board_source.NAME:
            self._put(name, f"{name}.py", board_source.module_text().encode())
            self._plan.sources.append("Farkernel itself")
            return
        version = version or "latest"
        if not _VERSION.fullmatch(version):
            raise PackageError(name, f"{version[:40]!r} is no version")
        url = f"{self._index}/package/{self._mpy}/{name}/{version}.json"
        self._add_description(name, self._parse(name, self._fetch(name, url)), self._index)
        self._plan.sources.append(url)

    # -- elsewhere

    def _add_address(self, address: str, version: str) -> None:
        if address.endswith((".py", ".mpy")):
            self._put(address, address.rpartition("/")[2], self._fetch(address, self._url(address, version)))
        else:
            description = address if address.endswith(".json") else f"{address.rstrip('/')}/package.json"
            content = self._parse(address, self._fetch(address, self._url(description, version)))
            self._add_description(address, content, description.rpartition("/")[0], version)
        self._plan.sources.append(address)

    def _url(self, address: str, version: str) -> str:
        scheme, _, rest = address.partition(":")
        if scheme not in _HOSTED:
            return address
        parts = rest.split("/", 2)
        if len(parts) < 3:
            raise PackageError(address, "write it as github:owner/repository/path")
        return _HOSTED[scheme].format(
            owner=parts[0], repository=parts[1], version=version or "HEAD", path=parts[2]
        )

    def _add_description(self, name: str, content: Mapping[str, Any], base: str, version: str = "") -> None:
        for path, source in _pairs(name, content.get("hashes")):
            checked_path(name, path)  # before anything is fetched for it
            if not _HASH.fullmatch(source):
                raise PackageError(name, f"{source[:40]!r} is no hash")
            data = self._fetch(name, f"{self._index}/file/{source[:2]}/{source}")
            if not hashlib.sha256(data).hexdigest().startswith(source):
                raise PackageError(name, f"{path} is not what the index says it is", "Try again later.")
            self._put(name, path, data)
        for path, source in _pairs(name, content.get("urls")):
            self._put(name, checked_path(name, path), self._read(name, source, base, version))
        for dependency, wanted in _pairs(name, content.get("deps")):
            self._add(dependency, "" if wanted in ("latest", "*") else wanted)

    def _read(self, name: str, source: str, base: str, version: str) -> bytes:
        if source.startswith(("http://", "https://", "github:", "gitlab:")):
            return self._fetch(name, self._url(source, version))
        if base.startswith(("http://", "https://", "github:", "gitlab:")):
            return self._fetch(name, self._url(f"{base}/{checked_path(name, source)}", version))
        return (Path(base) / checked_path(name, source)).read_bytes()

    def _fetch(self, name: str, url: str) -> bytes:
        if not url.startswith(("http://", "https://")):
            raise PackageError(name, f"{url[:100]!r} is not an address on the web")
        try:
            with urllib.request.urlopen(url, timeout=_DEADLINE) as answer:
                data: bytes = answer.read(_LARGEST + 1)
        except urllib.error.HTTPError as error:
            what = "there is no such package or version" if error.code == 404 else f"HTTP {error.code}"
            error.close()
            raise PackageError(name, f"{what} ({url})") from None
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", error)
            raise PackageError(name, f"{url} cannot be reached: {one_line(why)}") from None
        if len(data) > _LARGEST:
            raise PackageError(name, f"{url} is larger than any board", "Is it the right address?")
        return data

    def _parse(self, name: str, data: bytes) -> Mapping[str, Any]:
        try:
            content = json.loads(data)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise PackageError(name, "its package.json is not a JSON object")
        return content

    def _put(self, name: str, path: str, data: bytes) -> None:
        if len(self._plan.files) >= _MOST_FILES or len(data) > _LARGEST:
            raise PackageError(name, "it is larger than any board", "Give a folder with what is needed only.")
        self._plan.files[checked_path(name, path)] = data


def checked_path(name: str, path: str) -> str:
    """A path that stays below its folder (DESIGN §3.5)."""
    parts = path.split("/")
    if not path or not path.isprintable() or "\\" in path or any(part in ("", ".", "..") for part in parts):
        raise PackageError(name, f"it wants to write to {path[:100]!r}", "Do not install it.")
    return path


def _pairs(name: str, value: object) -> list[tuple[str, str]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(
        isinstance(each, list) and len(each) == 2 and all(isinstance(part, str) for part in each)
        for each in value
    ):
        raise PackageError(name, "its package.json is not well-formed")
    return [(first, second) for first, second in value]
