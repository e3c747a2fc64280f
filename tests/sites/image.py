"""The file system of a container image, made of this machine's own files: a shell, Python, pyzmq, the fake kernel."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import zmq

FAKE_KERNEL = Path(__file__).parent.parent / "fakekernel.py"
_LEFT_OUT = shutil.ignore_patterns(
    "test",
    "tests",
    "__pycache__",
    "site-packages",
    "idlelib",
    "ensurepip",
    "config-*",
    "tkinter",
    "lib2to3",
    "*.a",
)


def make_rootfs(place: Path) -> Path:
    """Everything stands where it stands here, so that libraries are found."""
    for name in ("tmp", "proc", "sys", "dev", "etc", "bin", "usr/bin", "kernel"):
        (place / name).mkdir(parents=True)
    base = Path(sys.base_prefix)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = base / "lib" / version
    shutil.copytree(library, _inside(place, library), ignore=_LEFT_OUT, symlinks=True)
    site = _inside(place, library / "site-packages")
    for folder in (Path(zmq.__file__).parent, Path(zmq.__file__).parent.parent / "pyzmq.libs"):
        shutil.copytree(folder, site / folder.name, ignore=_LEFT_OUT)
    python = (base / "bin" / version).resolve()
    _with_libraries(
        place, [python, Path("/bin/sh").resolve(), *site.rglob("*.so*"), *library.glob("lib-dynload/*.so")]
    )
    (place / "usr/bin/python3").symlink_to(python)
    (place / "bin/sh").symlink_to(Path("/bin/sh").resolve())
    shutil.copy(FAKE_KERNEL, place / "kernel")
    spec = {"argv": ["python", "/kernel/fakekernel.py", "{connection_file}"], "env": {"FROM_SPEC": "yes"}}
    (place / "usr/share/jupyter/kernels/fake").mkdir(parents=True)
    (place / "usr/share/jupyter/kernels/fake/kernel.json").write_text(json.dumps(spec))
    return place


def _inside(place: Path, path: Path) -> Path:
    target = place / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _with_libraries(place: Path, files: list[Path]) -> None:
    done = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False)
    found = {Path(path) for path in re.findall(r"(/\S+) \(0x", done.stdout)}
    for path in sorted(found | {path for path in files if not path.is_relative_to(place)}):
        if not path.is_relative_to(place) and not _inside(place, path).exists():
            shutil.copy(path, _inside(place, path))
