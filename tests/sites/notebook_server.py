"""A real jupyter_server, spoken to as a browser does: REST for sessions, a websocket for messages."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import websocket

from .engine import DEADLINE, Outcome, wait_until


class NotebookServer:
    """Runs as long as its context; `stop` and `kill` end it earlier."""

    def __init__(self, root: Path, python: str = sys.executable, module: str = "jupyter_server") -> None:
        self._root = root
        self._command = [python, "-X", "faulthandler", "-m", module]
        self._token = secrets.token_hex(8)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.log = root / f"server-{self._port}.log"

    def __enter__(self) -> NotebookServer:
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [
                    *self._command,
                    f"--ServerApp.port={self._port}",
                    "--ServerApp.port_retries=0",
                    "--ZMQChannelsWebsocketConnection.limit_rate=False",  # it drops what comes too fast
                    f"--IdentityProvider.token={self._token}",
                    f"--ServerApp.root_dir={self._root}",
                    "--ServerApp.open_browser=False",
                    "--allow-root",
                ],
                stdout=log,
                stderr=log,
                cwd=self._root,
                env={**os.environ, "JUPYTER_PLATFORM_DIRS": "1"},
            )
        wait_until(self._answers, f"the notebook server (see {self.log})")
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            self.rest("GET", "api/status")
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """As a service manager does."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            self.process.wait(30)
            raise AssertionError(f"it does not stop:\n{self.log.read_text()[-10000:]}") from None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def url(self, path: str) -> str:
        """What to open in a browser; the token in it logs in."""
        return f"http://127.0.0.1:{self._port}/{path}?token={self._token}"

    def rest(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {self._token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    @contextlib.contextmanager
    def session(self, path: str, kernel: str) -> Iterator[Session]:
        """A notebook's session with its websocket; the kernel is not shut down at the end."""
        name = {"name": path, "path": path, "type": "notebook", "kernel": {"name": kernel}}
        model = self.rest("POST", "api/sessions", name)
        session = Session(self._port, self._token, model["kernel"]["id"], model["id"])
        try:
            yield session
        finally:
            session.close()


class Session:
    """One page: a websocket of the kernel's channels."""

    def __init__(self, port: int, token: str, kernel: str, session: str) -> None:
        self.kernel = kernel
        self.id = session
        self._session = uuid.uuid4().hex
        self._socket = websocket.create_connection(
            f"ws://127.0.0.1:{port}/api/kernels/{kernel}/channels?session_id={self._session}&token={token}",
            timeout=DEADLINE,
        )
        self.early: list[dict[str, Any]] = []  # what was read while something else was waited for

    def close(self) -> None:
        self._socket.close()

    def send(
        self, channel: str, msg_type: str, content: dict[str, Any], metadata: dict[str, Any] | None = None
    ) -> str:
        msg_id = uuid.uuid4().hex
        header = {
            "msg_id": msg_id,
            "session": self._session,
            "username": "reader",
            "msg_type": msg_type,
            "version": "5.4",
            "date": "2026-01-01T00:00:00Z",
        }
        message = {
            "header": header,
            "parent_header": {},
            "metadata": metadata or {},
            "content": content,
            "channel": channel,
        }
        self._socket.send(json.dumps({**message, "buffers": []}))
        return msg_id

    def execute(self, code: str, allow_stdin: bool = False) -> str:
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "allow_stdin": allow_stdin,
            "stop_on_error": True,
        }
        return self.send("shell", "execute_request", {**content, "user_expressions": {}})

    def receive(self, deadline: float = DEADLINE) -> dict[str, Any]:
        self._socket.settimeout(deadline)
        message: dict[str, Any] = json.loads(self._socket.recv())
        return message

    def answer_input(self, value: str, deadline: float = DEADLINE) -> None:
        """Wait for the kernel's question, and answer it."""
        end = time.monotonic() + deadline
        while (message := self.receive(max(0.1, end - time.monotonic())))["msg_type"] != "input_request":
            self.early.append(message)
        self.send("stdin", "input_reply", {"value": value})

    def collect(self, msg_id: str, deadline: float = DEADLINE) -> Outcome:
        outcome = Outcome()
        end = time.monotonic() + deadline
        while "idle" not in outcome.states or not outcome.reply:
            message = self.early.pop(0) if self.early else self.receive(max(0.1, end - time.monotonic()))
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            if message["msg_type"] == "status":
                outcome.states.append(message["content"]["execution_state"])
            elif message["channel"] == "shell":
                outcome.reply = message
            elif message["msg_type"] == "clear_output":
                outcome.outputs.clear()
            else:
                outcome.outputs.append(message)
        return outcome

    def run(self, code: str, deadline: float = DEADLINE) -> Outcome:
        return self.collect(self.execute(code), deadline)
