"""The local end's own ZMTP servers, against clients of libzmq and against bytes that no client would send."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import pytest
import zmq
import zmq.asyncio

from farkernel.launcher.agent import zmtp
from farkernel.launcher.local_end.connections import Limits
from farkernel.launcher.local_end.contract import (
    CHANNELS,
    BindError,
    Channel,
    ConnectionInfo,
    ConnectionInfoError,
    LocalSockets,
    Subscriber,
)
from farkernel.launcher.local_end.endpoints import bind
from farkernel.launcher.local_end.publisher import Publisher, PublishLimits
from farkernel.launcher.local_end.sockets import Router, open_sockets

Transport = Literal["ipc", "tcp"]
pytestmark = pytest.mark.timeout(40)


def connection(place: Path, transport: Transport = "ipc") -> ConnectionInfo:
    ports = {
        f"{channel}_port": number if transport == "ipc" else 0 for number, channel in enumerate(CHANNELS, 1)
    }
    ip = str(place / "k") if transport == "ipc" else "127.0.0.1"
    return ConnectionInfo.from_dict({"transport": transport, "ip": ip, **ports})


class Clients:
    """libzmq's sockets, as a front end makes them."""

    def __init__(self, sockets: LocalSockets) -> None:
        self.sockets = sockets
        self.context = zmq.asyncio.Context()

    def connect(self, kind: int, channel: Channel, **options: Any) -> zmq.asyncio.Socket:
        client = self.context.socket(kind)
        for name, value in options.items():
            setattr(client, name, value)
        client.connect(self.sockets.connection.endpoint(channel))
        return client

    async def subscriber(self, topic: bytes = b"", **options: Any) -> zmq.asyncio.Socket:
        """Once the publisher has its subscription."""
        come = asyncio.get_running_loop().create_future()
        before = self.sockets.iopub.on_subscribe
        self.sockets.iopub.on_subscribe = lambda *_: None if come.done() else come.set_result(None)
        client = self.connect(zmq.SUB, "iopub", **options)
        client.subscribe(topic)
        await come
        self.sockets.iopub.on_subscribe = before
        return client


@asynccontextmanager
async def opened(
    place: Path, transport: Transport = "ipc", limits: PublishLimits | None = None
) -> AsyncIterator[tuple[LocalSockets, Clients]]:
    sockets = await open_sockets(connection(place, transport), place / "positions", limits)
    clients = Clients(sockets)
    try:
        async with asyncio.timeout(30):
            yield sockets, clients
    finally:
        clients.context.destroy(0)
        sockets.close()


