"""esptool beside a board that is plugged in here, for somebody who cannot be here.

A program of its own.  From the near end: a line of JSON (the order), the image's bytes, then a line for each run of
esptool.  To it: ``ready`` or ``refused``, then for each run its lines as they come, and ``ended``.
"""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ..holds import Held, Hold, group_of, holder_of, plain
from ..problems import Problem
from ..serial_devices import busy, locate

#: Stands for the image's file in esptool's arguments.
IMAGE = "{image}"
# esptool 4 has underscores where 5 has hyphens (migration guide of esptool 5).
_OLDER = {
    "no-reset": "no_reset",
    "flash-id": "flash_id",
    "write-flash": "write_flash",
    "--flash-size": "--flash_size",
}
_VERSION = re.compile(r"v?(\d+)\.\d+")
_PATIENCE = 30.0  # for one esptool to say its version, on a slow machine with a cold disk


def say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def hear() -> Optional[Dict[str, Any]]:
    """The next line; None: the near end has gone."""
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return None
    heard = json.loads(line.decode("utf-8"))
    return heard if isinstance(heard, dict) else None


def environment() -> Dict[str, str]:
    """Plain output, at once, and no settings of somebody's esptool."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ESPTOOL_")}
    return dict(kept, NO_COLOR="1", TERM="dumb", PYTHONUNBUFFERED="1", PYTHONIOENCODING="utf-8")


def tools(python: str) -> Iterator[List[str]]:
    """Where esptool may be: the target's own Python, this one, programs, the system's Python."""
    if python:
        yield [os.path.expanduser(python), "-m", "esptool"]
    yield [sys.executable, "-m", "esptool"]
    path = os.environ.get("PATH", os.defpath) + os.pathsep + os.path.expanduser("~/.local/bin")
    for name in ("esptool", "esptool.py"):
        program = shutil.which(name, path=path)
        if program:
            yield [program]
    other = shutil.which("python3")
    if other:
        yield [other, "-m", "esptool"]


def version(command: List[str], place: str) -> Optional[int]:
    """Its major number; None: that is no esptool.  Numbers below 4 are too old for us."""
    try:
        said = subprocess.run(
            command + ["version"],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=place,
            env=environment(),
            timeout=_PATIENCE,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.match((said.decode("utf-8", "replace").split() or [""])[-1])
    return int(found.group(1)) if found else None


def find(python: str, place: str) -> Tuple[List[str], int]:
    """The newest; an empty command where there is none."""
    best = ([], 0)  # type: Tuple[List[str], int]
    for command in tools(python):
        number = version(command, place) or 0
        if number > best[1]:
            best = (command, number)
        if number >= 5:
            break
    return best


def run(command: List[str], place: str, device: str) -> None:
    """Its output line by line, whatever ends a line; then how it ended."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=place,
        env=environment(),
    )
    assert process.stdout is not None
    rest = b""
    try:
        while True:
            ready, _, _ = select.select([process.stdout, sys.stdin], [], [])
            if sys.stdin in ready:  # nothing is said to us while it runs: the near end has gone
                return
            piece = os.read(process.stdout.fileno(), 65536)
            lines = (rest + piece).replace(b"\r", b"\n").split(b"\n")
            rest = lines.pop()[-4096:]
            for line in lines + ([rest] if not piece else []):
                if line:
                    say(line=line.decode("utf-8", "replace"))
            if not piece:
                break
        status = process.wait()
        say(
            ended=status, group=group_of(device) if status else "", holder=holder_of(device) if status else ""
        )
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()


def serve(order: Dict[str, Any], place: str) -> None:
    """Raises `Problem`."""
    file = os.path.join(place, "image.bin")
    with open(file, "wb") as image:
        image.write(sys.stdin.buffer.read(int(order["size"])))
    device = locate(str(order["path"]))
    command, number = find(str(order.get("python") or ""), place)
    if number < 4:
        say(refused={"kind": "no-esptool", "found": number, "python": sys.executable})
        return
    try:
        hold = Hold.take(device, plain(str(order.get("purpose"))))
    except Held as error:
        raise busy(device, error.holder) from None
    try:
        say(ready=device, esptool=number)
        while True:
            heard = hear()
            if heard is None:
                return
            words = [file if word == IMAGE else str(word) for word in heard["run"]]
            words = ["--port", device] + (
                words if number >= 5 else [_OLDER.get(word, word) for word in words]
            )
            run(command + words, place, device)
    finally:
        hold.release()


def stop(number: int, frame: Any) -> None:
    """Once: what is said again, while it is tidied up, must not leave the image behind."""
    signal.signal(number, done_already)
    sys.exit(1)


def done_already(number: int, frame: Any) -> None:
    """Not SIG_IGN, which esptool would inherit."""


def main() -> None:
    signal.signal(signal.SIGTERM, done_already)  # so early the end of stdin says the same
    order = hear()
    if order is None:
        return
    place = tempfile.mkdtemp(prefix="farkernel-")
    try:
        try:
            signal.signal(signal.SIGTERM, stop)
            serve(order, place)
        finally:
            signal.signal(signal.SIGTERM, done_already)
    except Problem as error:
        say(refused=error.as_dict())
    except OSError as error:
        say(refused={"kind": "flash", "what": "it cannot be done there: %s" % error, "advice": "See to that"})
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
