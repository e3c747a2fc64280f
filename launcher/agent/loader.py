"""What the boot script runs on every connection: finds or starts the agent, and hands it this connection.

Its text goes to the far end together with places.py (backends/archive.py joins them), so: Python 2.7 and 3
syntax, ASCII. The contract is docs/architecture.md, section 3.  Arguments are in FARKERNEL_BOOT: nonce,
sha256 and size of the archive, allocation, HELLO (base64).
"""

import sys

if sys.version_info < (3, 6):
    sys.exit(99)
try:
    import _ctypes
    import mmap
    import socket
    import zlib
except ImportError:
    # The boot script leaves `site` out (-S), which often takes longer than all else here.  But in a virtualenv of
    # before 2020 it is what finds the standard library.
    import site

    site.main()
    try:
        import _ctypes  # noqa: F401
        import mmap  # noqa: F401
        import socket
        import zlib  # noqa: F401
    except ImportError:
        # A stripped Python, in which the agent would not run: the boot script tries the next one.
        sys.exit(99)

# What is seldom needed is imported where it is: somebody waits.
import errno
import hashlib
import os
import select
import struct
import time

from .places import PlaceError, agent_directory, flock, lock_directory, private_directory, subdirectory

START_DEADLINE = 20.0
COMPILE_AFTER = 1.0
UNUSED_DAYS = 30
LOG_TAIL = 1500
JOB = "job:"  # an allocation whose name begins so brings its agent with it


class LoaderError(Exception):
    """What the keeper is told on an error line."""

    def __init__(self, kind, what, advice, final=True):
        # type: (str, str, str, bool) -> None
        Exception.__init__(self, what)
        self.answer = {"kind": kind, "what": what, "advice": advice, "final": final}


