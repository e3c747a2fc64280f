"""``python3 probe.zip REQUEST``: looks at this machine, and writes one JSON document (docs/resources.md).

REQUEST is a JSON object: ``wanted`` (names of parts, or null: all), ``patience`` (seconds for each part), ``nvml``
(the path of the archive with pynvml.py, or null), ``python`` (the kernel's, or null), ``choose`` (see choice.py,
opencl_choice.py), ``root``.
"""

import contextlib
import importlib
import json
import os
import pkgutil
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Dict, Iterator, List

from . import (
    choice,
    cuda,
    disks,
    graphics,
    host,
    jetson,
    memory,
    nvidia,
    opencl,
    opencl_choice,
    processors,
    raspberrypi,
    sections,
    serials,
)

VERSION = 1
#: CPU use is what was done between two looks; closer together they say nothing.
_APART = 0.2
Found = Dict[str, Any]
_OPENCL = pkgutil.get_data(__name__.rpartition(".")[0], "opencl.py") or b""


def main() -> None:
    request = json.loads(sys.argv[1])
    wanted = request.get("wanted")
    if request.get("nvml") is None and (wanted is None or "nvidia" in wanted) and nvidia.has_library():
        # Without it there is nothing to be said about them, and it is sent only to those who need it.
        say({"need": "nvml"})
        return
    say(document(request))


def document(request: Found) -> Found:
    """Everything that was asked for."""
    with place_for_caches() as caches:
        os.environ.update(POCL_CACHE_DIR=caches, XDG_CACHE_HOME=caches, CUDA_CACHE_DISABLE="1")
        return _document(request)


@contextlib.contextmanager
def place_for_caches() -> Iterator[str]:
    """OpenCL's implementations write into the home when they are merely asked who they are (PoCL a file each time).

    Beside this program, which is in the agent's directory: should we be killed, it goes with the agent.
    """
    caches = tempfile.mkdtemp(prefix="caches-", dir=os.path.dirname(os.path.abspath(sys.argv[0])))
    try:
        yield caches
    finally:
        shutil.rmtree(caches, ignore_errors=True)


def _document(request: Found) -> Found:
    root, wanted = str(request.get("root") or "/"), request.get("wanted")
    began = time.monotonic()
    before = processors.times_now(root)
    chosen = [section for section in parts(root, request) if wanted is None or section.name in wanted]
    found = sections.run(chosen, float(request.get("patience") or 5.0))
    if "cpu" in found:
        time.sleep(max(began + _APART - time.monotonic(), 0.0))
        found["cpu"]["use"] = processors.use(before, processors.times_now(root))
    asked = request.get("choose")
    if asked and asked.get("opencl"):
        found["choice"] = opencl_choice.choose(found.get("opencl", []), found.get("gpus", []), asked)
    elif asked:
        found["choice"] = choice.choose(found.get("gpus", []), asked)
    found.update(version=VERSION, time=time.time(), took=round(time.monotonic() - began, 3))
    return found


def parts(root: str, request: Found) -> List[sections.Section]:
    environment = dict(os.environ)
    looks: Dict[str, Callable[[], Iterator[Found]]] = {
        "host": lambda: host.look(root),
        "cpu": lambda: processors.look(root),
        "memory": lambda: memory.look(root),
        "disks": lambda: disks.look(root, environment),
        "nvidia": lambda: look_at_nvidia(root, request.get("nvml")),
        "graphics": lambda: graphics.look(root),
        "jetson": lambda: jetson.look(root),
        "cuda": lambda: cuda.look(root, environment),
        "opencl": look_at_opencl,
        "raspberrypi": lambda: raspberrypi.look(root),
        "boards": lambda: serials.look(root),
    }
    if request.get("python"):
        looks["opencl of the kernel"] = lambda: look_at_opencl_of(str(request["python"]))
    return [sections.Section(name, look) for name, look in looks.items()]


def look_at_nvidia(root: str, archive: Any) -> Iterator[Found]:
    if archive is None:
        return
    sys.path.insert(0, str(archive))
    for found in nvidia.look(root, importlib.import_module("pynvml")):
        yield found


def look_at_opencl() -> Iterator[Found]:
    for platform in opencl.platforms():
        yield {"opencl": [dict(platform, where="host")]}


def look_at_opencl_of(python: str) -> Iterator[Found]:
    """By the kernel's own Python, which knows its environment."""
    child = subprocess.Popen(
        [python, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/"
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(_OPENCL)
        child.stdin.close()
    except OSError:
        pass  # it ended at once; that it did not come to the end of its work is said below
    done = False
    for line in child.stdout:
        try:
            found = json.loads(line.decode("utf-8"))
        except ValueError:
            continue  # something in that environment prints
        if isinstance(found, dict) and isinstance(found.get("platform"), dict):
            yield {"opencl": [dict(found["platform"], where=python)]}
        done = done or (isinstance(found, dict) and found.get("done") is True)
    if not done:
        yield {"problem": "%s could not say (exit status %s)" % (python, child.wait())}


def say(found: Found) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
