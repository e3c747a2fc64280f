"""A small keeper for the agent's tests: runs the loader on pipes, and speaks the link, one thing after the other."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import select
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from farkernel.backends.archive import build_archive, loader_text
from farkernel.launcher.agent.link import (
    Bye,
    ChannelClosed,
    Connected,
    Link,
    LinkState,
    Message,
    Role,
    StreamData,
)
from farkernel.launcher.agent.zmtp import decode_message, encode_message
from farkernel.launcher.errors import RemoteError

PRIORITIES = {"control": 0, "shell": 1, "stdin": 2, "iopub": 3}
FAKE_KERNEL = str(Path(__file__).parents[2] / "fakekernel.py")
DEADLINE = 30.0


class NearEnd:
    """``python``: the interpreter at the far end; ``run``: its FARKERNEL_RUN_DIR."""

    def __init__(
        self, run: Path, allocation: str = "here", python: str = sys.executable, user: str = "me"
    ) -> None:
        self.run = run
        self.allocation = allocation
        self.python = python
        self.link = Link(Role.KEEPER, secrets.token_hex(16), {"user": user, "host": "near"})
        self.events: list[dict[str, Any]] = []
        self.messages: dict[int, list[bytes]] = {}
        self.streams: dict[int, list[bytes]] = {}
        self.closed: set[int] = set()
        self.resumed: list[bool] = []
        self.bye: str | None = None
        self.loader: subprocess.Popen[bytes] | None = None
        self.needed = 0
        self.noise = b""
        self.status: int | None = None
        self._answers: dict[int, dict[str, Any]] = {}
        self._next = 1
        self._channel = 0
        self._unwritten = b""

    # -- the connection
    # -----------------------------------------------------------------------------------------

    def connect(self, environment: dict[str, str] | None = None) -> None:
        """Run a loader; returns when the link is up, or raises what the far end says."""
        archive = build_archive()
        nonce = secrets.token_hex(16)
        hello = base64.b64encode(self.link.hello()).decode()
        arguments = " ".join([nonce, archive.sha256, str(archive.size), self.allocation, hello])
        child = {
            **os.environ,
            "FARKERNEL_RUN_DIR": str(self.run),
            "FARKERNEL_BOOT": arguments,
            **(environment or {}),
        }
        self.loader = subprocess.Popen(
            [self.python, "-S", "-c", loader_text()],
            env=child,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert self.loader.stdin is not None
        assert self.loader.stdout is not None
        os.set_blocking(self.loader.stdin.fileno(), False)
        try:
            rest = self._boot(self.loader, nonce.encode(), archive.content)
        except BaseException:
            self.cut()
            raise
        self.link.connect(time.monotonic(), hello_sent=True)
        self._events(rest)
        self.wait(lambda: self.link.state is LinkState.UP)

    def _boot(self, loader: subprocess.Popen[bytes], nonce: bytes, content: bytes) -> bytes:
        assert loader.stdout is not None
        seen = b""
        while True:
            data = os.read(loader.stdout.fileno(), 65536)
            seen += data
            if not data:
                self.status = loader.wait(DEADLINE)
                raise ConnectionError(f"the loader ended with {self.status}: {seen!r}")
            self.noise, mark, after = seen.partition(nonce + b" ")
            line, newline, rest = after.partition(b"\n")
            if not mark or not newline:
                continue
            word, _, value = line.partition(b" ")
            if word == b"link":
                return rest
            if word == b"error":
                self.status = loader.wait(DEADLINE)
                raise RemoteError.from_dict(json.loads(value))
            assert (word, json.loads(value)) == (b"need", {"bytes": len(content)})
            self.needed += 1
            assert loader.stdin is not None
            os.set_blocking(loader.stdin.fileno(), True)
            loader.stdin.write(content)
            os.set_blocking(loader.stdin.fileno(), False)
            seen = rest

    def cut(self) -> None:
        """The connection is gone."""
        if self.loader is not None:
            assert self.loader.stdin is not None
            assert self.loader.stdout is not None
            self.loader.stdin.close()
            self.loader.stdout.close()
            self.status = self.loader.wait(DEADLINE)
            self.loader = None
        self._unwritten = b""
        self.link.disconnect(time.monotonic())

    @property
    def is_connected(self) -> bool:
        return self.loader is not None

    def step(self, timeout: float) -> None:
        """Write what is to be written, read what is there."""
        loader = self.loader
        if loader is None:
            raise ConnectionError("not connected")
        assert loader.stdin is not None
        assert loader.stdout is not None
        if not self._unwritten and self.link.has_output():
            self._unwritten = b"".join(self.link.send_buffers(time.monotonic()))
        writing = [loader.stdin] if self._unwritten else []
        readable, writable, _ = select.select([loader.stdout], writing, [], timeout)
        if writable:
            try:
                self._unwritten = self._unwritten[os.write(loader.stdin.fileno(), self._unwritten) :]
            except BrokenPipeError:
                self._unwritten = b""
        if readable:
            data = os.read(loader.stdout.fileno(), 1 << 20)
            if not data:
                self.cut()
                raise ConnectionError("the far end closed the connection")
            self._events(data)
        deadline = self.link.deadline()
        if deadline is not None and deadline <= time.monotonic():
            self.link.tick(time.monotonic())

    def _events(self, data: bytes) -> None:
        for event in self.link.receive(data, time.monotonic()):
            if isinstance(event, Message):
                self.link.consumed(event.channel, len(event.data))
                if event.channel == 0:
                    self._control(json.loads(bytes(event.data)))
                else:
                    self.messages.setdefault(event.channel, []).append(bytes(event.data))
            elif isinstance(event, StreamData):
                self.link.consumed(event.channel, len(event.data))
                self.streams.setdefault(event.channel, []).append(bytes(event.data))
            elif isinstance(event, ChannelClosed):
                self.closed.add(event.channel)
            elif isinstance(event, Connected):
                self.resumed.append(event.resumed)
            elif isinstance(event, Bye):
                self.bye = event.reason

    def _control(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self.events.append(message)
        else:
            self._answers[message["id"]] = message

    def wait(self, until: Callable[[], object], timeout: float = DEADLINE) -> None:
        deadline = time.monotonic() + timeout
        while not until():
            left = deadline - time.monotonic()
            assert left > 0, (
                f"nothing within {timeout} s: {self.link!r}, {self.events[-3:]}, {agent_log(self.run)}"
            )
            self.step(min(left, 0.02))

    # -- the agent's protocol
    # -----------------------------------------------------------------------------------

    def ask(self, do: str, **arguments: Any) -> int:
        number = self._next
        self._next += 1
        self.tell(id=number, do=do, **arguments)
        return number

    def tell(self, **request: Any) -> None:
        self.link.send(0, [json.dumps(request).encode()])

    def answer(self, number: int, timeout: float = DEADLINE) -> dict[str, Any]:
        self.wait(lambda: number in self._answers, timeout)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise RemoteError.from_dict(answer["error"])
        ok: dict[str, Any] = answer["ok"]
        return ok

    def request(self, do: str, **arguments: Any) -> dict[str, Any]:
        return self.answer(self.ask(do, **arguments))

    def open(self, priority: int, stream: bool = False) -> int:
        self._channel += 1
        self.link.open(self._channel, priority, stream)
        return self._channel

    def states(self, kernel: str) -> list[str]:
        return [
            event["state"]
            for event in self.events
            if event["event"] == "kernel" and event["kernel"] == kernel
        ]

    def ended(self, kernel: str, timeout: float = DEADLINE) -> dict[str, Any]:
        """Wait for a kernel's end; the reason."""
        self.wait(lambda: "ended" in self.states(kernel), timeout)
        reason: dict[str, Any] = [e for e in self.events if e["event"] == "kernel" and e["kernel"] == kernel][
            -1
        ]["reason"]
        return reason


