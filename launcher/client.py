"""How a front end reaches the keeper: requests, answers, events (docs/architecture.md §7).

``farkernel launch`` has 60 ms to be imported (DESIGN §6), so nothing heavy is imported here: no asyncio, no
logging, no subprocess.  One thread per client owns the socket; callers leave requests with it and are called
back.  So the same object serves a signal-driven main thread, a command line, and, through ``client_async``,
event loops that come and go (jupyter_client runs its coroutines on whichever loop is at hand).
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from .client_protocol import (
    PROTOCOL,
    REPEATABLE,
    Answer,
    KeeperEnding,
    KeeperGone,
    KeeperNotRunning,
    KeeperSilent,
    LineReader,
    check_hello,
    encode,
    hello,
)
from .errors import FarkernelError, RemoteError

__all__ = ["PROTOCOL", "KeeperClient", "keeper_directory"]

Event = dict[str, Any]
HANDSHAKE_DEADLINE = 10.0
ATTEMPTS = 3
# Of one that is just ending: it takes connections for a moment more, and has been asked for nothing yet.
GREETINGS = 10
GREET_AGAIN = 0.1
LONGEST_PAUSE = 30.0
UNKNOWN_KERNEL = "no-such-kernel"  # the keeper's kind of error


class NoPrivateDirectory(FarkernelError):
    """What the agent's own code found: it knows none of our errors, because it travels alone."""

    kind = "no-directory"


def keeper_directory() -> str:
    """Where the keeper's socket, lock and log lie; made if it is not there, refused if others could enter."""
    from .agent import places

    try:
        return os.path.join(places.private_directory(), "keeper")
    except places.PlaceError as error:
        raise NoPrivateDirectory(error.what, error.advice) from None


class _Request:
    """One request, from `submit` until it is answered, failed or forgotten."""

    __slots__ = ("attempts", "do", "done", "line", "number")

    def __init__(
        self, number: int, do: str, arguments: dict[str, Any], done: Callable[[Answer], None]
    ) -> None:
        self.number = number
        self.do = do
        self.done = done
        self.line = encode({**arguments, "id": number, "do": do})
        self.attempts = 0


