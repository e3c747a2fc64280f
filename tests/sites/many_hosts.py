"""A thousand light hosts: `python -m tests.sites.many_hosts DIRECTORY PORT COUNT [SILENT]…`, on addresses 127.1.X.Y.

Each is an SSH server of asyncssh, all in one process, with real key exchange and login.  Behind each login is no shell but
a far end that speaks the boot's greeting and the link, and answers `probe` from a template: a thousand real agents are more
than one machine can be.  SILENT numbers take connections and say nothing.  Says "ready" when all of them listen.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
import sys
from pathlib import Path
from typing import Any

import asyncssh

from farkernel.launcher.agent.link import Link, Message, Role

from .ssh import make_key

_BOOT = re.compile(rb"FARKERNEL_BOOT='([^']*)'.*\nexit 1\n", re.DOTALL)
GIB = 1 << 30


def address(number: int) -> str:
    return f"127.1.{number // 200}.{number % 200 + 1}"


def machine(number: int) -> dict[str, Any]:
    """What a Pi's probe says: each tenth is hot, each tenth has a weak supply."""
    hot, weak = number % 10 == 3, number % 10 == 4
    pi = {
        "model": "Raspberry Pi 5 Model B Rev 1.0",
        "temperature": 84.5 if hot else 51.2,
        "throttled": ["throttled"] if hot else ["under-voltage"] if weak else [],
        "throttled_before": ["under-voltage"] if weak else [],
    }
    disk = {"device": "/dev/mmcblk0p2", "type": "ext4", "network": False, "writable": True}
    return {
        "version": 1,
        "host": {"name": f"host{number}", "system": "Linux", "release": "6.12.34", "architecture": "aarch64"},
        "uptime": 86400.0 + number,
        "load": [number % 40 / 10, 0.2, 0.1],
        "users": [{"name": "pi", "sessions": 1}],
        "cpu": {"model": "Cortex-A76", "sockets": 1, "cores": 4, "threads": 4, "usable": 4, "use": 0.05},
        "memory": {"total": 8 * GIB, "available": 6 * GIB},
        "swap": {"total": GIB // 2, "free": GIB // 2},
        "disks": [{"path": path, "total": 32 * GIB, "free": 20 * GIB, **disk} for path in ("/", "/home/pi", "/tmp")],
        "raspberrypi": pi,
        "boards": [],
        "problems": [],
    }  # fmt: skip


class Host(asyncssh.SSHServerSession[bytes]):
    """The far end of one command."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._script = b""
        self._link: Link | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def exec_requested(self, command: str) -> bool:
        return command == "exec /bin/sh -s"

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if self._link is not None:
            self._feed(self._link, data)
            return
        self._script += data
        boot = _BOOT.search(self._script)
        if boot:
            arguments = boot[1].decode().split()
            self._greet(arguments[0], base64.b64decode(arguments[4]))

    def _greet(self, nonce: str, hello: bytes) -> None:
        link = self._link = Link(
            Role.AGENT, str(json.loads(hello[16:])["session"]), {"host": f"host{self._number}"}
        )
        self._channel.write(f"{nonce} link {{}}\n".encode())
        link.connect(self._loop.time())
        self._feed(link, hello)

    def _feed(self, link: Link, data: bytes) -> None:
        for event in link.receive(data, self._loop.time()):
            if isinstance(event, Message) and event.channel == 0:
                link.consumed(0, len(event.data))
                request = json.loads(bytes(event.data))
                if "id" in request:
                    link.send(0, [json.dumps({"id": request["id"], "ok": self._answer(request)}).encode()])
        while link.has_output():
            self._channel.write(b"".join(bytes(each) for each in link.send_buffers(self._loop.time())))

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        answers: dict[str, dict[str, Any]] = {
            "probe": {"machine": machine(self._number)},
            "list": {"kernels": []},
        }
        return answers.get(request["do"], {})


class Login(asyncssh.SSHServer):
    def __init__(self, number: int) -> None:
        self._number = number

    def session_requested(self) -> Host:
        return Host(self._number)


def listening(number: int, port: int) -> socket.socket:
    plug = socket.socket()
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    plug.bind((address(number), port))
    plug.listen(16)
    return plug


async def serve(directory: Path, port: int, count: int, silent: set[int]) -> None:
    for name in ("host_key", "id"):
        make_key(directory / name)
    options = asyncssh.SSHServerConnectionOptions(
        server_host_keys=[str(directory / "host_key")],
        authorized_client_keys=str(directory / "id.pub"),
        encoding=None,
    )
    kept = []
    for number in range(count):
        plug = listening(number, port)
        if number in silent:
            kept.append(plug)  # the system takes connections, and nobody reads them
        else:
            await asyncssh.listen(
                sock=plug, options=options, server_factory=lambda number=number: Login(number)
            )
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), set(map(int, sys.argv[4:]))))