class Far:
    """One attached kernel."""

    def __init__(self, near: NearEnd, kernel: str = "k1") -> None:
        self.near = near
        self.kernel = kernel
        self.channels: dict[str, int] = {}
        self.received: dict[str, int] = {}
        self.sent: dict[str, int] = {"control": 0, "shell": 0, "stdin": 0}
        self.got: dict[str, list[tuple[int, list[bytes]]]] = {name: [] for name in PRIORITIES}
        self.life = 0

    def start(self, *arguments: str, **more: Any) -> dict[str, Any]:
        """A fake kernel, unless `more` says what else."""
        self.life += 1
        request: dict[str, Any] = {
            "kernel": self.kernel,
            "life": self.life,
            "key": "secret-key",
            "journal": None,
        }
        if not {"argv", "kernelspec", "python"} & set(more):
            more["argv"] = [sys.executable, FAKE_KERNEL, "{connection_file}", *arguments]
        return self.near.request("start", **{**request, **more})

    def attach(self) -> dict[str, Any]:
        self.channels = {name: self.near.open(priority) for name, priority in PRIORITIES.items()}
        return self.near.request("attach", kernel=self.kernel, channels=self.channels, received=self.received)

    def up(self, *arguments: str, **more: Any) -> Far:
        self.start(*arguments, **more)
        self.attach()
        return self

    def collect(self) -> None:
        for name, channel in self.channels.items():
            for data in self.near.messages.pop(channel, []):
                number, _ = struct.unpack_from(">QQ", data)
                self.received[name] = number
                self.got[name].append((number, [bytes(frame) for frame in decode_message(data[16:])]))

    def send(self, name: str, *frames: bytes, number: int | None = None) -> None:
        if number is None:
            self.sent[name] += 1
            number = self.sent[name]
        message = b"".join(encode_message(frames))
        self.near.link.send(self.channels[name], [struct.pack(">Q", number), message])

    def wait(self, until: Callable[[], object], timeout: float = DEADLINE) -> None:
        def collected() -> object:
            self.collect()
            return until()

        self.near.wait(collected, timeout)

    def call(self, *frames: bytes, name: str = "shell", timeout: float = DEADLINE) -> list[bytes]:
        """Say something to the fake kernel and wait for its answer."""
        before = len(self.got[name])
        self.send(name, *frames)
        self.wait(lambda: len(self.got[name]) > before, timeout)
        answer = self.got[name][before][1]
        assert answer[0] == frames[0]
        return answer[1:]

    def numbers(self, name: str) -> list[int]:
        return [number for number, _ in self.got[name]]

    def flooded(self) -> list[bytes]:
        return [frames[1] for _, frames in self.got["iopub"] if frames[0] == b"flood"]


def agent_log(run: Path) -> str:
    return "\n".join(path.read_text()[-3000:] for path in run.glob("agents/*/log"))


def agent_processes(run: Path) -> Sequence[psutil.Process]:
    """Guard and worker of the agents in this run directory."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "serve" in command and any(str(run) in word for word in command):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
    return found
