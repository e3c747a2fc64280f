"""Holds an engine: its head on this node, what starts its workers on the others, and those who want to know of it.

It ends, and all of the engine with it, when nobody holds its pipe `life` open any more: kernels do, by a descriptor
that they inherit (`agent.leases` for what that means), and so it ends with the last of them, whatever else was killed.
"""

import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import time
import traceback
from typing import Any, Callable, Dict, List, Optional

from . import launchers, node, table
from .contract import First, Program
from .state import State, Status

SOCKET, LIFE, LOG, OUTCOME = "socket", "life", "log", "outcome.json"
_LARGEST_LOG = 1 << 20
_ALIVE = '"state": "alive"}'
#: A head is waited for that long, and its workers afterwards; the kernel starts then in any case.
HEAD_PATIENCE, WORKERS_PATIENCE = 120.0, 45.0
#: A node of which nothing is heard for so long has failed, or cannot be reached.
_SILENT = 30.0
#: Nobody has taken hold of it since it was ready: whoever asked for it is gone.
_UNCLAIMED = 60.0
_COMMAND_PATIENCE = 20.0

Request = Dict[str, Any]


class Supervisor(object):
    """From the start of the head to the end of everything."""

    def __init__(self, directory: str, request: Request, listener: socket.socket, node_text: str) -> None:
        self.directory = directory
        self._request = request
        self._node_text = node_text
        self._engine = table.find(request["kind"])
        self._launcher = launchers.LAUNCHERS["ssh"]
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._status = Status(self._engine, [], HEAD_PATIENCE, os.path.join(directory, LOG))
        self._watchers: List[socket.socket] = []
        self._told = b""
        self._processes: List[Any] = []
        self._others: List[str] = []
        self._first: Optional[First] = None
        self._deadline: Optional[float] = time.monotonic() + HEAD_PATIENCE
        self._unclaimed: Optional[float] = None
        self._beat = 0.0
        self._heard: Dict[str, float] = {}
        self._ending = False
        self._log = os.open(os.path.join(directory, LOG), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._logged = 0
        self._life = os.open(os.path.join(directory, LIFE), os.O_RDONLY | os.O_NONBLOCK)

    # -- life ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        node.be_reaper()
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._asked_to_end)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._life, selectors.EVENT_READ, self._life_says)
        try:
            self._begin()
            while not self._ending:
                for key, _ in self._selector.select(self._longest_wait()):
                    key.data()
                self._look_at_clocks()
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            shutil.rmtree(self.directory, ignore_errors=True)
            node.end_all()
            shutil.rmtree(self.directory, ignore_errors=True)

    def _asked_to_end(self, signum: int, frame: object) -> None:
        self._ending = True

    def _begin(self) -> None:
        try:
            if self._request.get("container") and not self._engine.contained:
                raise launchers.NoNodes("it runs in no container: take container out of the target")
            self._others = self._find_others()
            names = self._others or [os.environ.get("SLURMD_NODENAME") or os.uname()[1]]
            self._status.node_names(names)
            cpus = node.cpus(self._request["environment"])
            self._first = First(
                self._own_address(),
                self.directory,
                self._request["python"],
                self._request["environment"],
                self._request["secrets"],
                names,
                node.memory(self._request["environment"], cpus),
                cpus,
                sorted(self._request["extra"]),
                self._launcher.by(self._request["environment"]),
            )
            program = self._engine.head(self._first)
            node.write_files(self.directory, program.files)
            for own, theirs in self._engine.links(self._first).items():
                link_all(self._path(own), theirs)
            self._start_head(program)
        except (launchers.NoNodes, OSError, subprocess.SubprocessError) as error:
            self._status.head_ended(str(error), [])
            self._changed()

    def _longest_wait(self) -> Optional[float]:
        times = [each for each in (self._deadline, self._unclaimed) if each is not None]
        if self._processes:
            times.append(self._beat)
        return max(min(times) - time.monotonic(), 0.0) if times else None

    def _look_at_clocks(self) -> None:
        now = time.monotonic()
        if self._processes and now >= self._beat:
            self._beat = now + node.BEAT
            for process in self._processes:
                self._give(process, b"\n")
            self._look_at_nodes(now)
        if self._deadline is not None and now >= self._deadline:
            self._deadline = None
            self._status.late()
            self._changed()
        if self._unclaimed is not None and now >= self._unclaimed:
            self._ending = True

    def _look_at_nodes(self, now: float) -> None:
        """A launcher need not say that a node has failed: srun and ssh wait for minutes, or for ever."""
        for name, heard in list(self._heard.items()):
            if now - heard > _SILENT:
                del self._heard[name]
                self._status.node_said(name, "silent", "nothing has been heard of it for %g s" % _SILENT)
                self._changed()

    def _life_says(self) -> None:
        """A byte for each that takes hold; the end when the last has let go."""
        if os.read(self._life, 4096):
            self._unclaimed = None
        else:
            self._ending = True

    # -- where --------------------------------------------------------------------------------------------------

    def _find_others(self) -> List[str]:
        wanted = int(self._request["nodes"])
        if wanted <= 1:
            return []
        self._launcher = launchers.find(self._request["launcher"])
        given = self._request["hosts"]
        if given:
            return launchers.checked(given)[: wanted - 1]
        environment = self._request["environment"]
        words = self._launcher.look(environment)
        said = self._ask(words) if words else ""
        hosts = launchers.checked(self._launcher.nodes(environment, said))
        found = launchers.others(hosts, environment, os.uname()[1])
        if not found:
            raise launchers.NoNodes("no other nodes are known than this one, and %d were asked for" % wanted)
        return found

    def _own_address(self) -> str:
        """By which the others reach us: on the network that leads to the first of them."""
        if not self._others:
            return "127.0.0.1"
        host = self._others[0]
        words = self._launcher.resolve(host)
        said = self._ask(words).split() if words else []
        for name in (launchers.resolved(said), host.rpartition("@")[2], os.uname()[1]):
            try:
                return node.address_towards(name)
            except OSError:
                continue
        raise launchers.NoNodes("there is no way to %s" % host)

    def _ask(self, words: List[str]) -> str:
        said = subprocess.check_output(
            words,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._request["environment"],
            timeout=_COMMAND_PATIENCE,
        )
        return said.decode("utf-8", "replace")

    # -- processes ----------------------------------------------------------------------------------------------

    def _words(self, prefix: List[str], program: Program) -> List[str]:
        """The engine's variables are set last: modules and shell lines before it do not know of them."""
        pairs = ["%s=%s" % pair for pair in sorted(program.environment.items())]
        return prefix + (["env"] + pairs if pairs else []) + program.argv

    def _run(
        self,
        words: List[str],
        on_line: Callable[[str], None],
        on_end: Callable[[str, List[str]], None],
        given: bytes,
    ) -> None:
        """A program that ends when its stdin does, and one of `node`'s at the end of it."""
        process = node.start(words, self._request["environment"], self.directory, True)
        self._processes.append(process)

        def line(text: str) -> None:
            if not text.endswith(_ALIVE):
                self._note(text)
            on_line(text)

        lines = node.Lines(process.stdout.fileno(), line)

        def readable() -> None:
            if lines.read():
                return
            self._selector.unregister(process.stdout)
            process.stdout.close()
            self._processes.remove(process)
            try:
                status: Optional[int] = process.wait(node.GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
            try:
                process.stdin.close()
            except OSError:
                pass  # a beat that it did not take
            on_end(node.how_it_ended(status), lines.last[-8:])

        self._selector.register(process.stdout, selectors.EVENT_READ, readable)
        self._give(process, given)
        # From now on only beats, of which one may be left out.
        os.set_blocking(process.stdin.fileno(), False)

    def _give(self, process: Any, data: bytes) -> None:
        try:
            process.stdin.write(data)
            process.stdin.flush()
        except OSError:
            pass  # it has ended, or is full of beats

    def _start_head(self, program: Program) -> None:
        """As a node of its own, whose end comes with ours, also when we are killed."""
        nonce = os.urandom(16).hex()
        request = {
            "node": "head",
            "nonce": nonce,
            "head": "127.0.0.1",
            "environment": {},
            "unset": [],
            "argv": self._words(self._request["prefix"], program),
            "files": {},
            "up": "$^",
            "copies": "one",
            "echo": True,
        }

        def line(text: str) -> None:
            said = _said(nonce, text)
            if said is None:
                self._head_line(text)
            elif said["state"] == "starting":
                self._status.facts["pid"] = said["pids"][0]
            elif said["state"] == "ended":
                self._head_ended(str(said.get("text")), said.get("said") or [])

        self._run(
            node.boot_words(self._request["pythons"]),
            line,
            lambda how, said: self._head_ended(how, []),
            self._given(request),
        )

    def _given(self, request: Request) -> bytes:
        return json.dumps([self._node_text, request]).encode("ascii") + b"\n"

    def _head_line(self, line: str) -> None:
        before = self._status.state
        if self._status.head_line(line):
            try:
                self._start_workers()
            except OSError as error:
                self._status.launcher_ended(list(self._status.nodes), str(error), [])
            self._deadline = time.monotonic() + WORKERS_PATIENCE
        if self._status.state is not before:
            self._changed()

    def _head_ended(self, how: str, said: List[str]) -> None:
        self._status.head_ended(how, said)
        self._changed()

    def _start_workers(self) -> None:
        assert self._first is not None
        environment = self._request["environment"]
        for name in self._engine.reads:
            if os.path.exists(self._path(name)):
                with open(self._path(name), errors="replace") as stream:
                    self._status.facts[name] = stream.read()
        node.write_files(self.directory, self._engine.files(self._first, self._status.facts))
        program = self._engine.workers(self._first, self._status.facts)
        boot = node.boot_words(self._request["pythons"])
        if self._engine.spreads or not self._others:
            self._start_nodes(boot, program, list(self._status.nodes))
        elif self._launcher.together:
            words = launchers.command(self._launcher, self._others, boot, environment)
            self._start_nodes(words, program, self._others)
        else:
            for host in self._others:
                words = launchers.command(self._launcher, [host], boot, environment)
                self._start_nodes(words, program, [host])

    def _start_nodes(self, words: List[str], program: Program, names: List[str]) -> None:
        assert self._first is not None
        spreads = self._engine.spreads
        nonce = os.urandom(16).hex()
        request = {
            "node": names[0] if len(names) == 1 else None,
            "nonce": nonce,
            "head": self._first.address,
            "environment": self._request["extra"],
            "unset": self._request["unset"],
            "argv": self._words(self._request["prefix" if spreads else "node_prefix"], program),
            "files": program.files,
            "up": program.up,
            "copies": program.copies,
        }

        def line(text: str) -> None:
            message = _said(nonce, text)
            if message is not None:
                (self._all_said if spreads else self._node_said)(names, message)
                self._changed()

        def ended(how: str, said: List[str]) -> None:
            lines = [one for one in said if nonce not in one]
            if spreads:
                self._status.workers_ended(how, lines)
            else:
                self._status.launcher_ended(names, how, lines)
            self._changed()

        self._run(words, line, ended, self._given(request))

    def _node_said(self, names: List[str], said: Request) -> None:
        name = said["node"] if said["node"] in names else names[0]
        self._heard[name] = time.monotonic()
        processes = len(said.get("pids") or [])
        self._status.node_said(name, said["state"], str(said.get("text") or ""), _lines(said), processes)
        if said["state"] == "ended":
            del self._heard[name]

    def _all_said(self, names: List[str], said: Request) -> None:
        """Of an engine that spreads: one program speaks for all nodes."""
        assert self._first is not None
        if said["state"] == "ended":
            self._status.workers_ended(str(said.get("text") or ""), _lines(said))
            return
        processes = self._engine.processes(self._first)
        for name in names:
            self._status.node_said(name, said["state"], processes=processes // len(names))

    # -- who wants to know --------------------------------------------------------------------------------------

    def _changed(self) -> None:
        status = self._status
        if status.settled and self._unclaimed is None and not os.path.exists(self._path(OUTCOME)):
            self._deadline, self._unclaimed = None, time.monotonic() + _UNCLAIMED
            self._write_outcome()
        if status.state in (State.FAILED, State.ENDED):
            self._deadline = None
            node.end_all()  # what is left of it is of no use
        data, former = self._line(), self._told
        self._told = data
        for watcher in list(self._watchers) if data != former else []:
            self._tell(watcher, data)

    def _write_outcome(self) -> None:
        """Only for those who start a kernel: what it must have in its environment."""
        environment = {}  # type: Dict[str, str]
        if self._status.works and self._first is not None:
            environment = self._engine.environment(self._first, self._status.facts)
        node.write_files(self.directory, {OUTCOME + ".new": json.dumps({"environment": environment})})
        os.rename(self._path(OUTCOME + ".new"), self._path(OUTCOME))

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def _line(self) -> bytes:
        return json.dumps(self._status.as_dict()).encode("ascii") + b"\n"

    def _accept(self) -> None:
        try:
            watcher, _ = self._listener.accept()
        except OSError:
            return
        watcher.setblocking(False)
        self._watchers.append(watcher)
        self._selector.register(watcher, selectors.EVENT_READ, lambda: self._watcher_says(watcher))
        self._tell(watcher, self._line())

    def _watcher_says(self, watcher: socket.socket) -> None:
        try:
            data = watcher.recv(256)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data.startswith(b"end"):
            self._ending = True
        if not data:
            self._forget(watcher)

    def _tell(self, watcher: socket.socket, data: bytes) -> None:
        try:
            if watcher.send(data) < len(data):
                self._forget(watcher)  # it takes nothing: it can ask again
        except OSError:
            self._forget(watcher)

    def _forget(self, watcher: socket.socket) -> None:
        if watcher in self._watchers:
            self._watchers.remove(watcher)
            self._selector.unregister(watcher)
            watcher.close()

    def _note(self, text: str) -> None:
        data = text.encode("utf-8", "replace") + b"\n"
        self._logged += len(data)
        if self._logged < _LARGEST_LOG:
            os.write(self._log, data)


def _said(nonce: str, text: str) -> Optional[Request]:
    """What a node's program says; None: something else said that line."""
    mark, _, rest = text.partition(" ")
    if mark != nonce:
        return None
    try:
        said = json.loads(rest)
        return said if isinstance(said["state"], str) and isinstance(said["node"], str) else None
    except (ValueError, KeyError, TypeError):
        return None


def _lines(said: Request) -> List[str]:
    return [str(each) for each in said.get("said") or []]


def link_all(own: str, theirs: str) -> None:
    """All that is in their directory (made, if that can be) is in ours, too, but for what we have ourselves."""
    os.makedirs(own, 0o700, exist_ok=True)
    try:
        os.makedirs(theirs, 0o700, exist_ok=True)
        names = os.listdir(theirs)
    except OSError:
        names = []
    for name in names:
        if not os.path.lexists(os.path.join(own, name)):
            os.symlink(os.path.join(theirs, name), os.path.join(own, name))


def serve(directory: str, request: Request, listener: socket.socket, node_text: str) -> None:
    """In a process of its own, which becomes the engine's."""
    try:
        Supervisor(directory, request, listener, node_text).run()
    except Exception:  # noqa: BLE001 - nobody is there to see it
        with open(os.path.join(os.path.dirname(directory), "crash"), "w") as stream:
            traceback.print_exc(file=stream)
    finally:
        os._exit(0)
