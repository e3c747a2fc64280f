"""The wire that tests of links rely on: it delays without narrowing, narrows, cuts at the byte, and is silent."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from .wire import TO_CLIENT, TO_SERVER, Cut, Wire

MEGABYTE = 1 << 20


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that sends back what it gets, to one client after the other."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    try:
                        while data := connection.recv(65536):
                            connection.sendall(data)
                    except OSError:
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@pytest.fixture
def wire(echo: int) -> Iterator[Wire]:
    with Wire(echo).running() as wire:
        yield wire


def back(wire: Wire, size: int) -> tuple[int, float]:
    """Send so many bytes; how many came back, and how long that took."""
    with closing(socket.create_connection(("127.0.0.1", wire.port), 30)) as client:
        began = time.monotonic()
        sender = threading.Thread(target=_send, args=(client, size))
        sender.start()
        count = 0
        while count < size and (data := _receive(client)):
            count += len(data)
        sender.join(10)
        return count, time.monotonic() - began


def _send(client: socket.socket, size: int) -> None:
    try:
        client.sendall(bytes(size))
    except OSError:
        pass


def _receive(client: socket.socket) -> bytes:
    try:
        return client.recv(65536)
    except OSError:
        return b""


def test_a_long_wire_is_as_wide_as_a_short_one(wire: Wire) -> None:
    wire.delay = 0.2
    count, seconds = back(wire, 4 * MEGABYTE)
    assert count == 4 * MEGABYTE
    assert 0.4 <= seconds < 10  # piece after piece it would be two minutes


def test_a_narrow_wire_takes_its_time(wire: Wire) -> None:
    wire.rate = 100_000.0
    count, seconds = back(wire, 100_000)
    assert count == 100_000
    assert seconds >= 0.9


@pytest.mark.parametrize(("direction", "cut"), [(TO_SERVER, Cut(5000, 5000)), (TO_CLIENT, Cut(20_000, 5000))])
def test_it_cuts_after_that_many_bytes(wire: Wire, direction: int, cut: Cut) -> None:
    wire.cut_after = lambda: (direction, 5000)
    count, _ = back(wire, 20_000)
    assert count <= 5000
    (made,) = wire.cuts
    assert (made.to_server, made.to_client)[direction] == 5000
    assert made.to_server <= cut.to_server
    assert made.to_client <= cut.to_client
    wire.cut_after = None
    assert back(wire, 20_000)[0] == 20_000


def test_silence_loses_nothing_and_a_stranded_connection_stays_silent(wire: Wire) -> None:
    with closing(socket.create_connection(("127.0.0.1", wire.port), 30)) as client:
        client.sendall(b"one")
        assert client.recv(3) == b"one"
        wire.silence()
        client.sendall(b"two")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(3)
        wire.heal()
        client.settimeout(10)
        assert client.recv(3) == b"two"
        wire.strand()
        client.sendall(b"six")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(3)
