"""What a kernel is started in (DESIGN §5), in this order: modules, a conda environment, shell lines, a container.

All of it is one program for a shell that ends by becoming the kernel.  Values stand in it quoted.  What is wrong it
says in a file of the kernel's directory (`refusals.py`), so that a person reads a sentence and not a shell's words.
"""

import json
import os
import re
import shlex
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional

from . import containers
from .problems import BadRequest
from .refusals import FAILED, SAID, BadModuleName, NoConda

# Lmod 8.6 has the shell evaluate names that it does not know, quotes and all; so only what names are made of.
_MODULE_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_./+@:=~^,-]*\Z")
_ROOTS = (
    "~/miniforge3",
    "~/mambaforge",
    "~/miniconda3",
    "~/anaconda3",
    "~/micromamba",
    "~/.local/share/mamba",
    "~/conda",
    "~/.conda",
    "/opt/conda",
    "/opt/miniforge3",
    "/opt/mambaforge",
    "/opt/miniconda3",
    "/opt/anaconda3",
    "/opt/micromamba",
    "/usr/local/miniforge3",
    "/usr/local/miniconda3",
    "/usr/local/anaconda3",
)

# A shell that is no login shell has no `module`.  What the login shells of this machine read comes first, because it
# knows also where the modules are; the files of the modules' own installation come last.
MODULE_INIT = """\
if ! type module >/dev/null 2>&1; then
  for farkernel_file in /etc/profile.d/*mod*.sh /etc/profile "${MODULESHOME:-/none}/init/sh" \\
    "${LMOD_PKG:-/none}/init/sh" /usr/share/lmod/lmod/init/sh /usr/share/[Mm]odules/init/sh \\
    /usr/local/[Mm]odules/init/sh /usr/local/lmod/lmod/init/sh /opt/[Mm]odules/init/sh \\
    /opt/modules/default/init/sh /opt/cray/pe/*/default/init/sh /opt/cray/pe/lmod/lmod/init/sh \\
    /opt/apps/lmod/lmod/init/sh /opt/ohpc/admin/lmod/lmod/init/sh /apps/lmod/lmod/init/sh; do
    [ -r "$farkernel_file" ] || continue
    case $farkernel_file in
      /etc/profile.d/*) ;;
      *) type module >/dev/null 2>&1 && break ;;
    esac
    . "$farkernel_file" >&2
  done
fi
"""
_BEGIN = """\
farkernel_place={place}
farkernel_failed() {{
  printf '%s\\0' "$@" >"$farkernel_place/{failed}"
  exit 1
}}
"""
# Modules 3.2 says ERROR and returns 0.
_LOAD = """\
type module >/dev/null 2>&1 || farkernel_failed no-modules
farkernel_load() {{
  module load "$1" >"$farkernel_place/{said}" 2>&1
  farkernel_status=$?
  cat "$farkernel_place/{said}" >&2
  farkernel_said=$(tail -n 20 "$farkernel_place/{said}")
  case $farkernel_said in
    *ModuleCmd_Load*ERROR* | *"ERROR: Unable to locate"*) farkernel_status=1 ;;
  esac
  [ "$farkernel_status" -eq 0 ] ||
    farkernel_failed module "$1" "$farkernel_said" "$(module -t avail "${{1%%/*}}" 2>&1 | head -n 40)"
}}
"""
# What `conda activate` does to a fresh shell (conda's activate.py), without the half second that it takes for it.
_ACTIVATE = """\
farkernel_activate() {
  PATH=$1/bin:$PATH CONDA_PREFIX=$1 CONDA_DEFAULT_ENV=$2 CONDA_SHLVL=1 CONDA_PROMPT_MODIFIER="($2) "
  export PATH CONDA_PREFIX CONDA_DEFAULT_ENV CONDA_SHLVL CONDA_PROMPT_MODIFIER
  for farkernel_file in "$1"/etc/conda/activate.d/*.sh; do
    [ -r "$farkernel_file" ] && . "$farkernel_file" >&2
  done
  return 0
}
"""
# For a conda that only a module makes known.
_FIND = """\
farkernel_find() {
  for farkernel_root in "${CONDA_EXE:-/none/bin/conda}" "$(command -v conda)" "$(command -v mamba)" \\
    "$(command -v micromamba)"; do
    farkernel_root=${farkernel_root%/*/*}
    [ "$1" = base ] && [ -d "$farkernel_root/conda-meta" ] && farkernel_activate "$farkernel_root" base && return
    farkernel_prefix=$farkernel_root/envs/$1
    [ -d "$farkernel_prefix/conda-meta" ] && farkernel_activate "$farkernel_prefix" "$1" && return
  done
  farkernel_prefix=${MAMBA_ROOT_PREFIX:-/none}/envs/$1
  [ -d "$farkernel_prefix/conda-meta" ] && farkernel_activate "$farkernel_prefix" "$1" && return
  farkernel_failed conda "$1" "$2"
}
"""

