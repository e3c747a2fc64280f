"""What runs an engine's processes on one node, and ends them with itself.

The text of this file is sent to the other nodes over the stdin of whatever starts a program there (`launchers`), so it
imports nothing of ours.  The first line on stdin is the request; after it comes a byte every few seconds, and silence,
like the end, means that whoever wanted these processes is gone: a launcher that was killed need not close anything.

On stdout: lines ``NONCE {json}`` with ``node`` and ``state``: "starting" (``address``, ``pids``), "up", "lost" (one of
several processes has ended: ``text``), "ended" (``text``), and "alive" every few seconds; with ``echo`` in the request
also what the processes say.
"""

import ctypes
import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Set

#: A byte comes on stdin so often, and a node says that it is alive.
BEAT = 5.0
#: So long without, twice in a row, is the end (once may be a job that was suspended meanwhile).
SILENCE = 20.0
GRACE = 4.0
LONGEST_LINE = 4096
_KEPT = 40
_PLACE, _PREFIX, _LOCK = "/tmp", "farkernel-node-", "lock"
_PDEATHSIG, _SUBREAPER = 1, 36  # linux/prctl.h
_LIBC = ctypes.CDLL(None)

Request = Dict[str, Any]


def boot_words(pythons: List[str]) -> List[str]:
    """The command that reads [program, request] from its stdin, by the first of these Pythons that is there.

    No single quote, backslash or `!` in the words of Python: ssh joins words, and any shell may read them (DESIGN §4).
    """
    code = "import sys,json;p,r=json.loads(sys.stdin.buffer.readline().decode());exec(p)"
    look = 'for p; do command -v "$p" >/dev/null 2>&1 && exec "$p" -c "%s"; done; exit 127' % code
    return ["/bin/sh", "-c", look, "sh"] + pythons


# -- what a node is ------------------------------------------------------------------------------------------


def cpus(environment: Mapping[str, str]) -> int:
    """Those that our processes may use: a scheduler that binds nobody to cores says how many by a variable."""
    try:
        usable = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        usable = os.cpu_count() or 1
    for name in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS_PER_NODE", "NCPUS"):
        if re.match(r"[1-9][0-9]{0,5}\Z", environment.get(name, "")):
            return min(usable, int(environment[name]))
    if re.match(r"[1-9][0-9]{0,5}\Z", environment.get("SLURM_CPUS_ON_NODE", "")):
        return min(usable, int(environment["SLURM_CPUS_ON_NODE"]))
    return usable


def memory(environment: Mapping[str, str], usable: int) -> int:
    """Bytes that our processes may use: what the job has here, the control group's limit, or what the machine has."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    whole = environment.get("SLURM_MEM_PER_NODE", "")
    each = environment.get("SLURM_MEM_PER_CPU", "")
    if whole.isdigit() and int(whole):
        found.append(int(whole) << 20)
    elif each.isdigit() and int(each):
        found.append(int(each) * usable << 20)
    try:
        with open("/proc/self/cgroup") as stream:
            groups = [line.strip().split(":", 2) for line in stream]
        for number, controllers, path in groups:
            files = ["/sys/fs/cgroup%s/memory.max" % path] if number == "0" else []
            if "memory" in controllers.split(","):
                files = ["/sys/fs/cgroup/memory%s/memory.limit_in_bytes" % path]
            for name in files:
                with open(name) as stream:
                    found.append(int(stream.read()))
    except (OSError, ValueError):
        pass
    return min(found)


def address_towards(host: str) -> str:
    """Ours on the network by which we reach that host: nothing is sent for it."""
    for family, kind, protocol, _, where in socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM):
        with socket.socket(family, kind, protocol) as plug:
            try:
                plug.connect(where)
            except OSError:
                continue
            return str(plug.getsockname()[0]).partition("%")[0]
    raise OSError("there is no way to %s" % host)


# -- processes -----------------------------------------------------------------------------------------------


def be_reaper() -> None:
    """What our processes leave behind becomes our child, and can be ended."""
    _LIBC.prctl(_SUBREAPER, 1, 0, 0, 0)


def _die_with_parent() -> None:
    _LIBC.prctl(_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def start(argv: List[str], environment: Mapping[str, str], cwd: str, given: bool = False) -> Any:
    """A process in a session of its own whose stdout and stderr are one pipe; raises OSError.

    ``given``: its stdin is a pipe, too, whose end tells it that we are gone; the others are killed then.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE if given else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        cwd=cwd,
        preexec_fn=None if given else _die_with_parent,  # noqa: PLW1509 - we have one thread
        start_new_session=True,
    )
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    return process


