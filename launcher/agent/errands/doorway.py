"""A door of a job's own, for sites where no command leads into it: a port, and TLS with certificates for this job.

It runs beside the job's agent and gives whoever holds the other certificate a ``/bin/sh -s``, as ssh would.  Both ends
accept one certificate each and no other, so no authority is trusted and no name is compared.

The certificates come on the job's stdin (backends/batch/door_keys.py makes them); the ports to be tried are told by the
other end's, so that it can be found without a shared home.
"""

import ctypes
import errno
import fcntl
import hashlib
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from typing import List, Optional, Sequence, Set

PORTS = 8
_FIRST_PORT, _PORTS_SPAN = 21000, 11000  # below those that systems give out by themselves
_GREETING_DEADLINE = 15.0
_MOST_GUESTS = 64
_PIECE = 1 << 16
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def ports(certificate: bytes) -> List[int]:
    """Where the door with that certificate (DER) may be: the first of these that was free."""
    digest = hashlib.sha256(certificate).digest()
    numbers = [int.from_bytes(digest[2 * each : 2 * each + 2], "big") for each in range(PORTS)]
    return [_FIRST_PORT + number % _PORTS_SPAN for number in numbers]


def context(protocol: int, own: str, other: str) -> ssl.SSLContext:
    """``own``: key and certificate, ``other``: the certificate of the other end, all PEM."""
    made = ssl.SSLContext(protocol)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    if sys.version_info < (3, 10):  # later ones begin with TLS 1.2 by themselves
        made.options |= ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1
    made.load_verify_locations(cadata=other)
    # It takes a file; this one has no name, and nobody else can open it.
    with tempfile.TemporaryFile() as file:
        file.write(own.encode("ascii"))
        file.flush()
        made.load_cert_chain("/proc/self/fd/%d" % file.fileno())
    return made


class Doorway(object):
    """Listens until the job is over; each guest has a process of its own."""

    def __init__(self, own: str, other: str) -> None:
        self._context = context(ssl.PROTOCOL_TLS_SERVER, own, other)
        self._other = ssl.PEM_cert_to_DER_cert(other)
        self._guests: Set[int] = set()
        self.listener = _listen(ports(ssl.PEM_cert_to_DER_cert(own[own.index("-----BEGIN CERT") :])))

    def run(self) -> None:
        wake, its_wake = os.pipe()
        for pipe in (wake, its_wake):
            os.set_blocking(pipe, False)
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)  # without a handler nobody is woken
        signal.set_wakeup_fd(its_wake)
        while True:
            readable, _, _ = select.select([self.listener.fileno(), wake], [], [])
            if wake in readable:
                os.read(wake, 512)
                self._reap()
            if self.listener.fileno() not in readable:
                continue
            try:
                guest, _ = self.listener.accept()
            except OSError:
                time.sleep(0.1)  # it went away again, or descriptors are used up
                continue
            if len(self._guests) < _MOST_GUESTS:
                pid = os.fork()
                if pid == 0:
                    self._receive(guest)
                self._guests.add(pid)
            guest.close()

    def _reap(self) -> None:
        while self._guests:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self._guests.discard(pid)

    def _receive(self, guest: socket.socket) -> None:
        """In the child; does not return."""
        status = 1
        try:
            _die_with_parent()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.listener.close()
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
            guest.settimeout(_GREETING_DEADLINE)
            guest.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep_alive(guest)
            stream = self._context.wrap_socket(guest, server_side=True)
            if stream.getpeercert(True) == self._other:
                _serve(stream)
                status = 0
        except (OSError, ValueError):
            pass  # somebody else's connection, or one that was cut: nobody is there to be told
        finally:
            os._exit(status)


def _keep_alive(guest: socket.socket) -> None:
    """Who has vanished is noticed after two minutes."""
    guest.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 3)):
        guest.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _listen(numbers: Sequence[int]) -> socket.socket:
    """Raises OSError when none of the ports is free."""
    family = socket.AF_INET6 if socket.has_ipv6 and os.path.exists("/proc/net/if_inet6") else socket.AF_INET
    failure: Optional[OSError] = None
    for number in numbers:
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind(("", number))
            listener.listen(16)
            return listener
        except OSError as error:
            failure = error
            listener.close()
    raise failure or OSError(errno.EADDRINUSE, "no port")


def _serve(stream: ssl.SSLSocket) -> None:
    """A shell's stdin and stdout over the connection, until one of them ends."""
    shell = subprocess.Popen(
        ["/bin/sh", "-s"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    stdin, stdout = os.dup(shell.stdin.fileno()), os.dup(shell.stdout.fileno())
    shell.stdin.close()
    shell.stdout.close()
    stream.setblocking(False)
    for pipe in (stdin, stdout):
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_NONBLOCK)
    _Pump(stream, stdin, stdout).run()


class _Pump(object):
    """Bytes both ways, at most a piece of them held for each; raises OSError when either end is gone."""

    def __init__(self, stream: ssl.SSLSocket, stdin: int, stdout: int) -> None:
        self._stream = stream
        self._stdin = stdin
        self._stdout = stdout
        self._inward = b""
        self._outward = b""
        self._blocked = 0  # what TLS waits for on the socket, besides

    def run(self) -> None:
        while True:
            self._wait()
            self._blocked = 0
            self._move_in()
            if not self._move_out():
                # All that the shell had to say has gone out.
                self._stream.setblocking(True)
                self._stream.settimeout(5)
                self._stream.unwrap()
                return

    def _wait(self) -> None:
        poll = select.poll()
        wanted = self._blocked
        if not self._inward:
            if self._stream.pending():
                return
            wanted |= select.POLLIN
        if self._outward:
            wanted |= select.POLLOUT
        else:
            poll.register(self._stdout, select.POLLIN)
        if self._inward:
            poll.register(self._stdin, select.POLLOUT)
        # A hang-up is told in any case: with nothing wanted it would only keep us awake.
        if wanted:
            poll.register(self._stream.fileno(), wanted)
        poll.poll()

    def _move_in(self) -> None:
        if not self._inward:
            try:
                self._inward = self._stream.recv(_PIECE)
                if not self._inward:
                    raise OSError(errno.EPIPE, "the other end has closed it")
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLWantWriteError:
                self._blocked |= select.POLLOUT
        if self._inward:
            try:
                self._inward = self._inward[os.write(self._stdin, self._inward) :]
            except BlockingIOError:
                pass

    def _move_out(self) -> bool:
        """False: the shell has closed its stdout."""
        if not self._outward:
            try:
                self._outward = os.read(self._stdout, _PIECE)
                if not self._outward:
                    return False
            except BlockingIOError:
                return True
        try:
            self._outward = self._outward[self._stream.send(self._outward) :]
        except ssl.SSLWantWriteError:
            pass
        except ssl.SSLWantReadError:
            self._blocked |= select.POLLIN
        return True


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def main(own: str, other: str, note: str) -> None:
    """In a child of the job's first process; does not return.  ``note``: the file in the home that tells the port."""
    status = 1
    try:
        _die_with_parent()
        os.setsid()
        doorway = Doorway(own, other)
        try:
            with open(note, "a") as file:
                file.write("%d\n" % doorway.listener.getsockname()[1])
        except OSError:
            pass  # no home, or a full one: the other end tries the ports one by one
        doorway.run()
    except Exception as error:  # noqa: BLE001 - the job goes on without a door, whatever is wrong with it
        sys.stderr.write("no door: %s\n" % error)
    finally:
        os._exit(status)