Surroundings = NamedTuple(
    "Surroundings",
    [
        ("modules", List[str]),
        ("conda", str),
        (
            "prefix",
            Optional[str],
        ),  # of the conda environment; None: there is none, or only a module will say where
        ("before", str),
        ("container", str),
    ],
)
NONE = Surroundings([], "", None, "", "")


def of_request(request: Mapping[str, Any], environment: Mapping[str, str]) -> Surroundings:
    """What a `start` or `look` asks for; raises `NoConda` and `BadRequest`."""
    modules = request.get("modules") or []
    if not isinstance(modules, list) or not all(isinstance(one, str) for one in modules):
        raise BadRequest("modules must be a list of strings")
    for name in modules:
        if not _MODULE_NAME.match(name):
            raise BadModuleName(name)
    conda, before = str(request.get("conda") or ""), str(request.get("before") or "")
    container = str(request.get("container") or "")
    if any("\0" in one for one in modules + [conda, before, container]):
        raise BadRequest("modules, conda, before and container must hold no NUL")
    prefix = find_conda(conda, environment) if conda else None
    if conda and prefix is None and not modules:
        raise NoConda(conda, conda_environments(environment))
    return Surroundings(modules, conda, prefix, before, container)


def needs_shell(around: Surroundings) -> bool:
    return around != NONE


def knows_more(around: Surroundings) -> bool:
    """Whether there may be kernelspecs and programs then that cannot be seen from here."""
    return bool(around.modules or around.before or (around.conda and not around.prefix) or around.container)


def complete(
    around: Surroundings, argv: List[str], inside: containers.Inside, environment: Mapping[str, str]
) -> List[str]:
    """The kernel's command with everything before it."""
    if not needs_shell(around):
        return argv
    # Prefer bash: `module` and activation scripts are written for it, whatever they say.
    shell = next((path for path in ("/bin/bash", "/usr/bin/bash") if os.access(path, os.X_OK)), "/bin/sh")
    return [shell, "-c", program(around, inside, environment), "sh"] + argv


def program(around: Surroundings, inside: containers.Inside, environment: Mapping[str, str]) -> str:
    parts = [_BEGIN.format(place=shlex.quote(inside.directory), failed=FAILED)]
    if around.modules:
        parts += [MODULE_INIT, _LOAD.format(said=SAID)]
        parts += ["farkernel_load %s\n" % shlex.quote(name) for name in around.modules]
    if around.conda:
        parts += [_ACTIVATE, _activation(around, environment)]
    if around.before:
        parts.append(around.before + "\n")
    parts.append(containers.program(around.container, inside) if around.container else 'exec "$@"\n')
    return "".join(parts)


def _activation(around: Surroundings, environment: Mapping[str, str]) -> str:
    if around.prefix is None:
        known = ", ".join(conda_environments(environment))
        return _FIND + "farkernel_find %s %s\n" % (shlex.quote(around.conda), shlex.quote(known))
    lines = ["export %s=%s\n" % (name, shlex.quote(value)) for name, value in _variables(around.prefix)]
    root = os.path.dirname(os.path.dirname(around.prefix))
    if os.access(os.path.join(root, "bin", "conda"), os.X_OK):
        # So that `conda install` in a cell finds itself.
        lines.append("export CONDA_EXE=%s\n" % shlex.quote(os.path.join(root, "bin", "conda")))
        lines.append("PATH=$PATH:%s\n" % shlex.quote(os.path.join(root, "condabin")))
    name = conda_name(around.prefix)
    return "".join(lines) + "farkernel_activate %s %s\n" % (shlex.quote(around.prefix), shlex.quote(name))


# -- conda, mamba, micromamba, pixi -----------------------------------------------------------------------------


def conda_name(prefix: str) -> str:
    """As conda itself calls it: the name of one in a directory `envs`, else the path."""
    parent, name = os.path.split(prefix)
    if os.path.basename(parent) == "envs":
        return name
    return "base" if os.path.isdir(os.path.join(prefix, "condabin")) else prefix


