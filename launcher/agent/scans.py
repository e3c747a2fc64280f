"""Looks for kernels on this machine in a child of its own, with a deadline (`environments.py`)."""

import base64
import json
import os
import pkgutil
import signal
import subprocess
import sys
from typing import Any, Callable, Dict, List, Mapping

from .loop import Loop
from .problems import Problem
from .specs import NOTHING, asked, complete_argv, complete_environment, directories, find_program, with_shell

#: Kept from the beginning: the archive may be gone when an agent has run for months.
# By __name__, because zipimport before Python 3.10 sets __package__ only after this has run.
_PROGRAM = pkgutil.get_data(__name__.rpartition(".")[0], "environments.py") or b""
_BOOT = "import sys; exec(compile(sys.stdin.buffer.read(), 'environments.py', 'exec'))"
_LARGEST = 4 << 20
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


class Scan(object):
    """One child.  ``done`` is called once, with what it found up to its end or the deadline."""

    def __init__(self, loop: Loop, deadline: float, done: Callable[[Answer], None]) -> None:
        self._loop = loop
        self._done = done
        self._data = b""
        request = json.dumps({"kernelspecs": directories(os.environ)})
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOT, request],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise ScanFailed(str(error)) from None
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._stdout = self._child.stdout
        os.set_blocking(self._stdout.fileno(), False)
        try:
            # Less than a pipe takes (64 KiB): this does not wait for the child.
            self._child.stdin.write(_PROGRAM)
            self._child.stdin.close()
        except OSError:
            pass  # it ended at once; its silence says so
        self._timer = loop.later(min(max(deadline, 0.0), LONGEST), self._finish)
        loop.watch(self._stdout.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._stdout.fileno(), 65536)
        except BlockingIOError:
            return
        self._data += data
        if not data or len(self._data) > _LARGEST:
            self._finish()

    def _finish(self) -> None:
        self._timer.cancel()
        self._loop.forget(self._stdout.fileno())
        self._stdout.close()
        try:
            os.killpg(self._child.pid, signal.SIGKILL)
        except OSError:
            pass  # it has ended by itself
        self._reap()
        self._done(sorted_out(self._data))

    def _reap(self) -> None:
        """A child that hangs in a dead file system cannot even be killed: its end is not waited for."""
        if self._child.poll() is None:
            self._loop.later(1.0, self._reap)


def sorted_out(data: bytes) -> Answer:
    """The child's lines as an answer; `complete` when it came to the end of its search."""
    found: Dict[str, List[Answer]] = {"kernelspec": [], "environment": []}
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
    return {"kernelspecs": found["kernelspec"], "environments": found["environment"], "complete": complete}


def look_up(request: Mapping[str, Any]) -> Answer:
    """What a `start` with these arguments would run; raises what it would raise, and starts nothing."""
    environment = complete_environment(os.environ, NOTHING, {}, [])
    spec = asked(dict(request), environment)
    environment = complete_environment(os.environ, spec, {}, [])
    argv = complete_argv(spec, "{connection_file}")
    answer: Answer = {
        "argv": argv,
        "directory": spec.directory,
        "display_name": spec.display_name,
        "language": spec.language,
        "program": None,
    }
    before = request.get("before")
    if before:
        find_program(with_shell(argv, str(before)), environment, "/")
    else:
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
