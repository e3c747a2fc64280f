"""A far end in this process: answers the boot script and holds the agent's side of the link.  Cuts where it is told to."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from farkernel.backends.contract import Buffer, Receiver
from farkernel.launcher.agent.link import Connected, Link, Message, Role

Answer = Callable[[dict[str, Any]], dict[str, Any] | None]


class MemoryStream:
    """A connection that delivers in the next turn of the loop."""

    buffered = 0

    def __init__(self, far: FarEnd, receiver: Receiver) -> None:
        self._far = far
        self.receiver = receiver
        self.open = True
        self.dead = False

    def write(self, buffers: Sequence[Buffer]) -> None:
        data = b"".join(bytes(buffer) for buffer in buffers)
        asyncio.get_running_loop().call_soon(self._arrive, data)

    def _arrive(self, data: bytes) -> None:
        if self.open:
            self._far.arrived(self, data)

    def say(self, data: bytes) -> None:
        """From the far end to the keeper."""
        asyncio.get_running_loop().call_soon(self._deliver, data)

    def _deliver(self, data: bytes) -> None:
        if self.open:
            self.receiver.data_received(data)

    def cut(self, said: str = "") -> None:
        if self.open:
            self.open = False
            self.receiver.closed(said)

    def close(self, dead: bool = False) -> None:
        self.dead = dead
        self.cut()


class FarEnd:
    """A route and what is behind it.  ``answer`` makes the agent's answers to requests on channel 0."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.link: Link | None = None
        self.streams: list[MemoryStream] = []
        self.requests: list[dict[str, Any]] = []
        self.instead: bytes | None = None
        self.opened = asyncio.Event()
        self._taken = asyncio.Event()

    async def route(self) -> FarEnd:
        return self

    async def open(self, command: Sequence[str], receiver: Receiver) -> MemoryStream:
        assert tuple(command) == ("/bin/sh", "-s")
        stream = MemoryStream(self, receiver)
        self.streams.append(stream)
        self.opened.set()
        return stream

    @property
    def stream(self) -> MemoryStream:
        return self.streams[-1]

    def forget(self) -> None:
        """The agent was killed: the next one knows no session."""
        self.link = None

    def arrived(self, stream: MemoryStream, data: bytes) -> None:
        match = re.search(rb"FARKERNEL_BOOT='([^']*)'", data)
        if match:
            self._greet(stream, match[1].decode().split())
        else:
            self._feed(stream, data)

    def _greet(self, stream: MemoryStream, arguments: list[str]) -> None:
        nonce, hello = arguments[0], base64.b64decode(arguments[4])
        if self.instead is not None:
            stream.say(self.instead.replace(b"NONCE", nonce.encode()))
            return
        session = str(json.loads(hello[16:])["session"])
        if self.link is None or self.link.session != session:
            self.link = Link(Role.AGENT, session, {"agent": "test"})
        else:
            self.link.disconnect(self._now())
        stream.say(f"{nonce} link {{}}\n".encode())
        self.link.connect(self._now())
        self._feed(stream, hello)

    def _feed(self, stream: MemoryStream, data: bytes) -> None:
        assert self.link is not None
        for event in self.link.receive(data, self._now()):
            if isinstance(event, Message) and event.channel == 0:
                self.link.consumed(0, len(event.data))
                self._take(json.loads(bytes(event.data)))
            elif isinstance(event, Connected):
                self.opened.set()
        self.flush(stream)

    def _take(self, request: dict[str, Any]) -> None:
        self.requests.append(request)
        self._taken.set()
        answer = self.answer(request)
        if answer is not None and "id" in request:
            self.tell({"id": request["id"], **answer})

    async def has_taken(self, count: int) -> None:
        """Wait until so many requests have come."""
        while len(self.requests) < count:
            self._taken.clear()
            await self._taken.wait()

    def tell(self, message: dict[str, Any]) -> None:
        assert self.link is not None
        self.link.send(0, [json.dumps(message).encode()])

    def flush(self, stream: MemoryStream) -> None:
        assert self.link is not None
        while self.link.has_output():
            stream.say(b"".join(bytes(buffer) for buffer in self.link.send_buffers(self._now())))

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
