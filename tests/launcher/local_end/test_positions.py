"""What was fully written to whom, known after a kill: the file alone, and with real kills in mid-flood."""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from farkernel.launcher.local_end import positions
from farkernel.launcher.local_end.positions import PAGE, STAGING, PositionFile, Staging

FLOOD = Path(__file__).with_name("flooding_server.py")
ME = os.getpid()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def staged(size: int) -> Staging:
    staging = Staging()
    staging.view[:size] = bytes(index % 251 for index in range(size))
    return staging


# -- the file


def test_a_fresh_file_knows_nobody(tmp_path: Path) -> None:
    file = PositionFile(tmp_path / "p")
    assert file.last_written() is None
    assert file.waiting == 0
    assert (tmp_path / "p").stat().st_mode & 0o777 == 0o600
    file.remove()
    assert not (tmp_path / "p").exists()


def test_positions_are_found_again_by_process(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, _ = pair
    first = PositionFile(tmp_path / "p")
    slot = first.claim(ME, 41, ours.fileno())
    slot.advance(42)
    assert first.last_written() == 42
    first.close()  # a killed keeper does not even do that

    second = PositionFile(tmp_path / "p")
    assert (second.waiting, second.last_written()) == (1, 42)
    assert second.claim(ME, 99, ours.fileno()).position == 42
    assert second.waiting == 0
    assert second.claim(ME, 99, ours.fileno()).position == 99  # this one is new
    assert second.last_written() == 42
    second.close()


def test_a_subscriber_that_left_or_died_does_not_count(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, _ = pair
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    file = PositionFile(tmp_path / "p")
    file.claim(process.pid, 1, ours.fileno())
    left = file.claim(ME, 2, ours.fileno())
    file.claim(ME, 3, ours.fileno())
    file.release(left)
    file.close()
    process.communicate()
    again = PositionFile(tmp_path / "p")
    assert (again.waiting, again.last_written()) == (1, 3)
    again.forget_waiting()
    assert (again.waiting, again.last_written()) == (0, None)
    again.close()
    assert (tmp_path / "p").stat().st_size == 4 * PAGE
    reused = PositionFile(tmp_path / "p")
    for number in range(3):
        reused.claim(ME, number, ours.fileno())
    reused.close()
    assert (tmp_path / "p").stat().st_size == 4 * PAGE


def test_connections_of_one_process_go_on_from_the_last_of_them(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, _ = pair
    file = PositionFile(tmp_path / "p")
    for position in (7, 5, 6):
        file.claim(ME, position, ours.fileno())
    file.close()
    again = PositionFile(tmp_path / "p")
    assert [again.claim(ME, 99, ours.fileno()).position for _ in range(4)] == [5, 5, 5, 99]
    again.close()


def test_another_process_with_the_same_pid_is_not_taken_for_it(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = PositionFile(tmp_path / "p")
    file.claim(ME, 7, pair[0].fileno())
    file.close()
    monkeypatch.setattr(positions, "_started", lambda pid: 1)  # pids cannot be made to come round here
    again = PositionFile(tmp_path / "p")
    assert again.waiting == 0
    again.close()


def test_what_is_no_position_file_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"x" * 10000)
    file = PositionFile(tmp_path / "p")
    assert file.last_written() is None
    file.close()
    assert (tmp_path / "p").stat().st_size == PAGE


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "p").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        PositionFile(tmp_path / "p")


# -- writing


def test_the_position_is_what_the_socket_took(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    file = PositionFile(tmp_path / "p")
    slot = file.claim(ME, 10, ours.fileno())
    assert slot.send(ours, staged(100), 100, [11, 12], [40, 100], guard=True) == 100
    assert slot.position == 12
    assert theirs.recv(200) == bytes(range(100))
    assert slot.send(ours, staged(100), 100, [], [], guard=False) == 100
    assert slot.position == 12  # a piece of a message
    assert slot.send(ours, staged(1), 1, [13], [1], guard=True) == 1
    assert slot.position == 13
    file.close()


def test_a_full_socket_takes_a_part_or_nothing(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    file = PositionFile(tmp_path / "p")
    slot = file.claim(ME, 0, ours.fileno())
    staging = staged(STAGING)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    sent = slot.send(ours, staging, STAGING, [1, 2], [1000, STAGING], guard=True)
    assert 1000 < sent < STAGING
    assert slot.position == 1
    with pytest.raises(BlockingIOError):
        slot.send(ours, staging, STAGING - sent, [2], [STAGING - sent], guard=True)
    assert slot.position == 1
    theirs.close()
    with pytest.raises(BrokenPipeError):
        slot.send(ours, staging, STAGING - sent, [2], [STAGING - sent], guard=True)
    assert slot.position == 1
    file.close()


def test_without_sendmmsg_the_position_is_the_same(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(positions, "_sendmmsg", None)  # as on macOS
    ours, theirs = pair
    file = PositionFile(tmp_path / "p")
    slot = file.claim(ME, 10, ours.fileno())
    assert slot.send(ours, staged(100), 100, [11, 12], [40, 100], guard=True) == 100
    assert slot.position == 12
    assert theirs.recv(200) == bytes(range(100))
    file.close()


@pytest.mark.parametrize("guard", [True, False])
def test_a_guarded_batch_keeps_the_connection_until_it_is_read(guard: bool) -> None:
    ours, theirs = socket.socketpair()
    slot = positions.anonymous_slot()
    slot.take((0, 0), 0, ours.fileno())
    slot.send(ours, staged(100), 100, [1], [100], guard=guard)
    ours.close()  # as at the end of the process
    with theirs:
        assert hung_up(theirs) is not guard
        received = b""
        while len(received) < 100:
            received += theirs.recv(30)
        assert hung_up(theirs)
        assert theirs.recv(1) == b""
    slot.close()


def hung_up(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def test_where_no_descriptors_can_be_in_flight_it_goes_on_without(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    slot = positions.anonymous_slot()
    slot.take((0, 0), 0, 1 << 20)  # a descriptor that cannot be sent
    sent = slot.send(ours, staged(100), 100, [1], [100], guard=True)
    assert sent == 99  # the part before it went out
    assert slot.position == 0
    assert slot.send(ours, staged(1), 1, [1], [1], guard=True) == 1
    assert slot.position == 1
    assert len(theirs.recv(200)) == 100
    slot.close()


# -- kills


class Flood:
    """The publishing process, and its successors."""

    def __init__(self, place: Path, last: int) -> None:
        self.place = place
        self.last = last
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        arguments = [str(self.place / "k"), str(self.place / "p"), str(self.last), "20"]
        return subprocess.Popen([sys.executable, str(FLOOD), *arguments], stdout=subprocess.PIPE)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def replace(self) -> None:
        self.kill()
        self.process = self._start()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pause", [0.0, 0.02], ids=["a quick reader", "one that is behind"])
def test_each_message_arrives_once_in_order_over_twenty_kills(tmp_path: Path, pause: float) -> None:
    """`pause`: seconds after every 100 messages.  A reader that is behind has paused libzmq's reading most of the time:
    what lies in its socket when the publisher is killed is the dangerous part."""
    random_numbers = random.Random(20)
    flood = Flood(tmp_path, 100_000_000)
    expected = 1
    with zmq.Context() as context, context.socket(zmq.SUB) as client:
        client.linger = 0
        client.connect(f"ipc://{tmp_path}/k-2")
        client.subscribe(b"")
        try:
            for _ in range(20):
                for _ in range(random_numbers.randint(3, 15)):
                    expected = read(client, expected, 100)
                    time.sleep(pause)
                flood.replace()
            expected = read(client, expected, 10_000)
        finally:
            flood.kill()
    assert expected > 10_000 + 20 * 300


def read(client: zmq.Socket[bytes], expected: int, count: int) -> int:
    """So many messages with the expected numbers; the number after them."""
    for number in range(expected, expected + count):
        assert client.poll(20_000), f"message {number} did not come"
        _, text, payload = client.recv_multipart()
        assert int(text) == number
        assert len(payload) == (900_000 if number % 1000 == 0 else 300)
    return expected + count
