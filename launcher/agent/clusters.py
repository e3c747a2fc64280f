"""Starts that wait for an engine across several nodes.  A program that the keeper brings starts it, or finds the one
that runs (`engines`); the kernel holds its pipe `life`, as it holds leases, and so it ends with its last kernel."""

import hashlib
import json
import os
import re
import sys
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional

from . import surroundings
from .children import Child
from .containers import Inside, name_of
from .loop import Loop
from .places import subdirectory
from .probes import Programs
from .problems import Problem
from .specs import Spec
from .surroundings import Surroundings

#: Longer than the engines' program takes in any case.
_DEADLINE = 240.0
_PYTHON = re.compile(r"(pypy|python)[0-9.]*\Z")

Answer = Dict[str, Any]
Around = NamedTuple(
    "Around", [("surroundings", Surroundings), ("spec", Spec), ("environment", Dict[str, str])]
)


class Clusters(object):
    """``again`` is called with a request when it can go on, and the numbers of all that asked for it."""

    def __init__(
        self, loop: Loop, programs: Programs, directory: str, again: Callable[[Answer, List[Any], Any], None]
    ) -> None:
        self._loop = loop
        self._programs = programs
        self._directory = directory
        self._again = again
        self._waiting: Dict[str, List[Any]] = {}
        self._joined: Dict[str, Answer] = {}

    def of(self, request: Mapping[str, Any]) -> Optional[Answer]:
        """``engine``, ``environment``; None: it has to be begun."""
        if not request.get("cluster"):
            return {}
        return self._joined.get(_name(request))

    def begin(self, request: Answer, around: Around) -> None:
        """Asked again while it goes on, the answer goes to both."""
        name = _name(request)
        if name in self._waiting:
            self._waiting[name].append(request["answer"])
            return
        numbers = self._waiting[name] = [request["answer"]]
        program = self._program(request)

        def done(data: bytes) -> None:
            if self._waiting.get(name) is not numbers:
                return  # it was stopped meanwhile
            del self._waiting[name]
            self._joined[name] = _read(data)
            self._again(request, numbers, {})

        if program is None:
            del self._waiting[name]
            self._again(request, numbers, {"need": "engines"})
            return
        directory = os.path.join(subdirectory(self._directory, "e"), _key(request, around))
        asked = json.dumps(self._asked(request, around, directory)).encode("ascii")
        try:
            Child(self._loop, [sys.executable, "-I", program, "start", directory], asked, _DEADLINE, done)
        except OSError as error:
            done(json.dumps(_failed(str(error))).encode("ascii"))

    def _program(self, request: Answer) -> Optional[str]:
        return self._programs.find(dict(request.get("programs") or {}).get("engines"))

    def check(self, request: Answer, around: Around, done: Callable[[Answer], None]) -> None:
        """Whether the engine is installed: ``installed`` or ``problem``, ``package``; or ``need``, as for a start."""
        program = self._program(request)
        if program is None:
            done({"need": "engines"})
            return
        directory = os.path.join(subdirectory(self._directory, "e"), "check")
        asked = json.dumps(self._asked(dict(request, life=1), around, directory)).encode("ascii")
        argv = [sys.executable, "-I", program, "check", directory]

        def checked(data: bytes) -> None:
            try:
                done(dict(json.loads(data.decode("ascii"))))
            except (ValueError, TypeError):
                done({"problem": "its check gave no answer"})

        Child(self._loop, argv, asked, _DEADLINE, checked)

    def _asked(self, request: Answer, around: Around, directory: str) -> Answer:
        cluster = dict(request["cluster"])
        extra = dict(around.spec.env, **cluster.get("environment") or {})
        program = around.spec.argv[0]

        def prefix(place: str, name: str) -> List[str]:
            inside = Inside(place, place, name, sorted(extra))
            return surroundings.complete(around.surroundings, [], inside, around.environment)

        return dict(
            cluster,
            prefix=prefix(directory, name_of(directory, 0)),
            node_prefix=prefix("@DIRECTORY@", name_of(directory, 0) + "-@PID@"),
            python=program if _PYTHON.match(os.path.basename(program)) else "python3",
            pythons=[sys.executable, "python3", "python"],
            environment=around.environment,
            extra=extra,
            unset=[str(one) for one in request.get("unset") or []],
            fresh=int(request["life"]) > 1,
        )

    def cancel(self, kernel: str) -> bool:
        """Nobody wants it to start any more; whether it was about to."""
        found = [name for name in self._waiting if name.rpartition("/")[0] == kernel]
        for name in found:
            self._again(
                {}, self._waiting.pop(name), Problem("it was stopped before it had started", "Start it again")
            )
        return bool(found)

    def hold(self, request: Mapping[str, Any]) -> List[int]:
        """The kernel starts: what keeps its engine; nothing if there is none any more."""
        joined = self._joined.pop(_name(request), None)
        path = ((joined or {}).get("engine") or {}).get("life")
        if not path:
            return []
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            os.write(descriptor, b"\n")
        except OSError:
            return []
        return [descriptor]


def _read(data: bytes) -> Answer:
    """The program's one line.  Whatever became of the engine, the kernel starts, and says it."""
    try:
        found = json.loads(data.decode("ascii"))
        return {"engine": dict(found["engine"]), "environment": dict(found["environment"])}
    except (ValueError, KeyError, TypeError):
        return _failed("its program failed, or did not answer within %g s" % _DEADLINE)


def _failed(why: str) -> Answer:
    text = "The engine could not be started: %s" % why
    advice = "Restart the kernel to try again"
    return {"engine": {"state": "failed", "text": text, "advice": advice}, "environment": {}}


def _name(request: Mapping[str, Any]) -> str:
    return "%s/%s" % (request["kernel"], request["life"])


def _key(request: Mapping[str, Any], around: Around) -> str:
    """Kernels that ask for the same have the same engine."""
    cluster = {name: value for name, value in request["cluster"].items() if name != "secrets"}
    same = [cluster, around.surroundings, around.spec.argv[0], request.get("unset")]
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode("ascii")).hexdigest()[:12]
