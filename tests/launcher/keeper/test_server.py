"""The keeper's socket: greeting, requests, bad input."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farkernel.launcher.client_protocol import PROTOCOL
from farkernel.launcher.errors import FarkernelError
from farkernel.launcher.keeper.server import ClientConnection, Server


class Refused(FarkernelError):
    kind = "refused"


async def echo(client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
    return {"said": request.get("say")}


async def refuse(client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
    raise Refused("no", "Ask for something else")


async def fail(client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
    raise ZeroDivisionError


HANDLERS = {"echo": echo, "refuse": refuse, "fail": fail}
GREETING = (
    json.dumps({"farkernel": PROTOCOL, "version": "0", "environment": {"DISPLAY": ":7"}}).encode() + b"\n"
)


class Site:
    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.lent: dict[str, str] = {}
        self.counts: list[int] = []

    def run(self, scenario: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        async def whole() -> None:
            server = Server(self.path, HANDLERS, self.lent.update, self.counts.append)
            await server.start()
            assert stat.S_IMODE(os.stat(self.path).st_mode) == 0o600
            reader, writer = await asyncio.open_unix_connection(self.path, limit=1 << 24)
            await asyncio.wait_for(scenario(reader, writer), 20)
            writer.close()
            await server.close()

        asyncio.run(whole())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "socket")


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes) -> dict[str, Any]:
    writer.write(line)
    answer: dict[str, Any] = json.loads(await reader.readline())
    return answer


def test_greeting_and_answers(site: Site) -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await ask(reader, writer, GREETING))["pid"] == os.getpid()
        assert await ask(reader, writer, b'{"id": 1, "do": "echo", "say": "x"}\n') == {
            "id": 1,
            "ok": {"said": "x"},
        }
        refused = await ask(reader, writer, b'{"id": 2, "do": "refuse"}\n')
        assert refused == {
            "id": 2,
            "error": {"kind": "refused", "what": "no", "advice": "Ask for something else"},
        }

    site.run(scenario)
    assert site.lent == {"DISPLAY": ":7"}
    assert site.counts[0] == 1


@pytest.mark.parametrize(
    ("line", "kind", "what"),
    [
        (b"nonsense\n", "usage", "not a request"),
        (b"[1]\n", "usage", "must be a JSON object"),
        (b'{"id": 1, "do": "dance"}\n', "unknown-request", "does not know the request 'dance'"),
        (b'{"id": 1, "do": "fail"}\n', "defect", "failed on this request (ZeroDivisionError)"),
        (b"[" * 100_000 + b"\n", "usage", "not a request"),
    ],
)
def test_bad_requests_are_answered_and_the_connection_goes_on(
    site: Site, line: bytes, kind: str, what: str
) -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ask(reader, writer, GREETING)
        error = (await ask(reader, writer, line))["error"]
        assert error["kind"] == kind
        assert what in error["what"]
        assert (await ask(reader, writer, b'{"id": 9, "do": "echo"}\n'))["id"] == 9

    site.run(scenario)


def test_another_protocol_is_told_what_to_do(site: Site) -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = await ask(reader, writer, b'{"farkernel": 99}\n')
        assert answer["farkernel"] == PROTOCOL
        assert "farkernel keeper restart" in answer["error"]["advice"]
        assert await reader.read() == b""

    site.run(scenario)


def test_clients_are_told_that_the_end_was_wanted(site: Site) -> None:
    async def whole() -> None:
        server = Server(site.path, HANDLERS, site.lent.update, site.counts.append)
        await server.start()
        reader, writer = await asyncio.open_unix_connection(site.path)
        await ask(reader, writer, GREETING)
        await server.close()
        assert json.loads(await reader.readline()) == {"event": "end"}
        assert await reader.read() == b""
        writer.close()

    asyncio.run(asyncio.wait_for(whole(), 10))
    assert not os.path.exists(site.path)
    assert site.counts[-1] == 0


def test_an_endless_line_ends_the_connection_and_not_the_keeper(site: Site) -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ask(reader, writer, GREETING)
        try:
            writer.write(b"x" * (9 << 20))
            await writer.drain()
            assert await reader.read() == b""
        except ConnectionError:
            pass  # it hung up while we were still writing
        again, other = await asyncio.open_unix_connection(site.path)
        assert (await ask(again, other, GREETING))["pid"] == os.getpid()
        other.close()

    site.run(scenario)


@settings(max_examples=50)
@given(garbage=st.binary(max_size=300))
def test_garbage_never_hurts_the_next_client(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes
) -> None:
    place = Site(tmp_path_factory.mktemp("s") / "socket")

    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(garbage + b"\n")
        writer.write_eof()
        await reader.read()
        again, other = await asyncio.open_unix_connection(place.path)
        assert (await ask(again, other, GREETING))["farkernel"] == PROTOCOL
        other.close()

    place.run(scenario)
