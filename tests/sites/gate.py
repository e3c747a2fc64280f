"""A keeper in this process whose `ssh:` targets are this machine behind a gate: it asks for a code, shuts, and cuts."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from farkernel import backends
from farkernel.backends.contract import NotAnswered, Question, Receiver, RouteError, User
from farkernel.backends.local import LocalRoute
from farkernel.backends.process_stream import ProcessStream
from farkernel.launcher.agent.places import private_directory
from farkernel.launcher.configuration import Target, load
from farkernel.launcher.keeper.keeper import Keeper
from farkernel.launcher.keeper.server import Server
from farkernel.launcher.keeper.store import Store

CODE = "314159"


class Gate:
    """What stands between; its attributes may be set from the test's own thread."""

    def __init__(self) -> None:
        self.shut = ""
        """Why nobody gets through; empty: open."""
        self.asks = False
        """Whether it wants the code."""
        self.terminal = False
        """Whether it asks only those who came to be asked."""
        self.tries = 0
        self.streams: list[ProcessStream] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.loop: asyncio.AbstractEventLoop | None = None

    def cut(self) -> None:
        """Every connection that is open ends now, without a word."""
        assert self.loop is not None
        for stream in self.streams:
            self.loop.call_soon_threadsafe(stream.close)


class GatedRoute:
    def __init__(self, gate: Gate, user: User) -> None:
        self._gate = gate
        self._user = user

    async def open(self, command: Sequence[str], receiver: Receiver) -> ProcessStream:
        self._gate.tries += 1
        if self._gate.shut:
            raise RouteError(self._gate.shut, "Open it")
        if self._gate.asks:
            question = Question("gate", "Code: \x1b[31m", terminal=self._gate.terminal)
            try:
                answer = await self._user.ask(question)
            except NotAnswered as error:
                raise RouteError(error.what, error.advice, needs_user=True) from error
            if answer != CODE:
                raise RouteError("the gate refused that code", "Look at your token again", needs_user=True)
        stream = await LocalRoute(self._user).open(command, receiver)
        self._gate.streams.append(stream)
        self._gate.processes.append(stream._process)
        return stream


class GatedAllocation:
    name = "gate"

    def __init__(self, route: GatedRoute) -> None:
        self._route = route

    async def ready(self, report: Callable[[str], None]) -> GatedRoute:
        return self._route

    async def release(self) -> None:
        """Nothing was taken."""


class GatedBackend:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def key(self, target: Target, kernel: str) -> str:
        return "gate"

    def door(self, target: Target, user: User) -> GatedRoute:
        return GatedRoute(self._gate, user)

    def allocate(self, target: Target, kernel: str, user: User) -> GatedAllocation:
        return GatedAllocation(GatedRoute(self._gate, user))


@contextmanager
def keeper_behind(gate: Gate, monkeypatch: pytest.MonkeyPatch, name: str = "keeper") -> Iterator[Path]:
    """Clients of this test find this keeper, and start no other; gives its directory.

    One with another name is that of another machine: it shares nothing but the far end.
    """
    backend = GatedBackend(gate)
    monkeypatch.setattr(backends, "find_backend", lambda scheme: backend)
    for module in ("allocations", "visits", "reach", "logins"):
        monkeypatch.setattr(f"farkernel.launcher.keeper.{module}.find_backend", lambda scheme: backend)
    directory = Path(private_directory()) / name
    directory.mkdir(mode=0o700)
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    listening = threading.Event()
    keepers: list[tuple[Keeper, asyncio.AbstractEventLoop]] = []

    async def run() -> None:
        gate.loop = asyncio.get_running_loop()
        keeper = Keeper(directory, Store(directory / "state"), load)
        server = Server(
            str(directory / "socket"), keeper.handlers(), keeper.user.lent.lend, keeper.clients_changed
        )
        await server.start()
        keepers.append((keeper, gate.loop))
        listening.set()
        await keeper.finished.wait()
        await server.close()
        await keeper.close()
        for process in gate.processes:
            process.wait(10)  # nobody else will, once this loop has ended

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert listening.wait(10)
        yield directory
    finally:
        for keeper, loop in keepers:
            with suppress(RuntimeError):  # it has ended already
                loop.call_soon_threadsafe(keeper.finished.set)
        thread.join(10)
        os.close(lock)
