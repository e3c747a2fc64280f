"""The tape: bytes from a socket become numbered messages, and a SIGKILL at any instant changes none of them."""

from __future__ import annotations

import errno
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.agent import segments, tape, words
from farkernel.launcher.agent.tape import Tape
from farkernel.launcher.agent.zmtp import ZmtpError, encode_command, encode_message

MIB = 1 << 20


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, kernels = socket.socketpair()
    kernels.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MIB)
    with ours, kernels:
        yield ours, kernels


def make(directory: Path, bound: int = 64 * MIB, first: int = 16384, size: int = 65536) -> Tape:
    return Tape(str(directory), "iopub", bound, first, size)


def encoded(*frames: bytes) -> bytes:
    return b"".join(encode_message(frames))


def take(record: Tape, source: socket.socket) -> None:
    while record.receive(source):
        pass


def content(record: Tape, number: int) -> bytes:
    return b"".join(record.message(number)[1])


def test_messages_are_numbered_and_kept_as_they_came(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    record = make(tmp_path)
    assert (record.first, record.last) == (1, 0)
    messages = [encoded(b"topic", b"", b"x" * size) for size in (0, 1, 255, 256, 70000, 200000)]
    before = time.time()
    for message in messages:
        pair[1].sendall(message)
        take(record, pair[0])
    assert (record.first, record.last) == (1, 6)
    assert [content(record, number) for number in range(1, 7)] == messages
    assert before - 1 < record.message(1)[0] / 1e6 < time.time() + 1
    with pytest.raises(KeyError):
        record.message(7)


def test_half_a_message_is_not_one(tmp_path: Path, pair: tuple[socket.socket, socket.socket]) -> None:
    record = make(tmp_path)
    message = encoded(b"a", b"b" * 300)
    for place in range(len(message)):
        assert record.last == 0
        pair[1].sendall(message[place : place + 1])
        assert record.receive(pair[0]) == 1
    assert content(record, 1) == message


def test_commands_between_messages_are_given_out_and_not_numbered(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    record = make(tmp_path)
    pair[1].sendall(encoded(b"1") + encode_command(b"PING", b"\0\0context") + encoded(b"2"))
    take(record, pair[0])
    assert [(command.name, command.body) for command in record.commands] == [(b"PING", b"\0\0context")]
    assert content(record, 1) + content(record, 2) == encoded(b"1") + encoded(b"2")


def test_the_end_of_the_stream(tmp_path: Path, pair: tuple[socket.socket, socket.socket]) -> None:
    record = make(tmp_path)
    assert record.receive(pair[0]) == 0
    pair[1].sendall(encoded(b"last"))
    pair[1].close()
    take_until_end(record, pair[0])
    assert content(record, 1) == encoded(b"last")


def take_until_end(record: Tape, source: socket.socket) -> None:
    with pytest.raises(EOFError):
        take(record, source)


@given(
    st.lists(st.binary(max_size=3000), min_size=1, max_size=20), st.lists(st.integers(0, 2**16), max_size=8)
)
def test_a_successor_finds_the_same(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[bytes], cuts: list[int]
) -> None:
    directory = tmp_path_factory.mktemp("tape")
    messages = [encoded(b"", body) for body in bodies]
    stream = b"".join(messages)
    places = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    ours, kernels = socket.socketpair()
    with ours, kernels:
        for start, stop in itertools.pairwise(places):
            record = make(directory, first=4096, size=4096)
            kernels.sendall(stream[start:stop])
            take(record, ours)
            del record  # and another one takes over
        record = make(directory)
    assert [content(record, number) for number in range(1, record.last + 1)] == messages


def test_times_survive_and_come_from_the_first_sight(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    record = make(tmp_path)
    pair[1].sendall(encoded(b"1") + encoded(b"2"))
    take(record, pair[0])
    seen = [record.message(number)[0] for number in (1, 2)]
    del record
    assert [make(tmp_path).message(number)[0] for number in (1, 2)] == seen


def test_without_its_index_nothing_but_the_times_is_lost(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    record = make(tmp_path)
    pair[1].sendall(encoded(b"1") + encoded(b"2"))
    take(record, pair[0])
    del record
    index = next(tmp_path.glob("*.index"))
    index.write_bytes(index.read_bytes()[:30])  # the second record is torn
    record = make(tmp_path)
    assert [content(record, number) for number in (1, 2)] == [encoded(b"1"), encoded(b"2")]


def test_the_oldest_go_when_the_bound_is_reached_and_are_counted(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    record = make(tmp_path, bound=262144, first=65536, size=65536)
    for number in range(1, 101):
        pair[1].sendall(encoded(number.to_bytes(4, "big") + bytes(10000)))
        take(record, pair[0])
        if number == 20:
            record.received = 20
    assert record.last == 100
    assert 70 < record.first < 90
    dropped = record.dropped()
    assert dropped is not None
    size = len(encoded(bytes(10004)))
    assert dropped == (21, record.first - 1, (record.first - 21) * size)
    assert [
        int.from_bytes(content(record, n)[-10004:-10000], "big") for n in range(record.first, 101)
    ] == list(range(record.first, 101))
    with pytest.raises(KeyError):
        record.message(record.first - 1)
    assert sum(path.stat().st_size for path in tmp_path.glob("*.tape")) <= 262144
    again = make(tmp_path, bound=262144)
    assert (again.first, again.last, again.dropped()) == (record.first, 100, dropped)
    again.dropped_told()
    assert again.dropped() is None


def test_nothing_is_counted_that_the_keeper_had(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    record = make(tmp_path, bound=65536, first=16384, size=16384)
    for number in range(1, 51):
        pair[1].sendall(encoded(bytes(8000)))
        take(record, pair[0])
        record.received = number
    assert record.first > 40
    assert record.dropped() is None
    record.received = 1000
    assert record.received == 50


def test_a_message_larger_than_the_bound_is_kept(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    record = make(tmp_path, bound=65536, first=16384, size=16384)
    large = encoded(b"", random.Random(1).randbytes(MIB))
    pair[1].sendall(encoded(b"small") + large)
    take(record, pair[0])
    assert content(record, 2) == large
    # … and goes when another takes its place.
    for _ in range(30):
        pair[1].sendall(encoded(bytes(8000)))
        take(record, pair[0])
    assert record.first > 2
    assert sum(path.stat().st_size for path in tmp_path.glob("*.tape")) <= 65536


def test_views_outlive_the_segment(tmp_path: Path, pair: tuple[socket.socket, socket.socket]) -> None:
    record = make(tmp_path, bound=65536, first=16384, size=16384)
    first = encoded(b"keep me" * 1000)
    pair[1].sendall(first)
    take(record, pair[0])
    views = record.message(1)[1]
    for _ in range(30):
        pair[1].sendall(encoded(bytes(8000)))
        take(record, pair[0])
    assert record.first > 1
    assert b"".join(views) == first


def test_files_are_used_again_unless_somebody_looks_at_them(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    create = segments.create

    def counted(path: str, *more: int) -> segments.Segment:
        made.append(path)
        return create(path, *more)

    monkeypatch.setattr(segments, "create", counted)
    looked_at = 0
    record = make(tmp_path, bound=256 * 1024)
    held: list[memoryview] = []
    for turn in range(40):
        pair[1].sendall(encoded(bytes([turn]) * 60000))
        take(record, pair[0])
        if turn == 20:
            held = record.message(record.last)[1]
            looked_at = len(made)
    assert looked_at <= 7  # four that are the bound, the first small one, and what the start needs
    assert looked_at < len(made) <= looked_at + 2  # in place of those that are looked at
    assert b"".join(held) == encoded(bytes([20]) * 60000)
    for number in range(record.first, record.last + 1):
        assert content(record, number) == encoded(bytes([number - 1]) * 60000)
    on_disk = sum(path.stat().st_size for path in tmp_path.glob("iopub.*.tape*"))
    assert on_disk <= 256 * 1024 * 9 // 8 + 65536
    successor = make(tmp_path, bound=256 * 1024)
    assert (successor.first, successor.last) == (record.first, record.last)
    assert not list(tmp_path.glob("*.new"))


def test_nonsense_is_refused(tmp_path: Path, pair: tuple[socket.socket, socket.socket]) -> None:
    record = make(tmp_path)
    pair[1].sendall(encoded(b"good") + b"\xf0\xff" + bytes(100))
    with pytest.raises(ZmtpError):
        take(record, pair[0])
    record.new_stream()
    ours, kernels = socket.socketpair()
    with ours, kernels:
        kernels.sendall(encoded(b"of another connection"))
        take(record, ours)
    assert content(record, 2) == encoded(b"of another connection")
    assert make(tmp_path).last == 2


def test_half_a_message_of_a_former_connection_is_void(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    record = make(tmp_path)
    pair[1].sendall(encoded(b"1") + encoded(bytes(50000))[:20000])
    take(record, pair[0])
    record.new_stream()
    del record
    record = make(tmp_path)
    pair[1].sendall(encoded(b"2"))
    take(record, pair[0])
    assert (record.last, content(record, 2)) == (2, encoded(b"2"))
    assert content(make(tmp_path), 2) == encoded(b"2")


def test_a_full_disk_is_bridged_in_memory(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = make(tmp_path)
    pair[1].sendall(encoded(bytes(12000)))
    take(record, pair[0])
    assert not record.in_memory

    def full(descriptor: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(segments, "reserve", full)
    messages = [encoded(bytes([number]) * 30000) for number in range(10)]
    for message in messages:
        pair[1].sendall(message)
        take(record, pair[0])
    assert record.in_memory
    assert [content(record, number) for number in range(2, 12)] == messages
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".new")]
    # Who takes over has not got that memory: what is lost is said, and the connection is of no use.
    again = make(tmp_path)
    assert again.broken
    assert again.last == 11
    dropped = again.dropped()
    assert dropped is not None
    assert (dropped.last, dropped.bytes) == (11, None)


def test_memory_is_bounded(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    record = make(tmp_path)
    monkeypatch.setattr(segments, "reserve", full)
    monkeypatch.setattr(tape, "MEMORY_BOUND", 262144)
    for _ in range(20):
        pair[1].sendall(encoded(bytes(30000)))
        take(record, pair[0])
    assert record.last == 20
    assert record.first > 10
    assert record.dropped() is not None
    pair[1].sendall(encoded(bytes(MIB)))
    with pytest.raises(ZmtpError, match="no room"):
        take(record, pair[0])


def test_words_need_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        words.Words(str(tmp_path / "w"))


def test_a_file_system_without_fallocate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", cannot)
    words.Words(str(tmp_path / "w"))[7] = 2**64 - 1
    assert words.Words(str(tmp_path / "w"))[7] == 2**64 - 1


# -- kill -9
# ----------------------------------------------------------------------------------------------------

WORKER = """
import select, socket, sys
from farkernel.launcher.agent.tape import Tape
source = socket.socket(fileno=int(sys.argv[1]))
record = Tape(sys.argv[2], "iopub", int(sys.argv[3]), 8192, 131072)
print(record.last, flush=True)
while True:
    select.select([source], [], [])
    try:
        while record.receive(source):
            pass
    except EOFError:
        break
print("end", record.last, flush=True)
"""


def flood(target: socket.socket, seed: int, enough: threading.Event) -> None:
    """Numbered messages of all sizes, small ones in ones and twos, until it is enough."""
    with target:
        for message in stream(seed):
            target.sendall(message)
            if enough.is_set():
                return


def stream(seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    number = 0
    while True:
        number += 1
        size = chance.choice((0, 3, 40, 300, 5000, 70000, 400000))
        yield encoded(b"stream", number.to_bytes(8, "big"), chance.randbytes(size))


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("seed", "bound"), [(1, 1 << 30), (2, 1 << 30), (3, 2 << 20)])
def test_a_kill_at_any_instant_neither_loses_nor_doubles_a_byte(
    tmp_path: Path, seed: int, bound: int
) -> None:
    """With the small bound most are let go again, and their files are used again."""
    ours, kernels = socket.socketpair()
    enough = threading.Event()
    writer = threading.Thread(target=flood, args=(kernels, seed, enough))
    writer.start()
    chance = random.Random(seed + 100)
    command = [sys.executable, "-c", WORKER, str(ours.fileno()), str(tmp_path), str(bound)]
    kills = grown = 0
    before = -1
    while kills < 40:
        with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[ours.fileno()]) as worker:
            assert worker.stdout is not None
            last = int(worker.stdout.readline())
            grown += last > before
            before = last
            time.sleep(chance.random() * 0.04)  # the instant of the kill is what is tried
            worker.send_signal(signal.SIGKILL)
            kills += 1
    enough.set()
    done = subprocess.run(command, stdout=subprocess.PIPE, pass_fds=[ours.fileno()], check=True, timeout=60)
    writer.join()
    ours.close()
    said = done.stdout.split()
    assert said[-2] == b"end"
    record = Tape(str(tmp_path), "iopub", bound, 8192, 131072)
    assert record.last == int(said[-1])
    assert grown > 20  # it did work in between
    expected = stream(seed)
    assert (record.first == 1) == (bound == 1 << 30)
    for number, message in enumerate(itertools.islice(expected, record.last), 1):
        assert number < record.first or content(record, number) == message, number
    assert not record.broken
