"""Parent of the kernels: holds their descriptors, so that a worker can be replaced without anybody's noticing.

The guard does as little as possible, so that it has as little as possible to die of.  It and the worker talk
over a pair of SOCK_SEQPACKET sockets, JSON with descriptors beside it:

worker → guard: {"hold": [names]} with as many descriptors; {"drop": prefix}; {"spawn": directory, "life"};
    {"end": true}
guard → worker: {"spawned": directory, "life", "pid", "start"} with the output pipe; {"refused": directory,
    "life", "what"}; {"exited": directory, "life", "status"}

If the worker dies, the guard forks another, which inherits all that is held.  If the guard dies, the worker
forks another; in a batch job, whose script waits for the guard, it ends all instead.
"""

import array
import json
import os
import select
import signal
import socket
import time
from typing import Any, Dict, List, Optional, Tuple

from . import records, spawn
from .log import Log

MOST_DESCRIPTORS = 16
LARGEST_PACKET = 65536
#: A worker that lived shorter than that died of something that its successor may die of too.
SHORT_LIFE = 10.0
PAUSE = 0.05
LONGEST_PAUSE = 5.0
#: So many may die young one after the other before the pause grows.
PATIENCE = 20


class Held(object):
    """Descriptors by name; in each of the two processes, with its own numbers."""

    def __init__(self) -> None:
        self.descriptors: Dict[str, int] = {}

    def put(self, name: str, descriptor: int) -> None:
        old = self.descriptors.get(name)
        if old is not None:
            os.close(old)
        self.descriptors[name] = descriptor

    def find(self, prefix: str) -> List[int]:
        return [descriptor for name, descriptor in self.descriptors.items() if name.startswith(prefix)]

    def drop(self, prefix: str) -> None:
        for name in [name for name in self.descriptors if name.startswith(prefix)]:
            os.close(self.descriptors.pop(name))


def send(channel: socket.socket, message: Dict[str, Any], descriptors: List[int]) -> None:
    """One packet; raises OSError when the other side is gone."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    channel.sendmsg([json.dumps(message).encode("ascii")], rights)


def receive(channel: socket.socket) -> Tuple[Optional[Dict[str, Any]], List[int]]:
    """One packet; None when the other side is gone."""
    size = array.array("i").itemsize
    try:
        data, ancillary, _, _ = channel.recvmsg(LARGEST_PACKET, socket.CMSG_LEN(MOST_DESCRIPTORS * size))
    except ConnectionResetError:
        return None, []
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % size])
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return (json.loads(data.decode("ascii")) if data else None), list(descriptors)


def wait_readable(descriptors: List[int], timeout: Optional[float]) -> List[int]:
    """Not `select`, which takes no numbers over 1023: with 200 kernels there are more."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(None if timeout is None else timeout * 1000)]


class WorkerNeeded(Exception):
    """Raised in a child that the guard forked: unwind, so that nothing of the guard is kept, and be the worker."""

    def __init__(self, channel: socket.socket, held: Held, children: List[int]) -> None:
        super().__init__()
        self.channel = channel
        self.held = held
        self.children = children


class Guard(object):
    """Runs until the worker says so.  `run` raises `WorkerNeeded` in the children that it forks."""

    def __init__(self, held: Held, log: Log, channel: Optional[socket.socket] = None) -> None:
        self.held = held
        self._log = log
        self._channel = channel  # to a worker that made us its guard
        self._children: Dict[int, Tuple[str, int]] = {}
        self._worker = 0
        self._ending = False

    def run(self) -> None:
        wake, its_wake = os.pipe()
        os.set_blocking(its_wake, False)
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, _nothing)
        signal.signal(signal.SIGTERM, self._pass_on)
        signal.set_wakeup_fd(its_wake)
        pause = PAUSE
        early_deaths = 0
        while not self._ending:
            began = time.monotonic()
            if self._channel is None:
                self._fork_worker(wake, its_wake)
            self._serve(wake)
            if self._ending:
                return
            lived = time.monotonic() - began
            early_deaths = 0 if lived > SHORT_LIFE else early_deaths + 1
            pause = PAUSE if early_deaths < PATIENCE else min(pause * 2, LONGEST_PAUSE)
            self._log("the worker died after %.1f s; another in %.2f s" % (lived, pause))
            deadline = time.monotonic() + pause
            while time.monotonic() < deadline:
                wait_readable([wake], max(deadline - time.monotonic(), 0.0))
                self._reap(wake)

    def _fork_worker(self, wake: int, its_wake: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            ours.close()
            os.close(wake)
            os.close(its_wake)
            raise WorkerNeeded(theirs, self.held, list(self._children))
        theirs.close()
        self._worker = pid
        self._channel = ours

    def _serve(self, wake: int) -> None:
        """Until the worker is gone."""
        channel = self._channel
        if channel is None:
            return
        while True:
            readable = wait_readable([channel.fileno(), wake], None)
            if wake in readable:
                self._reap(wake)
            if channel.fileno() in readable:
                message, descriptors = receive(channel)
                if message is None:
                    break
                self._obey(message, descriptors)
        channel.close()
        self._channel = None
        self._reap(wake)

    def _obey(self, message: Dict[str, Any], descriptors: List[int]) -> None:
        if "hold" in message:
            for name, descriptor in zip(message["hold"], descriptors):
                self.held.put(name, descriptor)
        elif "drop" in message:
            self.held.drop(message["drop"])
        elif "spawn" in message:
            self._spawn(message["spawn"], message["life"])
        elif "end" in message:
            self._ending = True

    def _spawn(self, directory: str, life: int) -> None:
        try:
            spawned = spawn.spawn(directory, life, self.held.find(lease_prefix(directory)))
        except (spawn.SpawnFailed, OSError) as error:
            self._tell({"refused": directory, "life": life, "what": str(error)}, [])
            return
        self._children[spawned.pid] = (directory, life)
        self.held.put(output_name(directory), spawned.output)
        answer = {"spawned": directory, "life": life, "pid": spawned.pid, "start": spawned.start}
        self._tell(answer, [spawned.output])

    def _reap(self, wake: int) -> None:
        try:
            while os.read(wake, 512):
                pass
        except BlockingIOError:
            pass
        for pid, status in spawn.wait_all():
            if pid not in self._children:
                continue  # a former worker
            directory, life = self._children.pop(pid)
            try:
                facts = {"pid": pid, "status": status, "time": time.time()}
                records.write(spawn.exit_record(directory, life), facts)
            except OSError as error:
                self._log("the end of process %d could not be written down: %s" % (pid, error))
            self._tell({"exited": directory, "life": life, "status": status}, [])

    def _tell(self, message: Dict[str, Any], descriptors: List[int]) -> None:
        if self._channel is None:
            return  # the next worker reads it from the disk
        try:
            send(self._channel, message, descriptors)
        except OSError:
            pass  # the worker has just died: the same

    def _pass_on(self, signum: int, frame: object) -> None:
        """SIGTERM ends the agent in good order, and that is the worker's work."""
        if self._worker:
            try:
                os.kill(self._worker, signal.SIGTERM)
            except ProcessLookupError:
                pass


def _nothing(signum: int, frame: object) -> None:
    """A handler must be there, or the system does not wake us."""


def lease_prefix(directory: str) -> str:
    """Not among the kernel's other descriptors, which go when it ends: leases stay a little longer."""
    return "lease:%s/" % directory


def output_name(directory: str) -> str:
    return directory + "/output"
