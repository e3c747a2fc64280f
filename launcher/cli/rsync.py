"""rsync between here and a target: its "remote shell" is a command of ours that goes through the keeper."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from typing import IO

from ..errors import FarkernelError, RemoteError
from ..text import clean, one_line
from .asking import Asking
from .far_command import FarCommand, run

TARGET = "FARKERNEL_RSYNC_TARGET"
_OLDEST = (3, 1)  # of 2013: --info, and arguments that no shell sees (-s)


class RsyncFailed(FarkernelError):
    kind = "rsync"

    def __init__(self, status: int, said: str) -> None:
        lines = [one_line(line) for line in said.splitlines() if line.strip()]
        first = next((line for line in lines if _TELLS.search(line)), lines[0] if lines else "")
        if re.search(r"(?i)no space left|quota", first):
            advice = "Make room there, and run it again: what is there already is not sent again"
        elif "Permission denied" in first:
            advice = "See who may write there; all other files were copied"
        else:
            advice = "Without rsync: --no-rsync"
        super().__init__(f"rsync ended with status {status}: {first or 'it said nothing'}", advice)


_TELLS = re.compile(r"\(\d+\)$|failed|error|denied|No such")


def is_there(client: Asking, target: str) -> bool:
    """Whether the far end has one that is new enough."""
    try:
        status, said, _ = run(client, target, ["rsync", "--version"])
    except RemoteError as error:
        if error.remote_kind == "no-command":
            return False
        raise
    found = re.search(rb"version (\d+)\.(\d+)", said)
    return status == 0 and found is not None and (int(found[1]), int(found[2])) >= _OLDEST


def copy(client: Asking, target: str, local: str, far: str, back: bool) -> tuple[int, int]:
    """Files and bytes that were copied; raises `RsyncFailed`."""
    directory = os.path.isdir(local) if not back else _is_directory(client, target, far)
    if directory:
        local, far = local.rstrip("/") + "/", far.rstrip("/") + "/"
    if back:
        os.makedirs(os.path.dirname(local) or ".", exist_ok=True)
    else:
        _make_directory(client, target, far)
    there = f"there:{far}" if not far.startswith("-") else f"there:./{far}"
    ends = [there, local] if back else [local, there]
    helper = shlex.join([sys.executable, "-P", "-m", __name__])
    command = ["rsync", "-s", "--recursive", "--links", "--perms", "--times", "--stats"]
    command += ["--info=progress2"] if sys.stderr.isatty() else []
    child = subprocess.Popen(
        [*command, "-e", helper, "--", *ends],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, TARGET: target, "LC_ALL": "C.UTF-8"},
    )
    said: list[bytes] = []
    if child.stdout is None or child.stderr is None:
        raise AssertionError("both are pipes")
    reading = threading.Thread(target=_collect, args=(child.stderr, said), daemon=True)
    reading.start()
    stats = _follow(child.stdout)
    status = child.wait()
    reading.join()
    if status:
        raise RsyncFailed(status, clean(b"".join(said).decode("utf-8", "replace"), keep="\n"))
    return _figure(stats, r"Number of regular files transferred: ([\d,.]+)"), _figure(
        stats, r"Total transferred file size: ([\d,.]+)"
    )


def _is_directory(client: Asking, target: str, far: str) -> bool:
    return run(client, target, ["test", "-d", far if not far.startswith("-") else f"./{far}"])[0] == 0


def _make_directory(client: Asking, target: str, far: str) -> None:
    above = far if far.endswith("/") else os.path.dirname(far)
    if above:
        status, _, said = run(client, target, ["mkdir", "-p", "--", above])
        if status:
            raise RsyncFailed(status, said)


def _collect(stream: IO[bytes], into: list[bytes]) -> None:
    into.append(stream.read(1 << 16))
    while stream.read(1 << 16):
        pass


def _follow(stream: IO[bytes]) -> str:
    """Shows the line that changes in place on a terminal; returns all the rest."""
    kept, line = b"", b""
    while byte := stream.read(1):
        if byte == b"\r":
            sys.stderr.write(f"\r{one_line(line.decode('utf-8', 'replace'))}\x1b[K")
            sys.stderr.flush()
            line = b""
        elif byte == b"\n":
            kept, line = (kept + line + byte)[-65536:], b""
        else:
            line += byte
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
    return (kept + line).decode("utf-8", "replace")


def _figure(stats: str, pattern: str) -> int:
    found = re.search(pattern, stats)
    return int(re.sub(r"[,.]", "", found[1])) if found else 0


# -- what rsync runs ---------------------------------------------------------------------------------------


def carry(arguments: list[str]) -> int:
    """`rsync -e`: a made-up host, then the server's command, whose stdin and stdout are ours."""
    target, argv = os.environ.get(TARGET, ""), arguments[1:]
    signal.signal(
        signal.SIGUSR1, signal.SIG_IGN
    )  # rsync's way to end us before the far end's last words are here
    os.set_blocking(1, True)  # rsync leaves it otherwise (its option --blocking-io)
    with Asking() as client:
        command = FarCommand(client, target, argv)
        sending = threading.Thread(target=_send, args=(command,), daemon=True)
        sending.start()
        try:
            while data := command.socket.recv(1 << 17):
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
        except ConnectionError:
            pass  # its end says why
        status, said = command.ended()
    if said:
        sys.stderr.write(clean(said, keep="\n") + "\n")
    return min(abs(status), 255)


def _send(command: FarCommand) -> None:
    import socket

    try:
        while data := os.read(0, 1 << 17):
            command.socket.sendall(data)
        command.socket.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the far end is through; what it said is read by the other thread


if __name__ == "__main__":
    sys.exit(carry(sys.argv[1:]))
