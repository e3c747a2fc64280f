"""This side of an SSH route in tests: who listens to a command, who answers questions, a loop with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from farkernel.backends.contract import NotAnswered, Question
from farkernel.backends.ssh import SHELL, find_client
from farkernel.backends.ssh_config import HostSettings, Place, read_settings
from farkernel.backends.ssh_connections import Connections, Who

CLIENTS = ["asyncssh", "program", "paramiko"]


class Heard:
    """A receiver that keeps everything."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.said: list[str] = []
        self.more = asyncio.Event()
        self.over = asyncio.Event()
        self.room = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.more.set()

    def writable(self) -> None:
        self.room.set()

    def closed(self, said: str) -> None:
        self.said.append(said)
        self.over.set()

    async def until(self, wanted: bytes) -> None:
        while wanted not in self.data:
            self.more.clear()
            await self.more.wait()


class Person:
    """A user who answers by what the question says; what has no answer is declined."""

    def __init__(
        self, answers: Mapping[str, str] | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.answers = dict(answers or {})
        self.questions: list[Question] = []
        self._environment = dict(environment or {})

    def environment(self) -> Mapping[str, str]:
        return self._environment

    async def ask(self, question: Question) -> str:
        self.questions.append(question)
        for part, answer in self.answers.items():
            if part in question.text:
                return answer
        raise NotAnswered(question)


class Near:
    """Connections of one test, and who uses them."""

    def __init__(self, client: str, person: Person | None = None, linger: float = 30.0) -> None:
        self.client = find_client(client)
        self.person = person or Person()
        self.connections = Connections(linger)

    async def open(self, place: Place | HostSettings, receiver: Heard, command: str = SHELL) -> Any:
        found = place if isinstance(place, HostSettings) else fresh_settings(place)
        who = Who(self.person, "the-host")
        return await self.connections.open(self.client, found, who, command, receiver)

    async def run(self, place: Place | HostSettings, script: str) -> Heard:
        """The script's output, when it has ended."""
        heard = Heard()
        stream = await self.open(place, heard)
        stream.write([script.encode() + b"\nexit\n"])
        await heard.over.wait()
        return heard


def fresh_settings(place: Place) -> HostSettings:
    """Not those remembered from a moment ago: tests change files faster than people."""
    from farkernel.backends import ssh_config

    ssh_config._read.cache_clear()
    return read_settings(place)


def play(
    act: Callable[[Near], Awaitable[None]], client: str, person: Person | None = None, deadline: float = 40
) -> None:
    async def run() -> None:
        near = Near(client, person)
        try:
            async with asyncio.timeout(deadline):
                await act(near)
        finally:
            near.connections.close()
            await asyncio.sleep(0.05)  # for the libraries' own farewells

    asyncio.run(run())
