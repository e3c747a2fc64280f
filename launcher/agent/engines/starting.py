"""Starts of kernels that wait for an engine.  This part of the program works in the agent itself, which reads it from
the program that was brought (`agent.choosing.Clusters`): it imports nothing of ours, and is given what it needs there.

An engine is started, or found, by a child (`__main__.start`); the kernel holds its pipe `life`, as it holds leases.
"""

import hashlib
import json
import os
import re
import sys
from typing import Any, Callable, Dict, List, Mapping, Optional

#: Longer than the program takes in any case.
_DEADLINE = 240.0
_PYTHON = re.compile(r"(pypy|python)[0-9.]*\Z")

Answer = Dict[str, Any]
#: argv, what is written to its stdin, a deadline, and who is told what it wrote.
Child = Callable[[List[str], bytes, float, Callable[[bytes], None]], None]


class Starting(object):
    """``again`` is called with a request when it can go on, and the numbers of all that asked for it; without the
    request when nobody wants that any more.  ``prefix`` gives the words for what stands before a kernel of that
    request, in a directory, for a container of that name, with these variables.
    """

    def __init__(
        self,
        program: str,
        directory: str,
        child: Child,
        prefix: Callable[[Answer, str, str, List[str]], List[str]],
        again: Callable[[Optional[Answer], List[Any]], None],
    ) -> None:
        self._program = program
        self._directory = directory
        self._child = child
        self._prefix = prefix
        self._again = again
        self._waiting: Dict[str, List[Any]] = {}
        self._joined: Dict[str, Answer] = {}

    def of(self, request: Mapping[str, Any]) -> Optional[Answer]:
        """``engine``, ``environment``; None: it has to be begun."""
        return self._joined.get(_name(request))

    def begin(self, request: Answer, argv: List[str], env: Mapping[str, str], environment: Answer) -> None:
        """For a kernel with that command, its kernelspec's variables and its whole environment.

        Asked again while it goes on, the answer goes to both.
        """
        name = _name(request)
        if name in self._waiting:
            self._waiting[name].append(request["answer"])
            return
        numbers = self._waiting[name] = [request["answer"]]

        def done(data: bytes) -> None:
            if self._waiting.get(name) is not numbers:
                return  # it was stopped meanwhile
            del self._waiting[name]
            self._joined[name] = _read(data)
            self._again(request, numbers)

        directory = os.path.join(self._directory, _key(request, argv[0]))
        asked = self._asked(request, argv, env, environment, directory)
        try:
            self._run("start", directory, asked, done)
        except OSError as error:
            done(json.dumps(_failed(str(error))).encode("ascii"))

    def check(
        self,
        request: Answer,
        argv: List[str],
        env: Mapping[str, str],
        environment: Answer,
        done: Callable[[Answer], None],
    ) -> None:
        """Whether it is installed: ``installed``, or ``problem`` and perhaps ``advice``."""

        def checked(data: bytes) -> None:
            try:
                done(dict(json.loads(data.decode("ascii"))))
            except (ValueError, TypeError):
                done({"problem": "its check gave no answer"})

        directory = os.path.join(self._directory, "check")
        asked = self._asked(dict(request, life=1), argv, env, environment, directory)
        self._run("check", directory, asked, checked)

    def _run(self, act: str, directory: str, asked: Answer, done: Callable[[bytes], None]) -> None:
        words = [sys.executable, "-I", self._program, act, directory]
        self._child(words, json.dumps(asked).encode("ascii"), _DEADLINE, done)

    def _asked(
        self, request: Answer, argv: List[str], env: Mapping[str, str], environment: Answer, directory: str
    ) -> Answer:
        cluster = dict(request["cluster"])
        extra = dict(env, **cluster.get("environment") or {})
        container = "farkernel-engine-" + os.path.basename(directory)
        names = sorted(extra)
        return dict(
            cluster,
            prefix=self._prefix(request, directory, container, names),
            node_prefix=self._prefix(request, "@DIRECTORY@", container + "-@PID@", names),
            python=argv[0] if _PYTHON.match(os.path.basename(argv[0])) else "python3",
            pythons=[sys.executable, "python3", "python"],
            environment=environment,
            extra=extra,
            unset=[str(one) for one in request.get("unset") or []],
            fresh=int(request["life"]) > 1,
        )

    def cancel(self, kernel: str) -> bool:
        """Nobody wants it to start any more; whether it was about to."""
        found = [name for name in self._waiting if name.rpartition("/")[0] == kernel]
        for name in found:
            self._again(None, self._waiting.pop(name))
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
    """The child's one line.  Whatever became of the engine, the kernel starts, and says it."""
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


def _key(request: Mapping[str, Any], program: str) -> str:
    """Kernels that ask for the same have the same engine."""
    around = [request.get(name) for name in ("modules", "conda", "before", "container", "unset")]
    cluster = {name: value for name, value in request["cluster"].items() if name != "secrets"}
    same = [cluster, around, program]
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode("ascii")).hexdigest()[:12]
