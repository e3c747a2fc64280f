"""Entry of the agent's archive: ``python3 archive.zip serve --directory D [--ready-fd N]`` (or ``--allocation A``).

Everything is imported here and now: the archive may be gone when an agent has run for months.
"""

import gc
import os
import signal
import socket
import sys
import time
from typing import Dict, List, Optional

from . import places
from .guard import Guard, Held, WorkerNeeded
from .log import Log
from .spawn import raise_limit
from .worker import LISTENER, LOCK, GuardNeeded, Worker, listen

_PATIENCE = 5.0
_USAGE = """\
usage: farkernel-agent serve (--directory DIRECTORY | --allocation NAME) [--ready-fd N]
  --directory   the agent's directory
  --allocation  instead of it: the allocation's name, for a directory in the usual place
  --ready-fd    gets one byte when the agent listens
"""
BUSY = 3


def main(arguments: Optional[List[str]] = None) -> None:
    chosen = _options(sys.argv[1:] if arguments is None else arguments)
    if chosen is None:
        sys.stderr.write(_USAGE)
        sys.exit(2)
    directory = chosen.get("--directory")
    if directory is None:
        directory = places.agent_directory(places.private_directory(), chosen["--allocation"])
    ready = chosen.get("--ready-fd")
    sys.exit(serve(directory, None if ready is None else int(ready)))


def _options(words: List[str]) -> Optional[Dict[str, str]]:
    """None where they make no sense.  (argparse takes a tenth of the agent's whole start.)"""
    options = dict(zip(words[1::2], words[2::2]))
    if words[:1] != ["serve"] or 2 * len(options) != len(words) - 1:
        return None
    if set(options) - {"--directory", "--allocation", "--ready-fd"}:
        return None
    if ("--directory" in options) == ("--allocation" in options) or not options.get(
        "--ready-fd", "0"
    ).isdigit():
        return None
    return options


def serve(directory: str, ready: Optional[int]) -> int:
    lock = _lock(directory)
    if lock is None:
        return BUSY
    log = Log(os.path.join(directory, "log"), "guard")
    log("agent starts, Python %s" % sys.version.split()[0])
    raise_limit()
    held = Held()
    held.put(LOCK, lock)
    held.put(LISTENER, listen(directory).detach())
    if ready is not None:
        os.write(ready, b"1")
        os.close(ready)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _be(Guard(held, log), directory)
    return 0


def _lock(directory: str) -> Optional[int]:
    """One agent for each directory; the former may be about to end."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        lock = places.lock_directory(directory)
        if lock is not None or time.monotonic() > deadline:
            return lock
        if _listens(directory):
            return None
        time.sleep(0.05)


def _listens(directory: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.path.join(directory, "socket"))
        except OSError:
            return False
    return True


def _be(guard: Guard, directory: str) -> None:
    """Guard or worker, whichever this process is; forks change it."""
    role: Optional[Guard] = guard
    needed: Optional[WorkerNeeded] = None
    while True:
        if role is not None:
            needed = _run_guard(role)
            role = None
        if needed is None:
            return
        held, channel, children = needed.held, needed.channel, needed.children
        needed = None
        replaced = _run_worker(directory, channel, held, children)
        if replaced is None:
            return
        _close_all_but(replaced)
        role = Guard(replaced.held, Log(os.path.join(directory, "log"), "guard"), replaced.channel)


def _run_guard(guard: Guard) -> Optional[WorkerNeeded]:
    try:
        guard.run()
    except WorkerNeeded as needed:
        return needed.with_traceback(None)
    return None


def _run_worker(
    directory: str, channel: socket.socket, held: Held, children: List[int]
) -> Optional[GuardNeeded]:
    log = Log(os.path.join(directory, "log"), "worker")
    try:
        Worker(directory, channel, held, children, log).run()
    except GuardNeeded as needed:
        return needed.with_traceback(None)
    return None


def _close_all_but(needed: GuardNeeded) -> None:
    """What the worker had open, and the new guard must not keep open: the keeper's connection above all."""
    gc.collect()
    keep = {0, 1, 2, needed.channel.fileno()} | set(needed.held.descriptors.values())
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            try:
                os.close(int(name))
            except OSError:
                pass  # the descriptor of this listing


if __name__ == "__main__":
    main()