class KeeperClient:
    """A client of the keeper; safe to use from any thread.

    With `start` the keeper is started when it is not there.  If the connection breaks, watched kernels are
    watched again and requests that may be repeated are repeated; other requests fail with `KeeperGone`.
    Callbacks run on the client's own thread and must not block or raise.
    """

    def __init__(self, directory: str | None = None, *, start: bool = True) -> None:
        self._directory = directory
        self._start = start
        self._lock = threading.Lock()
        self._count = 0
        self._unsent: list[_Request] = []
        self._unanswered: dict[int, _Request] = {}
        self._watches: dict[str, Callable[[Event], None]] = {}
        self._closed = False
        self._ended_on_purpose = False
        self._thread: threading.Thread | None = None
        self._pipe: tuple[int, ...] = os.pipe()
        self._wake_read, self._wake_write = self._pipe
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self.peer: dict[str, Any] = {}
        self.on_event: Callable[[Event], None] | None = None  # of events that are not of a watched kernel

    def __repr__(self) -> str:
        peer = self.peer.get("pid", "none")
        return f"<KeeperClient keeper={peer} waiting={len(self._unanswered)} watches={len(self._watches)}>"

    # -- for callers, on any thread ---------------------------------------------------------------------

    def submit(self, do: str, arguments: dict[str, Any], done: Callable[[Answer], None]) -> int:
        """Ask for something; `done` is called once, on the client's thread, unless `forget` comes first."""
        with self._lock:
            if self._closed:
                raise KeeperGone(do)
            self._count += 1
            request = _Request(self._count, do, arguments, done)
            self._unsent.append(request)
        self._wake()
        return request.number

    def forget(self, number: int) -> None:
        """Nobody wants this answer any more."""
        with self._lock:
            self._unanswered.pop(number, None)
            self._unsent = [request for request in self._unsent if request.number != number]

    def request(self, do: str, timeout: float = 30.0, **arguments: Any) -> dict[str, Any]:
        """Ask and wait; raises what the keeper says, or `KeeperSilent` when the deadline passes."""
        answered = threading.Event()
        answers: list[Answer] = []

        def done(answer: Answer) -> None:
            answers.append(answer)
            answered.set()

        number = self.submit(do, arguments, done)
        try:
            if not answered.wait(timeout):
                raise KeeperSilent(do, timeout)
        finally:
            self.forget(number)
        return answers[0].result()

    def watch(self, kernel: str, callback: Callable[[Event], None]) -> None:
        """Call back with each change of a kernel's state, across restarts of the keeper, until `unwatch`.

        A kernel that the keeper does not know is reported as an event with state `ended`.
        """
        with self._lock:
            self._watches[kernel] = callback
        self._subscribe(kernel)

    def unwatch(self, kernel: str) -> None:
        """The keeper may go on sending events about this kernel; they are dropped here."""
        with self._lock:
            self._watches.pop(kernel, None)

    def close(self) -> None:
        """Leave; what is unanswered fails with `KeeperGone`."""
        with self._lock:
            self._closed = True
            thread = self._thread
        self._wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=HANDSHAKE_DEADLINE)
        self._fail_all(None)
        with self._lock:
            descriptors, self._pipe = self._pipe, ()
        for descriptor in descriptors:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the client's own thread ------------------------------------------------------------------------

    def _wake(self) -> None:
        with self._lock:
            if not self._pipe:
                return
            with suppress(BlockingIOError):
                os.write(self._wake_write, b"w")
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="farkernel-keeper-client", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        pause = 0.5
        while True:
            if self._closed:
                return
            if not (self._unsent or self._unanswered or self._watches):
                self._sleep(None)
                continue
            try:
                sock, reader = self._open()
            except FarkernelError as error:
                self._fail_all(error)
                # Kernels that are watched live on: go on looking, ever more rarely.
                self._sleep(pause if self._watches else None)
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            pause = 0.5
            with sock:
                self._converse(sock, reader)
            self._after_break()

    def _sleep(self, seconds: float | None) -> None:
        if self._closed:
            return
        select.select([self._wake_read], [], [], seconds)
        with suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def _open(self) -> tuple[socket.socket, LineReader]:
        directory = self._directory or keeper_directory()
        path = os.path.join(directory, "socket")
        # After `farkernel keeper stop`, only a person's next request starts it again, not a mere watcher.
        asked_for = any(request.do != "watch" for request in list(self._unsent))
        may_start = self._start and (asked_for or not self._ended_on_purpose)
        for remaining in reversed(range(GREETINGS)):
            sock = connect(path)
            if sock is None and may_start:
                from .client_start import start_keeper

                start_keeper(directory)
                sock = connect(path)
            if sock is None:
                raise KeeperNotRunning()
            try:
                reader = self._shake_hands(sock)
                break
            except BaseException as error:
                sock.close()
                if not isinstance(error, KeeperEnding) or not remaining:
                    raise
                self._sleep(GREET_AGAIN)
        else:
            raise KeeperEnding()
        self._ended_on_purpose = False
        with self._lock:
            self._unsent = [request for request in self._unsent if request.do != "watch"]
            watched = list(self._watches)
        for kernel in watched:
            self._subscribe(kernel)
        return sock, reader

    def _shake_hands(self, sock: socket.socket) -> LineReader:
        reader = LineReader()
        deadline = time.monotonic() + HANDSHAKE_DEADLINE
        try:
            sock.settimeout(HANDSHAKE_DEADLINE)
            sock.sendall(hello())
            while True:
                sock.settimeout(max(deadline - time.monotonic(), 0.001))
                data = sock.recv(65536)
                if not data:
                    raise KeeperEnding()
                lines = reader.feed(data, limit=1)
                if lines:
                    self.peer = check_hello(lines[0])
                    sock.setblocking(False)
                    return reader
        except TimeoutError:
            raise KeeperSilent("hello", HANDSHAKE_DEADLINE) from None
        except OSError:
            raise KeeperEnding() from None

    def _converse(self, sock: socket.socket, reader: LineReader) -> None:
        """Carry lines both ways until the connection breaks or the client is closed."""
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        outgoing = bytearray()
        try:
            for line in reader.feed(b""):
                self._received(line)
            while not self._closed:
                outgoing += self._take_unsent()
                poller.register(sock, select.POLLIN | (select.POLLOUT if outgoing else 0))
                for descriptor, mask in poller.poll():
                    if descriptor == self._wake_read:
                        self._sleep(0)
                        continue
                    if mask & select.POLLOUT:
                        with suppress(BlockingIOError):
                            del outgoing[: sock.send(outgoing)]
                    if mask & ~select.POLLOUT:
                        data = sock.recv(262144)
                        if not data:
                            return
                        for line in reader.feed(data):
                            self._received(line)
        except (OSError, FarkernelError):
            return

    def _take_unsent(self) -> bytes:
        with self._lock:
            requests, self._unsent = self._unsent, []
            for request in requests:
                request.attempts += 1
                self._unanswered[request.number] = request
        return b"".join(request.line for request in requests)

    def _received(self, line: dict[str, Any]) -> None:
        if "event" in line:
            if line["event"] == "end":
                self._ended_on_purpose = True
            callback = self._watches.get(str(line.get("kernel")))
            if line["event"] != "kernel":
                callback = self.on_event
            if callback is not None:
                callback(line)
            return
        with self._lock:
            request = self._unanswered.pop(line.get("id", 0), None)
        if request is not None:
            request.done(Answer.from_line(line, str(self.peer.get("version", "unknown"))[:40]))

    def _after_break(self) -> None:
        """Sort what was unanswered when the connection broke: repeat it, or say that nobody knows."""
        self.peer = {}
        with self._lock:
            cut, self._unanswered = list(self._unanswered.values()), {}
            again = [r for r in cut if r.do in REPEATABLE and r.attempts < ATTEMPTS and not self._closed]
            # Watches are subscribed anew on the next connection anyway.
            self._unsent = [r for r in again if r.do != "watch"] + self._unsent
            failed = [r for r in cut if r not in again]
        for request in failed:
            request.done(Answer(error=KeeperGone(request.do)))

    def _fail_all(self, error: FarkernelError | None) -> None:
        with self._lock:
            requests = [*self._unanswered.values(), *self._unsent]
            self._unanswered, self._unsent = {}, []
        for request in requests:
            if request.do != "watch":  # subscribed anew on the next connection
                request.done(Answer(error=error or KeeperGone(request.do)))

    def _subscribe(self, kernel: str) -> None:
        def done(answer: Answer) -> None:
            # Only the keeper's own word ends a kernel; that the keeper is out of reach says nothing about it.
            if isinstance(answer.error, RemoteError) and answer.error.remote_kind == UNKNOWN_KERNEL:
                callback = self._watches.get(kernel)
                if callback is not None:
                    callback(lost_event(kernel, answer.error))

        with suppress(KeeperGone):
            self.submit("watch", {"kernel": kernel}, done)


def connect(path: str) -> socket.socket | None:
    """A connection to the keeper's socket, or None when nobody listens there."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(HANDSHAKE_DEADLINE)
    try:
        sock.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except OSError:
        # A full backlog (EAGAIN) or a time-out: it is there, and does not accept.
        sock.close()
        raise KeeperSilent("connect", HANDSHAKE_DEADLINE) from None
    return sock


def lost_event(kernel: str, error: RemoteError) -> Event:
    """What a watcher is told when the keeper does not know its kernel."""
    reason = {"kind": error.remote_kind, "text": str(error)}
    return {
        "event": "kernel",
        "kernel": kernel,
        "life": None,
        "state": "ended",
        "reason": reason,
        "exit": None,
    }
