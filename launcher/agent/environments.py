"""What kernels could be had on this machine: kernelspecs, and environments with or without a kernel in them.

Run as a program of its own (`scans.py`), because a dead network file system would hold up whoever looks; so
it imports nothing of ours.  It starts no interpreter either: everything is read from files.  One JSON object
a line, as they are found, so that what was found before a hang is not lost; the last line says `done`.
"""

import glob
import json
import os
import re
import shutil
import sys
from typing import Any, Dict, Iterator, List, Optional, Tuple

MOST = 2000
_LARGEST = 1 << 20
_CONDA_ROOTS = (
    "miniconda3",
    "anaconda3",
    "miniforge3",
    "mambaforge",
    "micromamba",
    ".local/share/mamba",
    ".conda",
)
_SYSTEM_CONDA = ("/opt/conda", "/opt/miniconda3", "/opt/anaconda3", "/opt/miniforge3", "/opt/mambaforge")
#: Directories (below the home) whose every entry may be an environment, and who makes them.
_COLLECTIONS = (
    (".virtualenvs", "venv"),
    (".venvs", "venv"),
    ("venvs", "venv"),
    ("virtualenvs", "venv"),
    ("envs", "venv"),
    (".local/share/virtualenvs", "pipenv"),
    (".cache/pypoetry/virtualenvs", "poetry"),
    (".pixi/envs", "pixi"),
    (".local/share/uv/python", "uv"),
    (".local/share/uv/tools", "uv"),
    (".local/pipx/venvs", "pipx"),
)
_R_LIBRARIES = (
    "/usr/local/lib/R/site-library",
    "/usr/lib/R/site-library",
    "/usr/lib/R/library",
    "/usr/lib64/R/library",
)

Found = Dict[str, Any]


def main() -> None:
    request = json.loads(sys.argv[1])
    count = 0
    for found in everything(request["kernelspecs"]):
        say(found)
        count += 1
        if count == MOST:
            break
    say({"done": count < MOST})


def say(found: Found) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def everything(directories: List[str]) -> Iterator[Found]:
    for found in kernelspecs(directories):
        yield found
    for found in pythons(os.path.expanduser("~")):
        yield found
    for found in other_languages():
        yield found


# -- kernelspecs ------------------------------------------------------------------------------------------------


def kernelspecs(directories: List[str]) -> Iterator[Found]:
    """As Jupyter finds them: of two with the same name the first counts."""
    seen = set()
    for directory in directories:
        for name in listed(directory):
            path = os.path.join(directory, name)
            content = read_json(os.path.join(path, "kernel.json"))
            if content is None or name.lower() in seen:
                continue
            seen.add(name.lower())
            if is_menu_entry(content):
                continue  # one of our own, whose kernel is somewhere else
            yield {
                "what": "kernelspec",
                "name": name.lower(),
                "display_name": str(content.get("display_name", name)),
                "language": str(content.get("language", "")),
                "path": path,
            }


def is_menu_entry(content: Found) -> bool:
    metadata = content.get("metadata")
    stanza = metadata.get("kernel_provisioner") if isinstance(metadata, dict) else None
    return isinstance(stanza, dict) and stanza.get("provisioner_name") == "farkernel"


# -- Python -----------------------------------------------------------------------------------------------------


def pythons(home: str) -> Iterator[Found]:
    seen = set()
    for prefix, kind in prefixes(home):
        try:
            real = os.path.realpath(prefix)
        except OSError:
            continue
        if real in seen:
            continue
        seen.add(real)
        found = python_environment(prefix, kind)
        if found is not None:
            yield found


def prefixes(home: str) -> Iterator[Tuple[str, str]]:
    """(prefix, who made it); many of them are none."""
    for program in ("python3", "python"):
        path = shutil.which(program)
        if path is not None:
            yield os.path.dirname(os.path.dirname(path)), "system"
    yield "/usr", "system"
    yield "/usr/local", "system"
    for pair in conda_prefixes(home):
        yield pair
    for root in (os.environ.get("PYENV_ROOT"), os.path.join(home, ".pyenv")):
        for version in below(os.path.join(root, "versions")) if root else []:
            yield version, "pyenv"
            for one in below(os.path.join(version, "envs")):
                yield one, "pyenv"
    for collection, kind in _COLLECTIONS:
        for one in below(os.path.join(home, collection)):
            yield one, kind
    for one in below(os.environ.get("WORKON_HOME") or os.path.join(home, ".virtualenvs")):
        yield one, "venv"
    for directory in [home] + below(home):
        # A project's own: PROJECT/.venv (venv, uv, poetry), PROJECT/venv, PROJECT/.pixi/envs/NAME.
        yield directory, "venv"
        yield os.path.join(directory, ".venv"), "venv"
        yield os.path.join(directory, "venv"), "venv"
        for one in below(os.path.join(directory, ".pixi", "envs")):
            yield one, "pixi"


def conda_prefixes(home: str) -> Iterator[Tuple[str, str]]:
    for line in read(os.path.join(home, ".conda", "environments.txt")).splitlines():
        if line.startswith("/"):
            yield line.strip(), "conda"
    roots = [os.path.join(home, root) for root in _CONDA_ROOTS] + list(_SYSTEM_CONDA)
    roots += [os.environ[name] for name in ("MAMBA_ROOT_PREFIX", "CONDA_PREFIX") if os.environ.get(name)]
    conda = os.environ.get("CONDA_EXE")
    if conda:
        roots.append(os.path.dirname(os.path.dirname(conda)))
    for root in roots:
        yield root, "conda"
        for one in below(os.path.join(root, "envs")):
            yield one, "conda"


