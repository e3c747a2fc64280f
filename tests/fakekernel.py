"""A light kernel for tests, with pyzmq: `python fakekernel.py CONNECTION_FILE [flood COUNT SIZE] [at start
…]`.

Frames on shell and control: [identity…, command, arguments…].  Every answer comes back on the same socket.
echo …      the same frames               pid          its process id
flood N S   N numbered messages of S bytes on iopub, then an answer
deaf        it ignores interrupts from now on
exit N, segfault, kill, sleep S, eat (memory without end), print TEXT, ask (a question on stdin, the answer is
returned)
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import signal
import sys
import time
from typing import Any

import zmq


def payload(number: int, size: int) -> bytes:
    """What message `number` of a flood holds; tests make the same."""
    return number.to_bytes(8, "big") + random.Random(number).randbytes(size)


class FakeKernel:
    def __init__(self, connection: dict[str, Any]) -> None:
        context = zmq.Context()
        self.shell = self._bind(context, zmq.ROUTER, connection, "shell_port")
        self.control = self._bind(context, zmq.ROUTER, connection, "control_port")
        self.stdin = self._bind(context, zmq.ROUTER, connection, "stdin_port")
        self.iopub = self._bind(context, zmq.XPUB, connection, "iopub_port")
        self.flooded = 0

    def _bind(
        self, context: zmq.Context[zmq.Socket[bytes]], kind: int, connection: dict[str, Any], port: str
    ) -> zmq.Socket[bytes]:
        socket = context.socket(kind)
        socket.set_hwm(0)
        socket.linger = -1
        socket.bind(f"ipc://{connection['ip']}-{connection[port]}")
        return socket

    def run(self) -> None:
        self.iopub.recv()  # the subscription
        poller = zmq.Poller()
        poller.register(self.shell, zmq.POLLIN)
        poller.register(self.control, zmq.POLLIN)
        while True:
            for socket, _ in poller.poll():
                identity, *frames = socket.recv_multipart()
                command = frames[0].decode()
                answer = getattr(self, f"do_{command}")(identity, *frames[1:])
                socket.send_multipart([identity, frames[0], *answer])

    def do_echo(self, identity: bytes, *frames: bytes) -> list[bytes]:
        return list(frames)

    def do_pid(self, identity: bytes) -> list[bytes]:
        return [str(os.getpid()).encode()]

    def do_deaf(self, identity: bytes) -> list[bytes]:
        """As ipykernel is between two cells."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return []

    def do_flood(self, identity: bytes, count: bytes, size: bytes) -> list[bytes]:
        for _ in range(int(count)):
            self.flooded += 1
            self.iopub.send_multipart([b"flood", payload(self.flooded, int(size))])
        return [str(self.flooded).encode()]

    def do_exit(self, identity: bytes, status: bytes) -> list[bytes]:
        print("last words", flush=True)
        os._exit(int(status))

    def do_leave(self, identity: bytes, status: bytes) -> list[bytes]:
        """Like exit, but what was said goes out before."""
        zmq.Context.instance()
        for socket in (self.shell, self.control, self.stdin, self.iopub):
            socket.context.destroy(linger=-1)
        sys.exit(int(status))

    def do_segfault(self, identity: bytes) -> list[bytes]:
        ctypes.string_at(0)
        return []

    def do_kill(self, identity: bytes) -> list[bytes]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []

    def do_sleep(self, identity: bytes, seconds: bytes) -> list[bytes]:
        time.sleep(float(seconds))
        return []

    def do_eat(self, identity: bytes) -> list[bytes]:
        held = []
        while True:
            held.append(b"x" * (1 << 22))

    def do_print(self, identity: bytes, text: bytes) -> list[bytes]:
        print(text.decode(), flush=True)
        return []

    def do_ask(self, identity: bytes, question: bytes) -> list[bytes]:
        self.stdin.send_multipart([identity, question])
        return self.stdin.recv_multipart()[1:]

    def do_environment(self, identity: bytes, *names: bytes) -> list[bytes]:
        return [os.environ.get(name.decode(), "<unset>").encode() for name in names]

    def do_place(self, identity: bytes) -> list[bytes]:
        mask = os.umask(0)
        os.umask(mask)
        leader = os.getsid(0) == os.getpid()
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return [str(fact).encode() for fact in (os.getcwd(), oct(mask), leader, limit)]


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as stream:
        connection = json.load(stream)
    for argument in sys.argv[2:]:
        if argument.startswith("exit="):
            print("\x1b[31mno way\x1b[0m", file=sys.stderr, flush=True)
            sys.exit(int(argument[5:]))
        if argument.startswith("note="):
            print(argument[5:], flush=True)
        if argument == "calm":
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if argument.startswith("late="):
            time.sleep(float(argument[5:]))
    FakeKernel(connection).run()


if __name__ == "__main__":
    main()
