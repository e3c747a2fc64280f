"""The local end with Curve keys, against jupyter_client's own connecting code and against those without the key."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import zmq
import zmq.asyncio
from jupyter_client.connect import ConnectionFileMixin

from farkernel.launcher.local_end.contract import CHANNELS, BindError, ConnectionInfo, LocalSockets
from farkernel.launcher.local_end.curve import CurvePublisher
from farkernel.launcher.local_end.publisher import PublishLimits
from farkernel.launcher.local_end.sockets import open_sockets

Transport = Literal["ipc", "tcp"]
pytestmark = pytest.mark.timeout(40)
both = pytest.mark.parametrize("transport", ["ipc", "tcp"])


def connection(place: Path, transport: Transport) -> ConnectionInfo:
    public, secret = zmq.curve_keypair()
    ports = {
        f"{channel}_port": number if transport == "ipc" else 0 for number, channel in enumerate(CHANNELS, 1)
    }
    ip = str(place / "k") if transport == "ipc" else "127.0.0.1"
    keys = {"curve_publickey": public, "curve_secretkey": secret}
    return ConnectionInfo.from_dict({"transport": transport, "ip": ip, **ports, **keys})


class FrontEnd:
    """Connects just as jupyter_client does, from the connection file's content."""

    def __init__(self, info: ConnectionInfo) -> None:
        self.info = info
        self.context = zmq.asyncio.Context()
        self.mixin = ConnectionFileMixin(context=self.context)
        self.mixin.load_connection_info(info.as_dict())  # type: ignore[arg-type]

    def connect(self, channel: str, identity: bytes | None = None) -> zmq.asyncio.Socket:
        client = getattr(self.mixin, f"connect_{channel}")(identity=identity)
        assert isinstance(client, zmq.asyncio.Socket)
        client.linger = 0
        return client


@asynccontextmanager
async def opened(
    place: Path, transport: Transport, limits: PublishLimits | None = None
) -> AsyncIterator[tuple[LocalSockets, FrontEnd]]:
    sockets = await open_sockets(connection(place, transport), None, limits)
    front_end = FrontEnd(sockets.connection)
    try:
        async with asyncio.timeout(30):
            yield sockets, front_end
    finally:
        front_end.context.destroy(0)
        sockets.close()


async def subscribed(sockets: LocalSockets, front_end: FrontEnd) -> zmq.asyncio.Socket:
    come = asyncio.Event()
    sockets.iopub.on_subscribe = lambda *_: come.set()
    client = front_end.connect("iopub")
    await come.wait()
    return client


@both
def test_requests_and_replies(tmp_path: Path, transport: Transport) -> None:
    async def test() -> None:
        async with opened(tmp_path, transport) as (sockets, front_end):
            for channel in ("shell", "control", "stdin"):
                server = getattr(sockets, channel)
                server.on_message = lambda who, frames, server=server: server.send(who, [*frames, who])
                client = front_end.connect(channel, b"session")
                buffer = os.urandom(1 << 20) * 5
                await client.send_multipart([b"route", b"<IDS|MSG>", buffer])
                assert await client.recv_multipart() == [b"route", b"<IDS|MSG>", buffer, b"session"]
            assert not sockets.shell.send(b"nobody", [b"x"])

    asyncio.run(test())


@both
def test_many_requests_at_once_lose_no_wakeup(tmp_path: Path, transport: Transport) -> None:
    """The descriptor is edge-triggered: a wakeup that is missed would leave messages lying."""

    async def test() -> None:
        async with opened(tmp_path, transport) as (sockets, front_end):

            def answer(who: bytes, frames: list[bytes]) -> None:
                sockets.shell.send(who, frames)

            sockets.shell.on_message = answer
            clients = [front_end.connect("shell", b"%d" % number) for number in range(5)]
            for size in (1, 7, 150, 400):
                for client in clients:
                    for number in range(size):
                        await client.send(b"%d" % number)
                for client in clients:
                    for number in range(size):
                        assert await client.recv() == b"%d" % number

    asyncio.run(test())


@both
def test_heartbeats_come_back(tmp_path: Path, transport: Transport) -> None:
    async def test() -> None:
        async with opened(tmp_path, transport) as (sockets, front_end):
            # jupyter_client's heartbeat makes a key pair of its own for each connection
            public, secret = zmq.curve_keypair()
            req = front_end.context.socket(zmq.REQ)
            req.linger = 0
            req.curve_publickey, req.curve_secretkey = public, secret
            req.curve_serverkey = sockets.connection.curve_publickey
            req.connect(sockets.connection.endpoint("hb"))
            for _ in range(3):
                await req.send(b"ping")
                assert await req.recv() == b"ping"
            dealer = front_end.connect("hb")
            if dealer.type == zmq.DEALER:
                await dealer.send_multipart([b"", b"ping"])
                assert await dealer.recv_multipart() == [b"", b"ping"]

    asyncio.run(test())


