"""A keeper of an older protocol as a process: `python older_keeper.py DIRECTORY`.  Holds the lock; ends at SIGTERM."""

from __future__ import annotations

import fcntl
import os
import socket
import sys


def main(directory: str) -> None:
    os.makedirs(directory, mode=0o700, exist_ok=True)
    lock = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.truncate(lock, 0)
    os.write(lock, b"%d\n" % os.getpid())
    path = os.path.join(directory, "socket")
    if os.path.exists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen()
    print("listening", flush=True)
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b'{"farkernel":0,"version":"0.0.1","pid":%d}\n' % os.getpid())


if __name__ == "__main__":
    main(sys.argv[1])