def python_environment(prefix: str, kind: str) -> Optional[Found]:
    """None: there is no Python 3 in it, or it is no environment at all."""
    python = next((path for path in programs(prefix) if os.access(path, os.X_OK)), None)
    if python is None:
        return None
    settings = pyvenv(prefix)
    is_conda = os.path.isdir(os.path.join(prefix, "conda-meta"))
    if kind in ("venv", "pipenv", "poetry", "pipx") and settings is None and not is_conda:
        return None  # some directory with a bin/python in it
    if is_conda and kind not in ("pixi",):
        kind = "conda"
    elif settings is not None and kind == "system":
        kind = "venv"
    if kind == "venv" and settings is not None and "uv" in settings:
        kind = "uv"
    libraries = site_packages(prefix)
    version = (settings or {}).get("version_info") or (settings or {}).get("version") or conda_version(prefix)
    if settings is not None and settings.get("include-system-site-packages", "").lower() == "true":
        base = os.path.dirname(settings.get("home", ""))
        libraries += site_packages(base) if base else []
    short = next((match.group(1) for match in map(_LIBRARY.search, libraries) if match), "")
    if kind == "pyenv":
        version = version or os.path.basename(prefix)
    if not (version or short).startswith("3"):
        return None  # Python 2, or something else with that name
    return {
        "what": "environment",
        "kind": kind,
        "language": "python",
        "path": prefix,
        "program": python,
        "version": re.sub(r"[^0-9.].*", "", version or "").rstrip(".") or short,
        "kernel": any(has_package(library, "ipykernel") for library in libraries),
    }


_LIBRARY = re.compile(r"/python(3\.\d+)/")


def programs(prefix: str) -> List[str]:
    return [os.path.join(prefix, "bin", name) for name in ("python3", "python")]


def site_packages(prefix: str) -> List[str]:
    """Newest first; Debian keeps those of all versions in one place."""
    patterns = (
        "lib/python3.*/site-packages",
        "lib64/python3.*/site-packages",
        "local/lib/python3.*/dist-packages",
    )
    found = [path for pattern in patterns for path in glob.glob(os.path.join(glob.escape(prefix), pattern))]
    found.sort(key=lambda path: [int(part) for part in re.findall(r"\d+", path)], reverse=True)
    if os.path.realpath(prefix) == "/usr":
        found += ["/usr/lib/python3/dist-packages"]
        found += sorted(glob.glob("/usr/lib/python3.*/"), key=len, reverse=True)
    return found


def has_package(library: str, name: str) -> bool:
    if os.path.isdir(os.path.join(library, name)):
        return True
    # Installed for development: there is only its metadata, and a hook that leads to the source.
    return bool(glob.glob(os.path.join(glob.escape(library), name + "-*.dist-info")))


def pyvenv(prefix: str) -> Optional[Dict[str, str]]:
    text = read(os.path.join(prefix, "pyvenv.cfg"))
    if not text:
        return None
    pairs = (line.partition("=") for line in text.splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def conda_version(prefix: str) -> str:
    for path in glob.glob(os.path.join(glob.escape(prefix), "conda-meta", "python-3.*.json")):
        match = re.match(r"python-(3\.[0-9.]+)-", os.path.basename(path))
        if match:
            return match.group(1)
    return ""


# -- R and Julia ------------------------------------------------------------------------------------------------


def other_languages() -> Iterator[Found]:
    home = os.path.expanduser("~")
    program = shutil.which("R")
    if program is not None:
        prefix = os.path.dirname(os.path.dirname(program))
        libraries = list(_R_LIBRARIES) + [os.path.join(prefix, "lib", "R", "library")]
        libraries += glob.glob(os.path.join(glob.escape(home), "R", "*", "*"))
        libraries += os.environ.get("R_LIBS_USER", "").split(os.pathsep)
        has_kernel = any(os.path.isdir(os.path.join(library, "IRkernel")) for library in libraries if library)
        yield other("R", "system", prefix, program, r_version(libraries), has_kernel)
    julia = shutil.which("julia") or os.path.join(home, ".juliaup", "bin", "julia")
    if os.access(julia, os.X_OK):
        depot = os.environ.get("JULIA_DEPOT_PATH", "").split(os.pathsep)[0] or os.path.join(home, ".julia")
        has_kernel = os.path.isdir(os.path.join(depot, "packages", "IJulia"))
        yield other("julia", "system", os.path.dirname(os.path.dirname(julia)), julia, "", has_kernel)


def other(language: str, kind: str, path: str, program: str, version: str, has_kernel: bool) -> Found:
    return {
        "what": "environment",
        "kind": kind,
        "language": language,
        "path": path,
        "program": program,
        "version": version,
        "kernel": has_kernel,
    }


def r_version(libraries: List[str]) -> str:
    """The package "base" has R's own version."""
    for library in libraries:
        match = re.search(r"(?m)^Version: *([0-9.]+)", read(os.path.join(library, "base", "DESCRIPTION")))
        if match:
            return match.group(1)
    return ""


# -- files ------------------------------------------------------------------------------------------------------


def listed(directory: str) -> List[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def below(directory: str) -> List[str]:
    return [
        path
        for path in (os.path.join(directory, name) for name in listed(directory)[:MOST])
        if os.path.isdir(path)
    ]


def read(path: str) -> str:
    """Empty where there is nothing to be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(_LARGEST)
    except OSError:
        return ""


def read_json(path: str) -> Optional[Found]:
    try:
        content = json.loads(read(path))
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


if __name__ == "__main__":
    main()
