"""What this machine has and what is free: the probe, a program that the keeper brings when it is first asked for.

It is no part of the agent's own archive, which goes to every machine: most are never probed.  Programs are kept
in the agent's directory, by their hash, as long as the agent lives.
"""

import base64
import hashlib
import json
import os
import re
import sys
from typing import Any, Callable, Dict, Mapping, Optional, Union

from . import specs
from .children import Child
from .loop import Loop
from .places import subdirectory
from .problems import BadRequest, NoRoom, Problem

LONGEST = 60.0
#: For one part of the probe: a driver that takes longer hangs.
_PATIENCE = 5.0
_PYTHON = re.compile(r"python[0-9.]*\Z")

Answer = Dict[str, Any]
Outcome = Union[Answer, Problem]


class ProbeFailed(Problem):
    kind = "probe"

    def __init__(self, why: str) -> None:
        super().__init__("the machine could not be looked at: %s" % why, "See the agent's log at the far end")


class Programs(object):
    """Zip files that the keeper brought, by the SHA-256 of their content."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def find(self, sha256: object) -> Optional[str]:
        if not isinstance(sha256, str) or not re.match(r"[0-9a-f]{64}\Z", sha256):
            return None
        path = os.path.join(self._directory, "programs", sha256 + ".zip")
        return path if os.path.isfile(path) else None

    def bring(self, sha256: str, content: str) -> None:
        data = base64.b64decode(content.encode("ascii"), validate=True)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise BadRequest("a program that is not what its hash says")
        import tempfile

        place = os.path.join(self._directory, "programs")
        try:
            place = subdirectory(self._directory, "programs")
            descriptor, temporary = tempfile.mkstemp(dir=place)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
            os.rename(temporary, os.path.join(place, sha256 + ".zip"))
        except OSError as error:
            raise NoRoom(place, error.strerror or str(error)) from None


def probe(
    loop: Loop, programs: Programs, request: Mapping[str, Any], done: Callable[[Outcome], None]
) -> None:
    """``done`` is called once: ``machine``, the document; or ``need``, the name of a program to be brought first."""
    wanted = dict(request.get("programs") or {})
    program = programs.find(wanted.get("probe"))
    if program is None:
        done({"need": "probe"})
        return
    deadline = min(max(float(request.get("deadline") or 2 * _PATIENCE), 0.1), LONGEST)
    asked = {
        "wanted": request.get("wanted"),
        # An interpreter takes its time to start on a slow machine: the other half of the deadline is for that.
        "patience": min(_PATIENCE, deadline / 2),
        "nvml": programs.find(wanted.get("nvml")),
        "python": kernel_python(request),
        "choose": request.get("choose"),
    }
    argv = [sys.executable, "-I", program, json.dumps(asked)]
    try:
        Child(loop, argv, b"", deadline, lambda data: done(outcome(data, deadline)))
    except OSError as error:
        done(ProbeFailed(str(error)))


def outcome(data: bytes, deadline: float) -> Outcome:
    """The child's one line."""
    line, newline, _ = data.partition(b"\n")
    if not newline:
        return ProbeFailed("no answer within %g s, or it failed" % deadline)
    try:
        found = json.loads(line.decode("ascii"))
    except ValueError as error:
        return ProbeFailed(str(error))
    return found if "need" in found else {"machine": found}


def kernel_python(request: Mapping[str, Any]) -> Optional[str]:
    """The interpreter of the kernel that the request names, for what only its environment knows."""
    if not request.get("kernelspec") and not request.get("python"):
        return None
    environment = specs.complete_environment(os.environ, specs.NOTHING, {}, [])
    try:
        spec = specs.asked(dict(request), environment)
        program = specs.find_program(spec.argv, environment, os.path.expanduser("~"))
    except Problem:
        return None  # `look` and `start` say what is wrong with it
    return program if _PYTHON.match(os.path.basename(program)) else None
