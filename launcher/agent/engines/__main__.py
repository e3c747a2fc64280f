"""``python3 engines.zip start DIRECTORY`` (request on stdin): the engine of that directory, from a running one or a new
one; one line of JSON when it is known how it stands.  ``check DIRECTORY`` (request on stdin): whether it is installed.
"""

import json
import os
import pkgutil
import shutil
import socket
import subprocess
import sys
from typing import Any, Dict, Optional

from . import supervisor, table
from .contract import Engine
from .state import because

_PATIENCE = supervisor.HEAD_PATIENCE + supervisor.WORKERS_PATIENCE + 30.0
_CHECK_PATIENCE = 60.0
_NODE = (pkgutil.get_data(__name__.rpartition(".")[0], "node.py") or b"").decode("utf-8") + "\nmain(r)\n"
Answer = Dict[str, Any]


def main() -> None:
    request = json.loads(sys.stdin.buffer.read().decode("utf-8"))
    if sys.argv[1] == "check":
        say(check(sys.argv[2], table.find(request["kind"]), request))
    else:
        say(start(sys.argv[2], request))


def say(answer: Answer) -> None:
    os.write(1, json.dumps(answer).encode("ascii") + b"\n")


# -- an engine -----------------------------------------------------------------------------------------------


def start(directory: str, request: Answer) -> Answer:
    """How it stands, what the kernel needs to connect (`environment`), and the pipe that keeps it (`life`)."""
    status = join(directory)
    if status is not None and is_flawed(status) and request["fresh"]:
        end(directory)
        status = None
    if status is None:
        begin(directory, request)
        status = join(directory)
    if status is None:
        raise SystemExit(1)
    try:
        with open(os.path.join(directory, supervisor.OUTCOME)) as stream:
            outcome = json.load(stream)
    except (OSError, ValueError):
        outcome = {"environment": {}}
    places = {
        "socket": os.path.join(directory, supervisor.SOCKET),
        "life": os.path.join(directory, supervisor.LIFE),
    }
    return {"engine": dict(status, **places), "environment": outcome["environment"]}


def is_flawed(status: Answer) -> bool:
    return status["state"] not in ("starting", "joining", "ready")


def begin(directory: str, request: Answer) -> None:
    """Its supervisor is on its way when this returns, and whoever connects to its socket is heard."""
    shutil.rmtree(directory, ignore_errors=True)  # of one that was killed
    os.mkdir(directory, 0o700)
    os.mkfifo(os.path.join(directory, supervisor.LIFE), 0o600)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(os.path.join(directory, supervisor.SOCKET))
    listener.listen(16)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            nothing = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(nothing, descriptor)
            supervisor.serve(directory, request, listener, _NODE)
        os._exit(0)
    os.wait()
    listener.close()


def connect(directory: str) -> Optional[socket.socket]:
    watcher = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    watcher.settimeout(_PATIENCE)
    try:
        watcher.connect(os.path.join(directory, supervisor.SOCKET))
    except OSError:
        watcher.close()
        return None
    return watcher


def join(directory: str) -> Optional[Answer]:
    """The first word of an engine that is there about itself that means something; None: there is none."""
    watcher = connect(directory)
    if watcher is None:
        return None
    with watcher, watcher.makefile("rb") as lines:
        try:
            for line in lines:
                status = json.loads(line.decode("ascii"))
                if status["state"] not in ("starting", "joining"):
                    return dict(status)
        except (OSError, ValueError):
            pass
    return None


def end(directory: str) -> None:
    """And wait until it has ended."""
    watcher = connect(directory)
    if watcher is not None:
        with watcher:
            try:
                watcher.sendall(b"end\n")
                while watcher.recv(65536):
                    pass
            except OSError:
                pass  # it has ended


# -- whether it could be started -----------------------------------------------------------------------------


def check(directory: str, engine: Engine, request: Answer) -> Answer:
    """``installed``: what it says of itself; or ``problem``, and perhaps ``advice``."""
    os.makedirs(directory, 0o700, exist_ok=True)  # what stands before it may write there
    try:
        return _check(engine, request)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _check(engine: Engine, request: Answer) -> Answer:
    argv = request["prefix"] + engine.version_words(request["python"])
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=request["environment"],
            timeout=_CHECK_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return {"problem": "%s cannot be looked for: %s" % (engine.title, error)}
    lines = done.stdout.decode("utf-8", "replace").split("\n")
    lines = [line for line in lines if line.strip()]
    package = engine.missing(lines)
    if package:
        text, advice = engine.lack(package)
        return {"problem": text, "advice": advice}
    if done.returncode or not lines:
        return {"problem": "%s does not run there%s" % (engine.title, because(lines))}
    return {"installed": "%s %s" % (engine.title, lines[-1].strip()[:100])}