class Loader(object):
    """One connection: stdin and stdout, and what the keeper gave us about the agent that it wants."""

    def __init__(self, nonce, sha256, size, allocation, hello):
        # type: (str, str, str, str, str) -> None
        self.nonce = nonce
        self.sha256 = sha256
        self.size = int(size)
        self.allocation = allocation
        self.hello = hello
        self.private = private_directory()
        self.directory = agent_directory(self.private, allocation)
        self.uncompiled = None  # type: str | None

    def run(self):
        # type: () -> None
        """Hand the connection over, and wait until the agent is done with it."""
        agent = self.connect() or (self.expect() if self.allocation.startswith(JOB) else self.start())
        # The agent reads and writes the connection itself: nothing is copied in between.
        about = ('{"nonce": "%s", "hello": "%s"}\n' % (self.nonce, self.hello)).encode("ascii")
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("2i", 0, 1))]
        agent.sendmsg([about], rights)
        # Our own copies would keep the pipes open after the agent closed its ends.
        for number in (0, 1):
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, number)
            os.close(nothing)
        self.compile(agent)
        while agent.recv(4096):
            pass

    def compile(self, agent):
        # type: (socket.socket) -> None
        """There is nothing else to do: see to it that the next agent starts faster."""
        if self.uncompiled and not select.select([agent], [], [], COMPILE_AFTER)[0]:
            os.nice(19)
            sys.path.insert(0, self.uncompiled)
            try:
                bytecode = __import__("farkernel_agent.bytecode", fromlist=["keep"])
                bytecode.keep(self.uncompiled, compiled_names(self.uncompiled))
            except (OSError, ImportError):
                pass  # a full disk, or the program was removed; it runs without

    def connect(self):
        # type: () -> socket.socket | None
        agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            agent.connect(os.path.join(self.directory, "socket"))
        except OSError as error:
            agent.close()
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
                return None
            raise
        return agent

    def expect(self):
        # type: () -> socket.socket
        """A job's agent comes with the job, and must not be started anywhere else: wait for it."""
        deadline = time.time() + START_DEADLINE
        while time.time() < deadline:
            time.sleep(0.05)
            agent = self.connect()
            if agent is not None:
                return agent
        what = "the job's agent does not listen on %s (yet)" % os.uname()[1]
        raise LoaderError("agent-start", what, "It is tried again while the job runs", False)

    def start(self):
        # type: () -> socket.socket
        """Start the agent unless another loader does; returns the connection to it."""
        archive = self.archive()
        lock = os.open(os.path.join(self.directory, "start.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.time() + START_DEADLINE
        try:
            self.wait_for(lock, deadline)
            agent = self.connect()
            if agent is None:
                compiled = find_compiled(archive)
                self.uncompiled = None if compiled else archive
                self.launch(compiled or archive, deadline)
                agent = self.connect()
            while agent is None and time.time() < deadline:
                time.sleep(0.05)  # another agent holds the directory's lock, and is about to listen
                agent = self.connect()
        finally:
            os.close(lock)
        if agent is None:
            raise self.not_started("it does not listen")
        return agent

    def wait_for(self, lock, deadline):
        # type: (int, float) -> None
        while not flock(lock):
            if time.time() > deadline:
                raise self.not_started("another connection is starting it, and does not finish")
            time.sleep(0.02)

    def launch(self, program, deadline):
        # type: (str, float) -> None
        """Start the agent as nobody's child, and wait for its word that it listens."""
        ready, its_end = os.pipe()
        if os.fork() == 0:
            try:
                self.become_agent(program, its_end)
            finally:
                os._exit(127)
        os.close(its_end)
        os.wait()
        try:
            while True:
                readable, _, _ = select.select([ready], [], [], max(deadline - time.time(), 0.0))
                if not readable:
                    raise self.not_started("it did not say that it listens within %d s" % START_DEADLINE)
                if os.read(ready, 1):
                    return
                if not self.held():
                    raise self.not_started("it ended at once")
                return
        finally:
            os.close(ready)

    def held(self):
        # type: () -> bool
        """Whether an agent holds the directory's lock (it was started in another way, a moment before ours)."""
        lock = lock_directory(self.directory)
        if lock is not None:
            os.close(lock)
        return lock is None

    def become_agent(self, program, ready):
        # type: (str, int) -> None
        """In the child: forget where we come from, fork once more, become the agent."""
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir("/")
        nothing = os.open(os.devnull, os.O_RDONLY)
        log = os.open(os.path.join(self.directory, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(nothing, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.dup2(ready, 3)
        os.closerange(4, 4096)
        for name in list(os.environ):
            if name.startswith("FARKERNEL_BOOT"):
                del os.environ[name]
        # -I: no PYTHONPATH, no user site and no current directory can put a file in the place of a module.
        options = ["-I"] if "site" in sys.modules else ["-I", "-S"]
        command = [sys.executable] + options + [program, "serve", "--directory", self.directory]
        command = scope() + command + ["--ready-fd", "3"]
        os.execvp(command[0], command)

    def archive(self):
        # type: () -> str
        """The agent's program, asked for if it is not here yet; checked before it is used, each time."""
        programs = subdirectory(self.private, "programs")
        path = os.path.join(programs, self.sha256 + ".zip")
        try:
            with open(path, "rb") as stream:
                content = stream.read()
            if hashlib.sha256(content).hexdigest() == self.sha256:
                os.utime(path, None)
                return path
        except (IOError, OSError) as error:
            if error.errno != errno.ENOENT:
                raise
        content = self.ask()
        import tempfile

        descriptor, temporary = tempfile.mkstemp(dir=programs)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        forget_old(programs)
        return path

    def ask(self):
        # type: () -> bytes
        say(self.nonce, "need", {"bytes": self.size})
        pieces = []
        left = self.size
        while left:
            piece = os.read(0, min(left, 65536))
            if not piece:
                raise LoaderError(
                    "cut", "the connection ended before the agent's program had come", "", False
                )
            pieces.append(piece)
            left -= len(piece)
        content = b"".join(pieces)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            advice = "Something on the way changes bytes, such as a terminal: the connection must be clean"
            raise LoaderError("damaged", "the agent's program arrived damaged", advice, False)
        return content

    def not_started(self, why):
        # type: (str) -> LoaderError
        path = os.path.join(self.directory, "log")
        return LoaderError(
            "agent-start", "the agent did not start: %s" % why, "See %s. %s" % (path, tail(path)), False
        )


def compiled_names(archive):
    # type: (str) -> str
    """How the names of files begin that have the agent's program compiled for this Python (bytecode.py)."""
    return "%s.%s-%x." % (archive[: -len(".zip")], sys.implementation.cache_tag, sys.hexversion)


def find_compiled(archive):
    # type: (str) -> str | None
    """One that is whole: its name ends with its content's hash."""
    begin = compiled_names(archive)
    place = os.path.dirname(archive)
    for name in os.listdir(place):
        path = os.path.join(place, name)
        if path.startswith(begin):
            with open(path, "rb") as stream:
                content = stream.read()
            if path == begin + hashlib.sha256(content).hexdigest() + ".pyc":
                os.utime(path, None)
                return path
    return None


def scope():
    # type: () -> list[str]
    """The words in front of the agent's command where logind would end it at logout (logind.conf(5))."""
    if not os.path.isdir("/run/systemd/system"):
        return []
    import subprocess

    nothing = os.open(os.devnull, os.O_RDWR)
    words = ["systemd-run", "--user", "--scope", "--quiet", "--"]
    try:
        ask = ["loginctl", "show-session", "--property=KillUserProcesses"]
        said = subprocess.check_output(ask, stderr=nothing, timeout=3)
        if b"=yes" not in said:
            return []
        subprocess.check_call(words + ["true"], stdin=nothing, stdout=nothing, stderr=nothing, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return []
    finally:
        os.close(nothing)
    return words


def forget_old(programs):
    # type: (str) -> None
    """Programs of versions that nobody used for a month go away."""
    for name in os.listdir(programs):
        path = os.path.join(programs, name)
        try:
            if os.stat(path).st_mtime < time.time() - UNUSED_DAYS * 86400:
                os.unlink(path)
        except (IOError, OSError):
            continue  # another loader was faster


def tail(path):
    # type: (str) -> str
    try:
        with open(path, "rb") as stream:
            stream.seek(max(os.fstat(stream.fileno()).st_size - LOG_TAIL, 0))
            text = stream.read(LOG_TAIL).decode("utf-8", "replace")
    except (IOError, OSError):
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "The end of it: " + " / ".join(lines[-4:]) if lines else ""


def say(nonce, word, value):
    # type: (str, str, dict[str, object]) -> None
    import json

    data = ("%s %s %s\n" % (nonce, word, json.dumps(value))).encode("ascii")
    while data:
        data = data[os.write(1, data) :]


def main():
    # type: () -> None
    arguments = os.environ.pop("FARKERNEL_BOOT").split()
    nonce = arguments[0]
    try:
        Loader(*arguments).run()
        return
    except PlaceError as error:
        answer = {"kind": error.kind, "what": error.what, "advice": error.advice, "final": True}
    except LoaderError as error:
        answer = dict(error.answer)
    except OSError as error:
        answer = describe(error)
    try:
        say(nonce, "error", answer)
    except OSError:
        pass  # nobody is there any more
    sys.exit(1)


def describe(error):
    # type: (OSError) -> dict[str, object]
    where = error.filename or "the private directory"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = "no space left at the far end (%s): %s" % (where, error.strerror)
        return {"kind": "no-space", "what": what, "advice": "Free some space there", "final": True}
    what = "the agent could not be reached: %s (%s)" % (error.strerror or error, where)
    return {"kind": "far-end", "what": what, "advice": "", "final": False}


if __name__ == "__main__":
    main()
