"""Python environments as people make them, with a kernel in each that costs nothing: the one that the tests run with."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


def files_of(package: str) -> dict[str, Path]:
    """What a package and all that it needs have in site-packages: names of files and folders there, and where they are."""
    found: dict[str, Path] = {}
    seen: set[str] = set()
    wanted = [package]
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            dist = distribution(name)
        except PackageNotFoundError:
            continue  # for another Python or system
        wanted += [re.split(r"[^\w.-]", each)[0] for each in dist.requires or () if "extra ==" not in each]
        for path in dist.files or ():
            if path.parts[0] not in ("..", "__pycache__"):
                found[path.parts[0]] = Path(str(dist.locate_file(path.parts[0])))
    return found


def give_kernel(prefix: Path) -> Path:
    """That environment has ipykernel from now on."""
    (library,) = prefix.glob("lib/python3.*/site-packages")
    for name, path in files_of("ipykernel").items():
        if not (library / name).exists():
            (library / name).symlink_to(path)
    return prefix


def venv(prefix: Path) -> Path:
    _run(sys.executable, "-m", "venv", "--without-pip", str(prefix))
    return give_kernel(prefix)


def virtualenv(prefix: Path) -> Path:
    _run(sys.executable, "-m", "virtualenv", "--quiet", "--no-pip", "--no-periodic-update", str(prefix))
    return give_kernel(prefix)


def uv(prefix: Path) -> Path:
    _run("uv", "venv", "--quiet", "--offline", "--python", sys.executable, str(prefix))
    return give_kernel(prefix)


def conda(prefix: Path, version: str = "{}.{}.{}".format(*sys.version_info)) -> Path:
    """As conda, mamba and pixi leave it on the disk.

    None of them can be had from a package index that these tests may use.  So its Python is ours.
    """
    (prefix / "conda-meta").mkdir(parents=True)
    (prefix / "conda-meta/history").touch()
    (prefix / f"conda-meta/python-{version}-h1_0_cpython.json").write_text("{}")
    (prefix / "bin").mkdir()
    (prefix / "bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (prefix / "bin/python").chmod(0o755)
    (prefix / "lib/python{}.{}/site-packages".format(*sys.version_info)).mkdir(parents=True)
    (prefix / "etc/conda/activate.d").mkdir(parents=True)
    (prefix / "etc/conda/activate.d/test.sh").write_text('export ACTIVATED="$CONDA_PREFIX"\n')
    return give_kernel(prefix)


def julia(home: Path) -> Path:
    """A program where juliaup has Julia, and IJulia where Pkg has it; it runs a Python kernel."""
    program = home / ".juliaup/bin/julia"
    program.parent.mkdir(parents=True)
    program.write_text(
        "#!/bin/sh\n"
        'export STANDS_FOR="julia $*"\n'
        'for file in "$@"; do :; done\n'
        f'exec {sys.executable} -m ipykernel_launcher -f "$file"\n'
    )
    program.chmod(0o755)
    kernel = home / ".julia/packages/IJulia/abcde/src/kernel.jl"
    kernel.parent.mkdir(parents=True)
    kernel.touch()
    return program


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
