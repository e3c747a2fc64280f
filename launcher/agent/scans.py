"""Looks for kernels on this machine in a child of its own, with a deadline; its program comes with the request."""

import base64
import json
import os
import sys
from typing import Any, Callable, Dict, List, Mapping

from . import surroundings
from .children import Child
from .loop import Loop
from .problems import Problem
from .specs import NOTHING, asked, complete_argv, complete_environment, directories, find_program

_BOOT = "import sys; exec(compile(sys.stdin.buffer.read(), 'scan', 'exec'))"
LONGEST = 60.0
LOGOS = ("logo-64x64.png", "logo-32x32.png", "logo-svg.svg")
LARGEST_LOGO = 256 << 10

Answer = Dict[str, Any]


class ScanFailed(Problem):
    kind = "scan"

    def __init__(self, why: str) -> None:
        super().__init__(
            "what is installed there could not be looked up: %s" % why, "See the agent's log at the far end"
        )


def scan(loop: Loop, deadline: float, program: str, done: Callable[[Answer], None]) -> None:
    """``done`` is called once, with what was found up to the end of the search or the deadline."""
    request = json.dumps(
        {
            "kernelspecs": directories(os.environ),
            "conda": list(surroundings.conda_prefixes(os.environ)),
            "module_init": surroundings.MODULE_INIT,
        }
    )
    argv = [sys.executable, "-I", "-c", _BOOT, request]
    text = program.encode("utf-8")
    try:
        Child(loop, argv, text, min(max(deadline, 0.0), LONGEST), lambda data: done(sorted_out(data)))
    except OSError as error:
        raise ScanFailed(str(error)) from None


def sorted_out(data: bytes) -> Answer:
    """The child's lines as an answer; `complete` when it came to the end of its search."""
    found: Dict[str, List[Answer]] = {"kernelspec": [], "environment": [], "module": []}
    complete = False
    for line in data.split(b"\n"):
        try:
            one = json.loads(line.decode("utf-8"))
        except ValueError:
            continue
        if "done" in one:
            complete = bool(one["done"])
        elif one.get("what") in found:
            found[one.pop("what")].append(one)
    return {
        "kernelspecs": found["kernelspec"],
        "environments": found["environment"],
        "modules": [one.get("name") for one in found["module"]],
        "complete": complete,
    }


def look_up(request: Mapping[str, Any]) -> Answer:
    """What a `start` with these arguments would run; raises what it would raise, and starts nothing."""
    environment = complete_environment(os.environ, NOTHING, {}, [])
    around = surroundings.of_request(request, environment)
    spec = asked(request, environment, around)
    environment = complete_environment(os.environ, spec, {}, [])
    argv = complete_argv(spec, "{connection_file}")
    answer: Answer = {
        "argv": argv,
        "directory": spec.directory,
        "display_name": spec.display_name,
        "language": spec.language,
        "program": None,
    }
    if not surroundings.knows_more(around):
        if around.prefix:
            environment["PATH"] = (
                os.path.join(around.prefix, "bin") + os.pathsep + environment.get("PATH", "")
            )
        answer["program"] = find_program(argv, environment, os.path.expanduser("~"))
    if request.get("logos"):
        answer["logos"] = logos(spec.directory)
    return answer


def logos(directory: str) -> Dict[str, str]:
    """A kernelspec's pictures in base64, by name."""
    found = {}
    for name in LOGOS:
        try:
            with open(os.path.join(directory, name), "rb") as stream:
                content = stream.read(LARGEST_LOGO + 1)
        except OSError:
            continue
        if directory and len(content) <= LARGEST_LOGO:
            found[name] = base64.b64encode(content).decode("ascii")
    return found
