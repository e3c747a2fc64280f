"""CUDA toolkits and cuDNN, as they are installed."""

import glob
import os
import re
from typing import Any, Dict, Iterator, List, Optional

from .files import json_object, place, read

Found = Dict[str, Any]
_TOOLKITS = (
    "usr/local/cuda*",
    "opt/cuda*",
    "usr/lib/cuda",
    "usr/lib/nvidia-cuda-toolkit",
    "opt/nvidia/hpc_sdk/Linux_*/*/cuda/[0-9]*",
)
_HEADERS = (
    "usr/include",
    "usr/include/*-linux-gnu",
    "usr/local/include",
    "usr/local/cuda*/include",
    "opt/cuda*/include",
)
_LIBRARIES = ("usr/lib/*-linux-gnu", "usr/lib64", "usr/local/cuda*/lib64", "opt/cuda*/lib64")


def look(root: str, environment: Dict[str, str]) -> Iterator[Found]:
    named = [
        environment[name].lstrip("/")
        for name in ("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT")
        if environment.get(name)
    ]
    yield {"cuda": {"toolkits": toolkits(root, named), "cudnn": cudnns(root)}}


def toolkits(root: str, named: List[str]) -> List[Found]:
    found: Dict[str, Found] = {}
    paths = [place(root, name) for name in named]
    for pattern in _TOOLKITS:
        paths += sorted(glob.glob(place(root, pattern)), reverse=True)
    for path in paths:
        version = toolkit_version(path)
        if version is not None:
            found.setdefault(os.path.realpath(path), {"path": _seen(root, path), "version": version})
    return list(found.values())


def toolkit_version(path: str) -> Optional[str]:
    """version.json since 11.1, version.txt before, the header where a distribution packs neither."""
    entry = json_object(read(path, "version.json")).get("cuda")
    if isinstance(entry, dict) and isinstance(entry.get("version"), str):
        return str(entry["version"])
    match = re.match(r"CUDA Version (\d[\d.]*)", read(path, "version.txt"))
    if match is not None:
        return match.group(1)
    match = re.search(r"#define\s+CUDA_VERSION\s+(\d+)", read(path, "include/cuda.h"))
    if match is None:
        return None
    number = int(match.group(1))
    return "%d.%d" % (number // 1000, number % 1000 // 10)


def cudnns(root: str) -> List[Found]:
    """By its headers, and by the names of libraries where those are not installed."""
    found: Dict[str, Found] = {}
    for directory in _directories(root, _HEADERS):
        version = cudnn_version(read(directory, "cudnn_version.h") or read(directory, "cudnn.h"))
        if version is not None:
            found.setdefault(version, {"path": _seen(root, directory), "version": version})
    for directory in _directories(root, _LIBRARIES):
        for path in sorted(glob.glob(os.path.join(glob.escape(directory), "libcudnn.so.*"))):
            match = re.search(r"\.so\.(\d+\.\d+\.\d+)", path)
            if match is not None:
                found.setdefault(match.group(1), {"path": _seen(root, directory), "version": match.group(1)})
    return [found[version] for version in sorted(found)]


def cudnn_version(header: str) -> Optional[str]:
    parts = [
        re.search(r"#define\s+CUDNN_%s\s+(\d+)" % name, header) for name in ("MAJOR", "MINOR", "PATCHLEVEL")
    ]
    numbers = [part.group(1) for part in parts if part is not None]
    return ".".join(numbers) if len(numbers) == 3 else None


def _directories(root: str, patterns: Any) -> List[str]:
    return [path for pattern in patterns for path in sorted(glob.glob(place(root, pattern)))]


def _seen(root: str, path: str) -> str:
    """As it is called on the machine itself."""
    return "/" + os.path.relpath(path, root)