def conda_roots(environment: Mapping[str, str]) -> List[str]:
    """Where conda, mamba and micromamba are installed, here or in the usual places; many of them are not there."""
    found = []
    for name in ("CONDA_EXE", "MAMBA_EXE"):
        if environment.get(name):
            found.append(os.path.dirname(os.path.dirname(environment[name])))
    for name in ("MAMBA_ROOT_PREFIX", "CONDA_ROOT", "CONDA_PREFIX"):
        if environment.get(name):
            found.append(environment[name])
    for directory in environment.get("PATH", "").split(os.pathsep):
        for name in ("conda", "mamba"):
            if directory and os.access(os.path.join(directory, name), os.X_OK):
                found.append(
                    os.path.dirname(os.path.dirname(os.path.realpath(os.path.join(directory, name))))
                )
    found += [os.path.expanduser(root) for root in _ROOTS]
    return list(dict.fromkeys(found))


def conda_prefixes(environment: Mapping[str, str]) -> Iterator[str]:
    """Every environment that can be found, the same one maybe more than once."""
    places = [one for one in environment.get("CONDA_ENVS_PATH", "").split(os.pathsep) if one]
    places += [one for one in environment.get("CONDA_ENVS_DIRS", "").split(os.pathsep) if one]
    for root in conda_roots(environment):
        if _is_conda(root):
            yield root
        places.append(os.path.join(root, "envs"))
    for place in places + _configured_places():
        try:
            names = sorted(os.listdir(place))
        except OSError:
            continue
        for name in names:
            if _is_conda(os.path.join(place, name)):
                yield os.path.join(place, name)
    try:
        with open(
            os.path.expanduser("~/.conda/environments.txt"), encoding="utf-8", errors="replace"
        ) as lines:
            for line in lines:
                if line.startswith("/") and _is_conda(line.strip()):
                    yield line.strip()
    except OSError:
        pass


def conda_environments(environment: Mapping[str, str]) -> List[str]:
    return sorted({conda_name(prefix) for prefix in conda_prefixes(environment)})


def find_conda(wanted: str, environment: Mapping[str, str]) -> Optional[str]:
    """The prefix of an environment that is named by its name or its path; a path may be that of a pixi project."""
    if os.sep in wanted or wanted.startswith(("~", ".")):
        path = os.path.normpath(os.path.join(os.path.expanduser("~"), os.path.expanduser(wanted)))
        for prefix in (path, os.path.join(path, ".pixi", "envs", "default")):
            if _is_conda(prefix):
                return prefix
        return None
    for prefix in conda_prefixes(environment):
        if wanted in (conda_name(prefix), os.path.basename(prefix)):
            return prefix
    return None


def _is_conda(prefix: str) -> bool:
    return os.path.isdir(os.path.join(prefix, "conda-meta"))


def _configured_places() -> List[str]:
    """`envs_dirs` of .condarc, which is YAML; a list with one entry a line is all that is understood."""
    found, inside = [], False
    try:
        with open(os.path.expanduser("~/.condarc"), encoding="utf-8", errors="replace") as stream:
            lines = stream.read(1 << 16).splitlines()
    except OSError:
        return []
    for line in lines:
        words = line.split("#")[0].strip()
        if inside and words.startswith("-"):
            path = os.path.expandvars(os.path.expanduser(words[1:].strip().strip("'\"")))
            found.append(path)
        elif words:
            inside = words in ("envs_dirs:", "envs_path:")
    return found


def _variables(prefix: str) -> List[Any]:
    """Set by `conda env config vars` and by packages (env_vars.d), as pairs; a later one counts."""
    directory = os.path.join(prefix, "etc", "conda", "env_vars.d")
    try:
        files = [os.path.join(directory, name) for name in sorted(os.listdir(directory))]
    except OSError:
        files = []
    found: Dict[str, str] = {}
    for path in files + [os.path.join(prefix, "conda-meta", "state")]:
        try:
            with open(path, encoding="utf-8") as stream:
                content = json.load(stream)
            content = content.get("env_vars") or {} if path.endswith("state") else content
            found.update((str(name), str(value)) for name, value in content.items())
        except (OSError, ValueError, AttributeError):
            continue
    return [(name, value) for name, value in found.items() if name.isidentifier() and "\0" not in value]
