"""From what the keeper asks for (argv, a kernelspec, a Python) to the command that is run."""

import json
import os
import re
import shlex
import string
import sys
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

from . import surroundings
from .problems import BadKernelspec, BadRequest, NoKernelspec, NoProgram
from .surroundings import Surroundings

Spec = NamedTuple(
    "Spec",
    [
        ("argv", List[str]),
        ("env", Dict[str, str]),
        ("interrupt", str),
        ("language", str),
        ("display_name", str),
        ("directory", str),
    ],
)
NOTHING = Spec([], {}, "signal", "", "", "")
DEFAULT = "python3"
# Where any Python is that can read kernel.json: in an image, or behind a module.
_SEARCH = """\
for python in python3 python; do
  command -v "$python" >/dev/null 2>&1 && exec "$python" -c {program} "$@"
done
printf 'python\\0%s\\0' "$2" >"${{1%/*}}/failed"
exit 1
"""
_RESOLVE = """\
import json, os, sys
connection, name = sys.argv[1:]
home, get = os.path.expanduser("~"), os.environ.get
places = [place for place in get("JUPYTER_PATH", "").split(":") if place]
data = get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
places += [get("JUPYTER_DATA_DIR") or os.path.join(data, "jupyter")]
places += [prefix + "/share/jupyter" for prefix in (sys.prefix, "/opt/conda", "/usr/local", "/usr")]
known = {}
for place in places:
    try:
        for one in sorted(os.listdir(place + "/kernels")):
            path = os.path.join(place, "kernels", one)
            if os.path.isfile(path + "/kernel.json"):
                known.setdefault(one.lower(), path)
    except OSError:
        pass
path = known.get(name.lower())
if path is None and name == "python3":
    argv, env = ["python", "-m", "ipykernel_launcher", "-f", connection], {}
elif path is None:
    with open(os.path.dirname(connection) + "/failed", "w") as stream:
        stream.write("kernelspec\\0%s\\0%s\\0" % (name, ", ".join(sorted(known))))
    sys.exit(1)
else:
    with open(path + "/kernel.json") as stream:
        spec = json.load(stream)
    argv = []
    for word in spec["argv"]:
        for key, value in (("connection_file", connection), ("resource_dir", path), ("prefix", sys.prefix)):
            word = word.replace("{%s}" % key, value)
        argv.append(word)
    env = spec.get("env") or {}
os.environ.update((str(key), os.path.expandvars(str(value))) for key, value in env.items())
if argv[0] in ("python", "python3"):
    argv[0] = sys.executable
os.execvp(argv[0], argv)
"""
_PYTHON = re.compile(r"python(3(\.\d+)?)?\Z")
# They belong to the place where we were started, and mean nothing, or harm, to a kernel here.
_NEVER_PASSED = (
    "JPY_PARENT_PID",
    "FARKERNEL_BOOT",
    "FARKERNEL_LOADER",
    "FARKERNEL_UMASK",
    "FARKERNEL_AGENT_IDLE",
    "FARKERNEL_JOB",
)


def directories(environment: Mapping[str, str]) -> List[str]:
    """Where kernelspecs are looked for, in Jupyter's order (jupyter_core.paths.jupyter_path)."""
    home = os.path.expanduser("~")
    found = [path for path in environment.get("JUPYTER_PATH", "").split(os.pathsep) if path]
    data = environment.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
    found.append(environment.get("JUPYTER_DATA_DIR") or os.path.join(data, "jupyter"))
    prefixes = [own_prefix()]
    # The agent's Python is the first that would do, and need not be the one in which Jupyter lives.
    for program in ("jupyter", "python3"):
        path = which(program, environment.get("PATH", os.defpath))
        if path is not None:
            prefixes.append(os.path.dirname(os.path.dirname(path)))
    found += [os.path.join(prefix, "share", "jupyter") for prefix in prefixes]
    found += ["/usr/local/share/jupyter", "/usr/share/jupyter"]
    return list(dict.fromkeys(os.path.join(path, "kernels") for path in found))


def installed(environment: Mapping[str, str], prefix: Optional[str] = None) -> Dict[str, str]:
    """Name → directory of every kernelspec that can be seen here; those of an environment's prefix come first."""
    found: Dict[str, str] = {}
    own = [os.path.join(prefix, "share", "jupyter", "kernels")] if prefix else []
    for directory in own + directories(environment):
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            continue
        for name in names:
            if os.path.isfile(os.path.join(directory, name, "kernel.json")):
                found.setdefault(name.lower(), os.path.join(directory, name))
    return found