def write_files(directory: str, files: Mapping[str, str]) -> None:
    """Private ones; the directory is."""
    for name, content in files.items():
        path = os.path.join(directory, name)
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        # A link in its place is replaced, and what it leads to stays.
        descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
        with os.fdopen(descriptor, "w") as stream:
            stream.write(content)
        os.rename(temporary, path)


def private_directory() -> str:
    """Not in the home, which all nodes may share; its path is short and of harmless characters.

    It is locked as long as we live: those that others of ours left behind when they were killed are removed.
    """
    for name in os.listdir(_PLACE):
        path = os.path.join(_PLACE, name)
        if name.startswith(_PREFIX) and os.lstat(path).st_uid == os.geteuid() and not os.path.islink(path):
            try:
                descriptor = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError:
                continue  # it is being made, or removed
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            except OSError:
                pass  # its owner lives
            os.close(descriptor)
    unlocked = tempfile.mkdtemp(prefix="farkernel-new-", dir=_PLACE)
    descriptor = os.open(os.path.join(unlocked, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    directory = unlocked.replace("farkernel-new-", _PREFIX)
    os.rename(unlocked, directory)
    return directory


def filled(text: str, values: Mapping[str, str]) -> str:
    """@NAME@ stands for a value that only the node knows."""
    return re.sub(r"@([A-Z]+)@", lambda match: values.get(match.group(1), match.group(0)), text)


def descendants() -> Set[int]:
    """All our children, and theirs."""
    parents: Dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name, "rb") as stream:
                    fields = stream.read().rpartition(b")")[2].split()
                if fields[0] != b"Z":
                    parents[int(name)] = int(fields[1])
            except (OSError, IndexError):
                continue
    found = {os.getpid()}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found - {os.getpid()}
        found |= more


def end_all(grace: float = GRACE) -> None:
    """Everything that was started from here ends, whatever group or session it went into."""
    deadline = time.monotonic() + grace
    _signal(descendants(), signal.SIGTERM)
    while _reap() or descendants():
        if time.monotonic() > deadline:
            _signal(descendants(), signal.SIGKILL)
        time.sleep(0.02)  # the ends of grandchildren are told to nobody


def _signal(pids: Set[int], signum: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, signum)
        except OSError:
            pass  # it went meanwhile


def _reap() -> bool:
    """Whether there are children left that live."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if not pid:
            return True


def how_it_ended(status: Optional[int]) -> str:
    if status is None:
        return "it has ended"
    if status < 0:
        try:
            return "it was ended by the signal %s" % signal.Signals(-status).name
        except ValueError:
            return "it was ended by the signal %d" % -status
    return "it ended with exit status %d" % status


class Lines(object):
    """The lines that come out of a pipe; the last of them are kept."""

    def __init__(self, descriptor: int, on_line: Callable[[str], None]) -> None:
        self.descriptor = descriptor
        self.last: List[str] = []
        self._on_line = on_line
        self._rest = b""

    def read(self) -> bool:
        """Whether there may be more."""
        try:
            data = os.read(self.descriptor, 65536)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LONGEST_LINE or not data:
            lines, self._rest = lines + [self._rest], b""
        for line in lines:
            text = line[:LONGEST_LINE].decode("utf-8", "replace").rstrip()
            if text:
                del self.last[: -_KEPT + 1]
                self.last.append(text)
                self._on_line(text)
        return bool(data)


# -- a node --------------------------------------------------------------------------------------------------


class Node(object):
    """One request: its processes from their start to their end."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._name = str(request.get("node") or os.environ.get("SLURMD_NODENAME") or os.uname()[1])
        self._up = re.compile(request["up"])
        self._lines: Dict[int, Lines] = {}
        self._processes: Dict[int, Any] = {}  # by the descriptor of its output
        self._ready: Set[int] = set()
        self._directory = ""

    def say(self, state: str, **more: Any) -> None:
        message = dict(more, node=self._name, state=state)
        try:
            os.write(1, ("%s %s\n" % (self._request["nonce"], json.dumps(message))).encode("ascii"))
        except OSError:
            pass  # nobody listens any more, and stdin will say so

    def run(self) -> None:
        """Until nobody wants it any more, or nothing is left of it."""
        be_reaper()
        self._directory = private_directory()
        try:
            self._begin()
            self._serve()
        finally:
            for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(signum, signal.SIG_IGN)
            # First, because a scheduler that ends a job does not wait for us; again, for what was written meanwhile.
            shutil.rmtree(self._directory, ignore_errors=True)
            end_all()
            shutil.rmtree(self._directory, ignore_errors=True)

    def _begin(self) -> None:
        request = self._request
        environment = dict(os.environ, **request["environment"])
        for name in request["unset"]:
            environment.pop(name, None)
        usable = cpus(environment)
        address = address_towards(request["head"])
        values = {
            "ADDRESS": address,
            "DIRECTORY": self._directory,
            "CPUS": str(usable),
            "MEMORY": str(memory(environment, usable)),
            "QUARTER": str(max(memory(environment, usable) // 4, 80 << 20)),
            "SHARE": str((memory(environment, usable) >> 20) * 3 // 4),
            "NODE": re.sub(r"[^A-Za-z0-9.-]", "-", self._name),
            "PID": str(os.getpid()),
        }
        files = {name: filled(content, values) for name, content in request["files"].items()}
        write_files(self._directory, files)
        argv = [filled(word, values) for word in request["argv"]]
        for _ in range(usable if request["copies"] == "cpus" else 1):
            process = start(argv, environment, self._directory)
            descriptor = process.stdout.fileno()
            self._processes[descriptor] = process
            self._lines[descriptor] = Lines(descriptor, self._reader_of(descriptor))
        self.say("starting", address=address, pids=[process.pid for process in self._processes.values()])

    def _reader_of(self, descriptor: int) -> Callable[[str], None]:
        return lambda line: self._line(descriptor, line)

    def _line(self, descriptor: int, line: str) -> None:
        if self._request.get("echo"):
            os.write(1, line.encode("utf-8", "replace") + b"\n")
        if self._up.search(line) and descriptor not in self._ready:
            self._ready.add(descriptor)
            if len(self._ready) == len(self._processes):
                self.say("up")

    def _serve(self) -> None:
        heard, said, silences = time.monotonic(), time.monotonic(), 0
        while self._processes:
            readable = select.select([0] + list(self._processes), [], [], BEAT)[0]
            now = time.monotonic()
            if now - said >= BEAT:
                said = now
                self.say("alive")
            if 0 in readable:
                heard, silences = now, 0
                if not os.read(0, 65536):
                    return
            elif now - heard >= SILENCE:
                heard, silences = now, silences + 1
                if silences == 2:
                    return
            for descriptor in readable:
                if descriptor and not self._lines[descriptor].read():
                    self._ended(descriptor)

    def _ended(self, descriptor: int) -> None:
        process = self._processes.pop(descriptor)
        lines = self._lines.pop(descriptor)
        try:
            status = process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()  # it closed its output, so that nothing would be known of it
            status = process.wait()
        process.stdout.close()
        state = "lost" if self._processes else "ended"
        self.say(state, text=how_it_ended(status), status=status, said=lines.last[-8:])


def main(request: Request) -> None:
    """Called by the words of `boot_words`."""

    def asked_to_end(signum: int, frame: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, asked_to_end)
    signal.signal(signal.SIGHUP, asked_to_end)
    node = Node(request)
    try:
        node.run()
    except OSError as error:
        node.say("ended", text=str(error), status=None, said=[])
        sys.exit(1)
