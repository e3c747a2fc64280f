"""A small keeper for the tests of its front ends: a real socket, real lines, answers as the test wants."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from farkernel.launcher.errors import FarkernelError

Handler = Callable[[dict[str, Any]], dict[str, Any] | None]

CONNECTION = {
    "ip": "/run/k/ipc",
    "transport": "ipc",
    "shell_port": 1,
    "iopub_port": 2,
    "stdin_port": 3,
    "control_port": 4,
    "hb_port": 5,
    "key": "secret",
    "signature_scheme": "hmac-sha256",
}


def nothing(_: dict[str, Any]) -> dict[str, Any]:
    return {}


class FakeKeeper:
    """Listens from construction until `stop`; `handlers` may be changed at any time.

    A handler returns the answer, raises a `FarkernelError`, or returns None to leave the request unanswered.
    """

    def __init__(self, directory: Path, hello: dict[str, Any] | None = None) -> None:
        self.directory = directory
        self.hello = hello or {"farkernel": 1, "version": "0.0.fake", "pid": os.getpid()}
        self.breaking = 0  # that many connections break before it has answered their greeting
        self.greetings: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.handlers: dict[str, Handler] = {}
        self._arrived = threading.Condition()
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with suppress(FileNotFoundError):
            os.unlink(directory / "socket")
        self._listener.bind(str(directory / "socket"))
        self._listener.listen(64)
        self._start(self._accept)

    def __enter__(self) -> FakeKeeper:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """As if it were killed: connections break, nobody listens."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        for thread in list(self._threads):
            thread.join(timeout=5)

    def drop(self) -> None:
        """Break every connection."""
        with self._arrived:
            connections, self._connections = self._connections, []
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def send(self, message: dict[str, Any]) -> None:
        """To every client."""
        with self._arrived:
            for connection in self._connections:
                connection.sendall(json.dumps(message).encode() + b"\n")

    def state(self, kernel: str, state: str, life: int = 1, **more: Any) -> None:
        self.send({"event": "kernel", "kernel": kernel, "life": life, "state": state, **more})

    def wait_for(self, do: str, count: int = 1, timeout: float = 10.0) -> dict[str, Any]:
        """The `count`-th request of this kind, once it has come."""

        def found() -> list[dict[str, Any]]:
            return [request for request in self.requests if request["do"] == do]

        with self._arrived:
            assert self._arrived.wait_for(lambda: len(found()) >= count, timeout), f"no {do}: {self.requests}"
            return found()[count - 1]

    def asked(self) -> list[str]:
        with self._arrived:
            return [request["do"] for request in self.requests]

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines, suppress(OSError):
            self.greetings.append(json.loads(lines.readline()))
            if self.breaking:
                self.breaking -= 1
                return
            connection.sendall(json.dumps(self.hello).encode() + b"\n")
            with self._arrived:
                self._connections.append(connection)
            for line in lines:
                request = json.loads(line)
                answer = self._answer(request)
                # Before the answer goes out: whoever has it may ask what was asked.
                with self._arrived:
                    self.requests.append(request)
                    self._arrived.notify_all()
                if answer is not None:
                    connection.sendall(json.dumps({"id": request["id"], **answer}).encode() + b"\n")

    def _answer(self, request: dict[str, Any]) -> dict[str, Any] | None:
        handler = self.handlers.get(request["do"], nothing)
        try:
            answer = handler(request)
        except FarkernelError as error:
            return {"error": error.as_dict()}
        return None if answer is None else {"ok": answer}


def launched(request: dict[str, Any]) -> dict[str, Any]:
    """What a keeper answers to `launch`."""
    return {
        "kernel": request["kernel"],
        "connection": request.get("connection") or CONNECTION,
        "life": request.get("life") or 1,
        "resumed": False,
    }