async def until(condition: Callable[[], object]) -> None:
    """For states that nothing announces."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.002)


def run(test: Awaitable[None]) -> None:
    async def main() -> None:
        await test

    asyncio.run(main())


both = pytest.mark.parametrize("transport", ["ipc", "tcp"])


# -- ROUTER


@both
def test_requests_and_replies_with_routing_frames_and_large_buffers(
    tmp_path: Path, transport: Transport
) -> None:
    async def test() -> None:
        async with opened(tmp_path, transport) as (sockets, clients):
            for channel in ("shell", "control", "stdin"):
                server = getattr(sockets, channel)
                server.on_message = lambda who, frames, server=server: server.send(who, [*frames, who])
                client = clients.connect(zmq.DEALER, channel, identity=b"session")
                buffer = os.urandom(1 << 20) * 50
                await client.send_multipart([b"route", b"", b"<IDS|MSG>", buffer])
                assert await client.recv_multipart() == [b"route", b"", b"<IDS|MSG>", buffer, b"session"]

    run(test())


def test_each_client_gets_its_own_replies(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as (sockets, clients):
            seen = set()

            def answer(who: bytes, frames: list[bytes]) -> None:
                seen.add(who)
                sockets.shell.send(who, frames)

            sockets.shell.on_message = answer
            dealers = [clients.connect(zmq.DEALER, "shell") for _ in range(20)]
            for number, dealer in enumerate(dealers):
                await dealer.send(b"%d" % number)
            assert [await dealer.recv() for dealer in dealers] == [b"%d" % number for number in range(20)]
            assert len(seen) == 20
            assert all(who.startswith(b"\0") and len(who) == 5 for who in seen)

    run(test())


def test_an_identity_is_handed_over_to_the_new_connection(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as (sockets, clients):
            come: asyncio.Queue[bytes] = asyncio.Queue()
            sockets.stdin.on_message = lambda who, frames: come.put_nowait(frames[0])
            # The former does not connect again, or it would take the identity back.
            former = clients.connect(zmq.DEALER, "stdin", identity=b"me", reconnect_ivl=-1)
            await former.send(b"former")
            assert await come.get() == b"former"
            latter = clients.connect(zmq.DEALER, "stdin", identity=b"me")
            await latter.send(b"latter")
            assert await come.get() == b"latter"
            assert sockets.stdin.send(b"me", [b"for the latter"])
            assert await latter.recv() == b"for the latter"
            assert not await former.poll(50)

    run(test())


def test_who_is_gone_gets_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as (sockets, clients):
            assert not sockets.shell.send(b"nobody", [b"x"])
            come = asyncio.Event()
            sockets.shell.on_message = lambda *_: come.set()
            client = clients.connect(zmq.DEALER, "shell", identity=b"me")
            await client.send(b"x")
            await come.wait()
            client.close(0)
            await until(lambda: not sockets.shell.send(b"me", [b"x"]))

    run(test())


def test_a_client_that_never_reads_is_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with opened(tmp_path, limits=PublishLimits(waiting=1 << 20)) as (sockets, _):
            reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/k-1", limit=1024)
            writer.write(zmtp.GREETING + ready("DEALER", b"me"))
            come = asyncio.Event()
            sockets.shell.on_message = lambda *_: come.set()
            writer.write(b"\x00\x01x")
            await come.wait()
            sent = 0
            while sockets.shell.send(b"me", [bytes(100_000)]):
                sent += 1
                assert sent < 100
            assert not sockets.shell.send(b"me", [b"x"])
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            del reader

    run(test())
    assert "it does not read" in caplog.text


def test_a_fault_in_a_handler_takes_no_other_message(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as (sockets, clients):
            faults: list[Any] = []
            asyncio.get_running_loop().set_exception_handler(
                lambda _, context: faults.append(context["exception"])
            )

            def handle(who: bytes, frames: list[bytes]) -> None:
                if frames == [b"bad"]:
                    raise KeyError("a fault")
                sockets.shell.send(who, frames)

            sockets.shell.on_message = handle
            client = clients.connect(zmq.DEALER, "shell")
            await client.send(b"bad")
            await client.send(b"good")
            assert await client.recv() == b"good"
            assert [type(fault) for fault in faults] == [KeyError]

    run(test())


# -- heartbeat


@both
def test_heartbeats_come_back(tmp_path: Path, transport: Transport) -> None:
    async def test() -> None:
        async with opened(tmp_path, transport) as (_, clients):
            req = clients.connect(zmq.REQ, "hb")
            for _ in range(3):
                await req.send(b"ping")
                assert await req.recv() == b"ping"
            dealer = clients.connect(zmq.DEALER, "hb")
            await dealer.send_multipart([b"", b"ping"])
            assert await dealer.recv_multipart() == [b"", b"ping"]

    run(test())


# -- XPUB


@both
def test_published_messages_arrive_in_order_and_whole(tmp_path: Path, transport: Transport) -> None:
    async def test() -> None:
        async with opened(tmp_path, transport) as (sockets, clients):
            first, second = [await clients.subscriber() for _ in range(2)]
            large = os.urandom(1 << 20) * 50
            assert sockets.iopub.subscribers == 2
            for number in range(1, 2001):
                assert (
                    sockets.iopub.publish([b"t", b"%d" % number, b"" if number % 1000 else large], number)
                    == 2
                )
            for number in range(1, 2001):
                for client in (first, second):
                    got = await client.recv_multipart()
                    assert got == [b"t", b"%d" % number, b"" if number % 1000 else large]
            assert sockets.iopub.written == 2000

    run(test())


def test_only_matching_topics_are_sent_and_positions_go_on_all_the_same(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as (sockets, clients):
            client = await clients.subscriber(b"stream.")
            assert sockets.iopub.publish([b"status", b"1"], 1) == 0
            assert sockets.iopub.written == 1
            assert sockets.iopub.publish([b"stream.stdout", b"2"], 2) == 1
            assert sockets.iopub.publish([b"status", b"3"], 3) == 0
            assert await client.recv_multipart() == [b"stream.stdout", b"2"]
            assert sockets.iopub.written == 3
            client.unsubscribe(b"stream.")
            await until(lambda: sockets.iopub.subscribers == 0)
            assert sockets.iopub.publish([b"stream.stdout", b"4"], 4) == 0
            assert sockets.iopub.written == 4

    run(test())


def test_every_subscription_is_reported_and_can_be_welcomed(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as (sockets, clients):
            seen = []

            def welcome(subscriber: Subscriber, topic: bytes) -> None:
                seen.append((subscriber.pid, topic))
                sockets.iopub.send_to(subscriber, [topic, b"welcome"])

            sockets.iopub.on_subscribe = welcome
            clients_seen = []
            for number in range(1, 4):  # the same topic by several clients, each welcomed alone
                client = clients.connect(zmq.SUB, "iopub")
                clients_seen.append(client)
                client.subscribe(b"")
                assert await client.recv_multipart() == [b"", b"welcome"]
                assert len(seen) == number
            assert seen == [(os.getpid(), b"")] * 3
            assert not await clients_seen[0].poll(20)

    run(test())


def test_a_subscriber_that_leaves_is_told_of(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as (sockets, clients):
            gone = asyncio.Event()
            sockets.iopub.on_gone = lambda _: gone.set()
            client = await clients.subscriber()
            client.close(0)
            await gone.wait()
            assert sockets.iopub.subscribers == 0
            assert sockets.iopub.publish([b"t"], 1) == 0

    run(test())


def ready(socket_type: str, identity: bytes = b"") -> bytes:
    """The READY of a client, which our own codec makes."""
    handshake = zmtp.Handshake("SUB" if socket_type == "SUB" else "DEALER", identity)
    return handshake.receive(zmtp.GREETING)


async def raw_subscriber(place: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """One that reads nothing by itself: what it does not take stays in the sockets."""
    reader, writer = await asyncio.open_unix_connection(f"{place}/k-4", limit=1 << 10)
    writer.write(zmtp.GREETING + ready("SUB") + zmtp.encode_subscription(b"", 1))
    return reader, writer


async def read_messages(reader: asyncio.StreamReader, count: int) -> list[list[bytes]]:
    """From the start of a connection."""
    handshake = zmtp.Handshake("SUB")
    parser = zmtp.MessageParser()
    messages: list[list[bytes]] = []
    while len(messages) < count:
        data = await reader.read(1 << 18)
        assert data
        if not handshake.done:
            handshake.receive(data)
            data = handshake.surplus
        messages += [event for event in parser.feed(data) if isinstance(event, list)]
    return messages


def test_a_subscriber_that_does_not_read_holds_the_others_up_and_then_no_more(tmp_path: Path) -> None:
    async def test() -> None:
        limits = PublishLimits(high=1 << 20, low=1 << 18, stall=0.3)
        async with opened(tmp_path, limits=limits) as (sockets, clients):
            iopub = sockets.iopub
            assert isinstance(iopub, Publisher)
            lazy: list[Subscriber] = []
            iopub.on_subscribe = lambda subscriber, _: lazy.append(subscriber)
            reader, writer = await raw_subscriber(tmp_path)
            await until(lambda: lazy)
            eager = await clients.subscriber()
            drained = asyncio.Event()
            iopub.on_drained = drained.set

            number = 0
            while not iopub.full:
                number += 1
                assert iopub.publish([b"t", b"%d" % number, bytes(50_000)], number) == 2
            held = number
            assert iopub.written < held
            await drained.wait()  # after `stall`: it is not waited for any more
            assert not iopub.full
            assert lazy[0].missed == 0
            for _ in range(10):
                number += 1
                assert iopub.publish([b"t", b"%d" % number], number) == 1
            assert lazy[0].missed == 10
            for expected in range(1, number + 1):
                assert (await eager.recv_multipart())[1] == b"%d" % expected
            await until(lambda: iopub.written == number)

            # It wakes up: it gets what was waiting for it, and what comes from then on.
            got = await read_messages(reader, held)
            assert [message[1] for message in got] == [b"%d" % n for n in range(1, held + 1)]
            await until(lambda: iopub.publish([b"t", b"again"], number + 1) == 2)
            assert lazy[0].missed >= 10
            writer.close()
            await writer.wait_closed()

    run(test())


def test_drained_comes_when_the_reader_has_taken_enough(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path, limits=PublishLimits(high=1 << 20, low=1 << 18)) as (sockets, clients):
            client = await clients.subscriber()
            drained = asyncio.Event()
            sockets.iopub.on_drained = drained.set
            sockets.iopub.publish([b"t", bytes(10 << 20)], 1)
            assert sockets.iopub.full
            await drained.wait()
            assert not sockets.iopub.full
            assert len((await client.recv_multipart())[1]) == 10 << 20

    run(test())


def test_what_is_published_just_before_the_end_arrives(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as (sockets, clients):
            client = await clients.subscriber()
            sockets.iopub.publish([b"t", b"last words"], 1)
            sockets.close()
            assert await client.recv_multipart() == [b"t", b"last words"]

    run(test())


# -- bad peers


@pytest.mark.parametrize("channel", range(1, 6))
@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        zmtp.GREETING + b"\x04\x16\x05READY\x0bSocket-Type\0\0\0\x00",
        zmtp.GREETING + b"\x06\xff\xff\xff\xff\xff\xff\xff\xff",
        zmtp.GREETING + b"\x00" * 64,
        zmtp.GREETING + ready("DEALER") + b"\x02\xff\xff\xff\xff\xff\xff\xff\xff",
        zmtp.GREETING + ready("SUB") + b"\xff\xff\xff",
        zmtp.GREETING + ready("SUB") + zmtp.encode_error("go away"),
    ],
)
def test_garbage_costs_nobody_else(tmp_path: Path, channel: int, data: bytes) -> None:
    async def test() -> None:
        async with opened(tmp_path) as (_, clients):
            reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/k-{channel}")
            writer.write(data)
            with suppress(OSError):  # cut, with a reset if something of it was not read
                await reader.read()
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            req = clients.connect(zmq.REQ, "hb")
            await req.send(b"ping")
            assert await req.recv() == b"ping"

    run(test())


def test_endless_frames_are_cut_off(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as (_, _clients):
            reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/k-1")
            writer.write(zmtp.GREETING + ready("DEALER") + b"\x01\x00" * (zmtp.MAX_FRAMES + 1))
            with suppress(OSError):
                await reader.read()
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    run(test())


def test_a_slow_handshake_has_a_deadline(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with opened(tmp_path, limits=PublishLimits(handshake=0.1)) as (_, _clients):
            reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/k-1")
            writer.write(zmtp.GREETING[:20])
            assert await reader.read() == zmtp.GREETING
            writer.close()
            await writer.wait_closed()

    run(test())
    assert "no handshake in time" in caplog.text


def test_so_many_connections_and_no_more(tmp_path: Path) -> None:
    async def test() -> None:
        bound = bind(connection(tmp_path), "shell")
        router = Router(asyncio.get_running_loop(), bound, "shell", Limits(connections=3))
        taken = [await asyncio.open_unix_connection(f"{tmp_path}/k-1") for _ in range(3)]
        for reader, _ in taken:
            assert await reader.readexactly(64) == zmtp.GREETING
        reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/k-1")
        assert await reader.read() == b""
        writer.close()
        taken[0][1].close()  # one goes, one may come
        await taken[0][1].wait_closed()
        greeting = b""
        for _ in range(100):
            again_reader, again = await asyncio.open_unix_connection(f"{tmp_path}/k-1")
            greeting = await again_reader.read(64)
            again.close()
            if greeting:
                break
        assert greeting == zmtp.GREETING
        for _, one in taken[1:]:
            one.close()
        router.close()

    run(test())


@both
def test_a_ping_is_answered(tmp_path: Path, transport: Transport) -> None:
    async def test() -> None:
        async with opened(tmp_path, transport) as (_, clients):
            # libzmq drops a peer that does not answer its PING within the timeout.
            client = await clients.subscriber(heartbeat_ivl=20, heartbeat_timeout=40)
            gone = asyncio.Event()
            clients.sockets.iopub.on_gone = lambda _: gone.set()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(gone.wait(), 0.3)
            clients.sockets.iopub.publish([b"t"], 1)
            assert await client.recv() == b"t"

    run(test())


# -- endpoints


def test_socket_files_are_private_and_removed(tmp_path: Path) -> None:
    place = tmp_path / "new"

    async def test() -> None:
        sockets = await open_sockets(connection(place))
        files = sorted(place.iterdir())
        assert [file.name for file in files] == ["k-1", "k-2", "k-3", "k-4", "k-5"]
        assert {stat.filemode(file.stat().st_mode) for file in files} == {"srw-------"}
        assert stat.filemode(place.stat().st_mode) == "drwx------"
        (place / "k-2").unlink()  # a front end's cleanup_ipc_files
        (place / "k-3").unlink()
        other = socket.socket(socket.AF_UNIX)
        other.bind(str(place / "k-3"))
        sockets.close()
        sockets.close()
        assert [file.name for file in place.iterdir()] == ["k-3"]  # that is somebody else's now
        other.close()

    run(test())


def test_a_stale_socket_file_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    info = connection(tmp_path)
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "k-1"))
    stale.close()
    living = bind(info, "shell")
    with pytest.raises(BindError, match="Another program listens there"):
        bind(info, "shell")
    living.close()
    bind(info, "shell").close()


def test_other_files_are_not_touched(tmp_path: Path) -> None:
    file = tmp_path / "k-1"
    file.write_text("precious")
    with pytest.raises(BindError, match=r"ipc://.*k-1: a file is there that is no socket\. Remove"):
        bind(connection(tmp_path), "shell")
    file.unlink()
    file.symlink_to("elsewhere")
    with pytest.raises(BindError, match="no socket"):
        bind(connection(tmp_path), "shell")


def test_a_path_that_is_too_long_says_so(tmp_path: Path) -> None:
    with pytest.raises(BindError, match=r"may have 107 bytes, this one has \d{3}\. Set XDG_RUNTIME_DIR"):
        bind(connection(tmp_path / ("x" * 100)), "shell")


def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(BindError, match="others can write"):
        bind(connection(tmp_path), "shell")
    tmp_path.chmod(0o1777)  # like /tmp: nobody can replace what is ours
    bind(connection(tmp_path), "shell").close()


def test_all_or_nothing_is_bound(tmp_path: Path) -> None:
    (tmp_path / "k-4").write_text("in the way")

    async def test() -> None:
        with pytest.raises(BindError):
            await open_sockets(connection(tmp_path))

    run(test())
    assert [file.name for file in tmp_path.iterdir()] == ["k-4"]


def test_a_port_in_use_says_so() -> None:
    info = connection(Path("/"), "tcp")
    taken = bind(info, "shell")
    with pytest.raises(BindError, match="Another program listens there"):
        bind(info.with_ports({**info.ports, "shell": taken.port}), "shell")
    taken.close()


@pytest.mark.parametrize("ip", ["not an address", "203.0.113.1"])
def test_addresses_that_are_not_ours(ip: str) -> None:
    info = ConnectionInfo("tcp", ip, dict.fromkeys(CHANNELS, 0))
    with pytest.raises(BindError, match="Cannot listen on tcp://"):
        bind(info, "shell")


# -- connection files


def test_connection_info_goes_back_to_what_it_was() -> None:
    content = {
        "transport": "ipc",
        "ip": "/run/k",
        "shell_port": 1,
        "control_port": 2,
        "stdin_port": 3,
        "iopub_port": 4,
        "hb_port": 5,
        "key": "secret-key",
        "signature_scheme": "hmac-sha512",
        "curve_publickey": "p" * 40,
        "curve_secretkey": "s" * 40,
    }
    info = ConnectionInfo.from_dict({**content, "kernel_name": "x"})
    assert info.as_dict() == content
    assert ConnectionInfo.from_dict({**content, "key": b"secret-key", "curve_secretkey": b"s" * 40}) == info
    assert info.endpoint("hb") == "ipc:///run/k-5"
    assert "secret" not in repr(info)
    assert "ssss" not in repr(info)


@pytest.mark.parametrize(
    "change",
    [
        {"transport": "udp"},
        {"ip": ""},
        {"ip": None},
        {"ip": "a\0b"},
        {"shell_port": 2},
        {"shell_port": 0},
        {"shell_port": "1"},
        {"shell_port": 65536},
        {"shell_port": True},
        {"key": 5},
        {"curve_publickey": "short", "curve_secretkey": "s" * 40},
        {"curve_publickey": "p" * 40},
    ],
)
def test_connection_info_that_makes_no_sense(change: dict[str, Any]) -> None:
    content = {"transport": "ipc", "ip": "/k", **{f"{c}_port": n for n, c in enumerate(CHANNELS, 1)}}
    with pytest.raises(ConnectionInfoError, match="connection file cannot be used"):
        ConnectionInfo.from_dict({**content, **change})