def find(name: str, environment: Mapping[str, str], prefix: Optional[str] = None) -> Spec:
    known = installed(environment, prefix)
    directory = known.get(name.lower())
    if prefix and name == DEFAULT and not (directory or "").startswith(os.path.join(prefix, "")):
        # Any Python's "python3" is meant as the name of a kind; the one that was asked for is this environment's.
        return python_spec(os.path.join(prefix, "bin", "python"))
    if directory is None:
        raise NoKernelspec(name, known)
    path = os.path.join(directory, "kernel.json")
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
        argv = [str(word) for word in content["argv"]]
        env = {str(key): str(value) for key, value in dict(content.get("env") or {}).items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadKernelspec(path, "%s: %s" % (type(error).__name__, error)) from None
    if not argv:
        raise BadKernelspec(path, "its argv is empty")
    if _PYTHON.match(argv[0]):
        argv[0] = _python_of(directory) or argv[0]
    interrupt = "message" if content.get("interrupt_mode") == "message" else "signal"
    display_name = str(content.get("display_name", name))
    return Spec(argv, env, interrupt, str(content.get("language", "")), display_name, directory)


def _python_of(directory: str) -> Optional[str]:
    """The Python in whose prefix the kernelspec (PREFIX/share/jupyter/kernels/NAME) is: "python" means that one."""
    prefix = os.path.abspath(os.path.join(directory, "..", "..", "..", ".."))
    if prefix == os.path.abspath(own_prefix()):
        return sys.executable
    for name in ("python3", "python"):
        path = os.path.join(prefix, "bin", name)
        if os.access(path, os.X_OK):
            return path
    return None


def python_spec(python: str) -> Spec:
    argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    return Spec(argv, {}, "signal", "python", "Python (%s)" % python, "")


def spec_there(name: str) -> Spec:
    """One that is looked for where the kernel will run, when everything before it has been done."""
    search = _SEARCH.format(program=shlex.quote(_RESOLVE))
    return Spec(["/bin/sh", "-c", search, "sh", "{connection_file}", name], {}, "signal", "", name, "")


def asked(
    request: Mapping[str, Any], environment: Mapping[str, str], around: Surroundings = surroundings.NONE
) -> Spec:
    """The kernel that a `start` request means: exactly one of argv, kernelspec and python."""
    given = [name for name in ("argv", "kernelspec", "python") if request.get(name)]
    if len(given) != 1:
        raise BadRequest(
            "start needs exactly one of argv, kernelspec and python, and got %s" % (given or "none")
        )
    if given == ["kernelspec"]:
        return _named(str(request["kernelspec"]), environment, around)
    if given == ["python"]:
        python = str(request["python"])
        return python_spec(python if around.container else os.path.expanduser(python))
    argv = request["argv"]
    if not isinstance(argv, list) or not all(map(_is_word, argv)):
        raise BadRequest("argv must be a list of strings")
    return Spec(list(argv), {}, "signal", "", os.path.basename(argv[0]), "")


def _named(name: str, environment: Mapping[str, str], around: Surroundings) -> Spec:
    if around.container or (around.conda and around.prefix is None):
        return spec_there(name)
    try:
        return find(name, environment, around.prefix)
    except NoKernelspec:
        if surroundings.knows_more(around):
            return spec_there(name)
        raise


def _is_word(word: object) -> bool:
    return isinstance(word, str) and "\0" not in word


def complete_environment(
    base: Mapping[str, str], spec: Spec, extra: Mapping[str, str], unset: List[str]
) -> Dict[str, str]:
    """Ours, the kernelspec's, the request's; ${NAME} in the latter two means the value so far, as Jupyter has it."""
    environment = dict(base)
    for name in _NEVER_PASSED + tuple(unset):
        environment.pop(name, None)
    for addition in (spec.env, extra):
        before = dict(environment)
        for name, value in addition.items():
            environment[name] = string.Template(value).safe_substitute(before)
    return environment


def complete_argv(spec: Spec, connection_file: str) -> List[str]:
    values = {"connection_file": connection_file, "resource_dir": spec.directory, "prefix": own_prefix()}
    return [_fill(word, values) for word in spec.argv]


def _fill(word: str, values: Dict[str, str]) -> str:
    return re.sub(r"\{(connection_file|resource_dir|prefix)\}", lambda match: values[match.group(1)], word)


def which(name: str, path: str) -> Optional[str]:
    """As `shutil.which`, whose module takes as long to import as a start takes otherwise."""
    for directory in path.split(os.pathsep) if path else []:
        program = os.path.join(directory or os.curdir, name)
        if os.path.isfile(program) and os.access(program, os.X_OK):
            return program
    return None


def own_prefix() -> str:
    """`sys.prefix` with virtual environments, which `site` finds out, and the agent runs without it (PEP 405)."""
    place = os.path.dirname(sys.executable)
    prefix = os.path.dirname(place)
    for directory in (place, prefix):
        if os.path.isfile(os.path.join(directory, "pyvenv.cfg")):
            return prefix
    return sys.prefix


def find_program(argv: List[str], environment: Mapping[str, str], cwd: str) -> str:
    """The full path of argv[0]; raises `NoProgram`."""
    path = environment.get("PATH", os.defpath)
    name = os.path.expanduser(argv[0])
    if os.sep in name:
        program = os.path.join(cwd, name)
        if os.path.isfile(program) and os.access(program, os.X_OK):
            return program
        raise NoProgram(name, os.path.dirname(program))
    found = which(name, path)
    if found is None:
        raise NoProgram(name, path)
    return found
