"""What kernels could be had on this machine: kernelspecs, and environments with or without a kernel in them.

Run as a program of its own (`scans.py`), because a dead network file system would hold up whoever looks; so
it imports nothing of ours.  It starts no interpreter either: everything is read from files, but the names of the
environment modules, which only a shell can tell.  One JSON object
a line, as they are found, so that what was found before a hang is not lost; the last line says `done`.
"""

import glob
import json
import os
import re
import shutil
import subprocess
import sys
from typing import Any, Dict, Iterator, List, Optional, Tuple

MOST = 2000
_LARGEST = 1 << 20
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

_MARK = "farkernel-modules:"
_MODULE = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_./+@=~^,-]*[A-Za-z0-9_+]\Z")

Found = Dict[str, Any]


def main() -> None:
    request = json.loads(sys.argv[1])
    count = 0
    for found in everything(request):
        say(found)
        count += 1
        if count == MOST:
            break
    say({"done": count < MOST})


def say(found: Found) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def everything(request: Found) -> Iterator[Found]:
    for found in kernelspecs(request["kernelspecs"]):
        yield found
    for found in pythons(os.path.expanduser("~"), request.get("conda") or []):
        yield found
    for found in other_languages(request.get("conda") or []):
        yield found
    for found in modules(request.get("module_init") or ""):
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


def pythons(home: str, conda: List[str]) -> Iterator[Found]:
    seen = set()
    for prefix, kind in prefixes(home, conda):
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


def prefixes(home: str, conda: List[str]) -> Iterator[Tuple[str, str]]:
    """(prefix, who made it); many of them are none."""
    for program in ("python3", "python"):
        path = shutil.which(program)
        if path is not None:
            yield os.path.dirname(os.path.dirname(path)), "system"
    yield "/usr", "system"
    yield "/usr/local", "system"
    for prefix in conda:
        yield prefix, "conda"
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
        "name": name_of(prefix),
        "path": prefix,
        "program": python,
        "version": re.sub(r"[^0-9.].*", "", version or "").rstrip(".") or short,
        "kernel": any(has_package(library, "ipykernel") for library in libraries),
    }


def name_of(prefix: str) -> str:
    """What a person calls it: an environment that lies in a project has the project's name."""
    parent, name = os.path.split(prefix.rstrip("/"))
    if name in (".venv", "venv", "env"):
        return os.path.basename(parent) or name
    above, folder = os.path.split(parent)
    if folder == "envs" and os.path.basename(above) == ".pixi":
        project = os.path.basename(os.path.dirname(above))
        return project if name == "default" else "%s-%s" % (project, name)
    return name or prefix


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


def other_languages(conda: List[str]) -> Iterator[Found]:
    home = os.path.expanduser("~")
    program = shutil.which("R")
    if program is not None:
        yield r_environment("system", os.path.dirname(os.path.dirname(program)), program, home)
    for prefix in conda:
        if os.access(os.path.join(prefix, "bin", "R"), os.X_OK):
            yield r_environment("conda", prefix, os.path.join(prefix, "bin", "R"), home)
    seen = set()
    for julia in julias(home):
        real = os.path.realpath(julia)
        if os.access(julia, os.X_OK) and real not in seen:
            seen.add(real)
            yield julia_environment(julia, home)


def r_environment(kind: str, prefix: str, program: str, home: str) -> Found:
    libraries = [os.path.join(prefix, "lib", "R", "library")]
    if kind == "system":
        libraries += _R_LIBRARIES
        libraries += glob.glob(os.path.join(glob.escape(home), "R", "*", "*"))
        libraries += [one for one in os.environ.get("R_LIBS_USER", "").split(os.pathsep) if one]
    has_kernel = any(os.path.isdir(os.path.join(library, "IRkernel")) for library in libraries)
    argv = [program, "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"]
    return other("R", kind, prefix, program, r_version(libraries), argv if has_kernel else None)


def julias(home: str) -> Iterator[str]:
    found = shutil.which("julia")
    if found is not None:
        yield found
    yield os.path.join(home, ".juliaup", "bin", "julia")
    for pattern in (home + "/julia*/bin/julia", "/opt/julia*/bin/julia", "/usr/local/julia*/bin/julia"):
        for path in sorted(glob.glob(pattern), reverse=True):
            yield path


def julia_environment(julia: str, home: str) -> Found:
    depots = [one for one in os.environ.get("JULIA_DEPOT_PATH", "").split(os.pathsep) if one]
    kernels: List[str] = []
    for depot in depots + [os.path.join(home, ".julia")]:
        kernels += glob.glob(os.path.join(glob.escape(depot), "packages", "IJulia", "*", "src", "kernel.jl"))
    kernels.sort(key=os.path.getmtime)
    argv = [julia, "-i", "--color=yes", "--project=@.", kernels[-1], "{connection_file}"] if kernels else None
    prefix = os.path.dirname(os.path.dirname(julia))
    version = re.search(r"julia-([0-9.]+)", os.path.realpath(julia))
    return other("julia", "system", prefix, julia, version.group(1) if version else "", argv)


def other(
    language: str, kind: str, path: str, program: str, version: str, argv: Optional[List[str]]
) -> Found:
    found = {
        "what": "environment",
        "kind": kind,
        "language": language,
        "name": name_of(path) if kind == "conda" else language,
        "path": path,
        "program": program,
        "version": version,
        "kernel": argv is not None,
    }
    return dict(found, argv=argv) if argv else found


def r_version(libraries: List[str]) -> str:
    """The package "base" has R's own version."""
    for library in libraries:
        match = re.search(r"(?m)^Version: *([0-9.]+)", read(os.path.join(library, "base", "DESCRIPTION")))
        if match:
            return match.group(1)
    return ""


# -- environment modules ----------------------------------------------------------------------------------------


def modules(init: str) -> Iterator[Found]:
    """Their names, as `module avail` lists them."""
    shell = next((path for path in ("/bin/bash", "/usr/bin/bash") if os.access(path, os.X_OK)), "/bin/sh")
    # What start-up files print must not be taken for names.
    script = init + "type module >/dev/null 2>&1 || exit 0\necho %s\nmodule -t avail 2>&1\n" % _MARK
    try:
        child = subprocess.Popen(
            [shell, "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return
    said = child.communicate()[0].decode("utf-8", "replace")
    seen = set()
    for line in said.partition(_MARK)[2].splitlines():
        name = re.sub(r"\([^)]*\)|<[^>]*>|@$", "", line.strip()).strip()
        # Directories end with a colon, and families of versions with a slash.
        if _MODULE.match(name) and name not in seen:
            seen.add(name)
            yield {"what": "module", "name": name}


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