@both
def test_a_flood_arrives_in_order(tmp_path: Path, transport: Transport) -> None:
    async def test() -> None:
        async with opened(tmp_path, transport, PublishLimits(high=1 << 16, low=1 << 14)) as (
            sockets,
            front_end,
        ):
            client = await subscribed(sockets, front_end)
            drained = asyncio.Event()
            sockets.iopub.on_drained = drained.set

            async def flood() -> None:
                for number in range(1, 20_001):
                    assert sockets.iopub.publish([b"t", b"%d" % number, bytes(300)], number) == 1
                    if sockets.iopub.full:
                        drained.clear()
                        await drained.wait()
                    elif number % 100 == 0:
                        await asyncio.sleep(0)

            flooding = asyncio.create_task(flood())
            for number in range(1, 20_001):
                assert (await client.recv_multipart())[1] == b"%d" % number
            await flooding
            assert sockets.iopub.written == 20_000

    asyncio.run(test())


def test_every_subscription_is_reported_and_counted(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path, "ipc") as (sockets, front_end):
            topics: list[bytes] = []

            def welcome(subscriber: Any, topic: bytes) -> None:
                topics.append(topic)
                sockets.iopub.send_to(subscriber, [b"welcome"])

            sockets.iopub.on_subscribe = welcome
            clients = []
            for number in range(1, 4):
                clients.append(front_end.connect("iopub"))
                assert await clients[-1].recv() == b"welcome"
                assert sockets.iopub.subscribers == number
            assert topics == [b""] * 3
            gone = asyncio.Event()
            sockets.iopub.on_gone = lambda _: gone.set()
            clients.pop().close(0)
            await gone.wait()
            assert sockets.iopub.subscribers == 2

    asyncio.run(test())


def test_one_that_does_not_read_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    async def test() -> None:
        limits = PublishLimits(high=1 << 20, low=1 << 18, stall=0.2)
        async with opened(tmp_path, "ipc", limits) as (sockets, front_end):
            iopub = sockets.iopub
            assert isinstance(iopub, CurvePublisher)
            lazy = await subscribed(sockets, front_end)  # libzmq takes 1,000 messages for it, and no more
            drained = asyncio.Event()
            iopub.on_drained = drained.set
            number = 0
            while not iopub.everyone.missed:
                number += 1
                iopub.publish([b"t", bytes(20_000)], number)
                if iopub.full:
                    drained.clear()
                    assert iopub.written < number
                    await drained.wait()  # at first because libzmq takes more, in the end because of `stall`
            assert number > 1000
            assert len(await lazy.recv_multipart()) == 2

    asyncio.run(test())


@both
def test_without_the_key_nobody_gets_in(tmp_path: Path, transport: Transport) -> None:
    async def test() -> None:
        async with opened(tmp_path, transport) as (sockets, front_end):
            seen: list[bytes] = []
            sockets.shell.on_message = lambda who, frames: seen.append(frames[0])
            sockets.iopub.on_subscribe = lambda _, topic: seen.append(topic)
            spies = []
            other, _ = zmq.curve_keypair()
            public, secret = zmq.curve_keypair()
            for channel, kind in (("shell", zmq.DEALER), ("iopub", zmq.SUB)):
                for server_key in (None, other):
                    spy = front_end.context.socket(kind)
                    spy.linger = 0
                    spies.append(spy)
                    if server_key is not None:
                        spy.curve_publickey, spy.curve_secretkey, spy.curve_serverkey = (
                            public,
                            secret,
                            server_key,
                        )
                    spy.connect(sockets.connection.endpoint(channel))  # type: ignore[arg-type]
                    if kind == zmq.SUB:
                        spy.subscribe(b"")
                    else:
                        await spy.send(b"let me in")
            friend = await subscribed(sockets, front_end)
            sockets.iopub.on_subscribe = lambda _, topic: seen.append(topic)
            for _ in range(20):  # the spies have long been refused when this is over
                sockets.iopub.publish([b"secret"], 0)
                assert await friend.recv() == b"secret"
                await asyncio.sleep(0.01)
            assert sockets.iopub.subscribers == 1
            assert seen == []

    asyncio.run(test())


def test_socket_files_are_private_and_removed(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path / "new", "ipc"):
            modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "new").iterdir()}
            assert modes == dict.fromkeys(("k-1", "k-2", "k-3", "k-4", "k-5"), 0o600)
        assert list((tmp_path / "new").iterdir()) == []

    asyncio.run(test())


def test_all_or_nothing_is_bound(tmp_path: Path) -> None:
    (tmp_path / "k-4").write_text("in the way")

    async def test() -> None:
        with pytest.raises(BindError, match="is no socket"):
            await open_sockets(connection(tmp_path, "ipc"))

    asyncio.run(test())
    assert [file.name for file in tmp_path.iterdir()] == ["k-4"]
