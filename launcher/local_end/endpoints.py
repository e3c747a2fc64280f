"""Listening sockets for the local end: a TCP port or a socket file that only we can reach."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
import sys
from pathlib import Path

from .contract import BindError, Channel, ConnectionInfo

# sockaddr_un.sun_path, less the final NUL: 107 bytes on Linux, 103 on BSD and macOS.
MAX_PATH = 107 if sys.platform == "linux" else 103


class BoundSocket:
    """A listening socket; `close` also removes its socket file, if that is still ours."""

    def __init__(self, sock: socket.socket, path: str | None) -> None:
        self.sock = sock
        self._path = path
        self._file = _identity_of(path) if path else None

    @property
    def port(self) -> int:
        name = self.sock.getsockname()
        return int(name[1]) if isinstance(name, tuple) else 0

    def close(self) -> None:
        self.sock.close()
        # cleanup_ipc_files of a front end may have removed it, and a successor may have put its own there.
        if self._path and self._file is not None and _identity_of(self._path) == self._file:
            os.unlink(self._path)
        self._path = None


def bind(connection: ConnectionInfo, channel: Channel) -> BoundSocket:
    """Raises BindError."""
    endpoint = connection.endpoint(channel)
    if connection.transport == "ipc":
        return _bind_file(endpoint, endpoint.removeprefix("ipc://"))
    return _bind_port(endpoint, connection.ip, connection.ports[channel])


def peer_process(sock: socket.socket) -> tuple[int, int | None]:
    """(pid, uid) of the other side; (0, None) where that cannot be known."""
    if sock.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return 0, None
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, _gid = struct.unpack("iii", credentials)
    return pid, uid


def _bind_port(endpoint: str, ip: str, port: int) -> BoundSocket:
    host = "0.0.0.0" if ip == "*" else ip  # "*" is how ZeroMQ writes it
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise BindError(endpoint, f"not an address ({error.strerror})", "Give an IP address.") from None
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(128)
    except OSError as error:
        sock.close()
        raise _bind_error(endpoint, error) from None
    return BoundSocket(sock, None)


def _bind_file(endpoint: str, path: str) -> BoundSocket:
    encoded = os.fsencode(path)
    if len(encoded) > MAX_PATH:
        raise BindError(
            endpoint,
            f"a socket's path may have {MAX_PATH} bytes, this one has {len(encoded)}",
            "Set XDG_RUNTIME_DIR or JUPYTER_RUNTIME_DIR to a directory with a shorter name.",
        )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _check_directory(endpoint, Path(path).parent)
        _remove_stale(endpoint, path)
        sock.setblocking(False)
        if sys.platform == "linux":
            os.fchmod(sock.fileno(), 0o600)  # the file is born with this mode: no moment with another one
        sock.bind(path)
        os.chmod(path, 0o600)
        sock.listen(128)
    except OSError as error:
        sock.close()
        raise _bind_error(endpoint, error) from None
    except BindError:
        sock.close()
        raise
    return BoundSocket(sock, path)


def _bind_error(endpoint: str, error: OSError) -> BindError:
    advice = {
        errno.EADDRINUSE: "Another program listens there: start the kernel again to get other ports.",
        errno.EADDRNOTAVAIL: "This machine does not have that address: check `ip` in the connection file.",
        errno.EACCES: "Use a directory (or a port over 1023) that is yours.",
        errno.ENOENT: "Make the directory first.",
        errno.EMFILE: "Raise the limit of open files (`ulimit -n`) or stop some kernels.",
        errno.ENOSPC: "Free some space there.",
    }.get(error.errno or 0, "Start the kernel again.")
    return BindError(endpoint, error.strerror or str(error), advice)


def _check_directory(endpoint: str, directory: Path) -> None:
    """DESIGN §3.5: whoever can write to the directory can put his own socket in the place of ours."""
    directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.stat()
    if status.st_uid not in (os.getuid(), 0):
        raise BindError(endpoint, f"{directory} belongs to another user", "Use a directory that is yours.")
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        raise BindError(endpoint, f"others can write to {directory}", f"Run: chmod 700 {directory}")


def _remove_stale(endpoint: str, path: str) -> None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise BindError(endpoint, "a file is there that is no socket", f"Remove {path} if it is of no use.")
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.setblocking(False)
        probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)  # nobody listens: its owner was killed
    except FileNotFoundError:
        return
    except BlockingIOError:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)) from None
    else:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    finally:
        probe.close()


def _identity_of(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
