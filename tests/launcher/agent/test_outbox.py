"""The outbox: bytes reach a socket once, whoever sends them."""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from farkernel.launcher.agent import outbox
from farkernel.launcher.agent.outbox import Outbox
from farkernel.launcher.agent.words import NEXT_TAKEN, OUT_END, OUT_NEXT, Words


def make(directory: Path) -> Outbox:
    words = Words(str(directory / "shell.words"))
    return Outbox(words, outbox.create(str(directory / "shell.out"), words))


def test_messages_go_out_in_order_and_numbers_are_taken_once(tmp_path: Path) -> None:
    box = make(tmp_path)
    ours, kernels = socket.socketpair()
    with ours, kernels:
        assert box.add([b"one"], 1)
        assert box.add([b"-", b"two"], 2)
        assert not box.add([b"again"], 2)
        assert box.add([b"pong"])
        assert box.waiting == 11
        assert box.send(ours)
        assert kernels.recv(100) == b"one-twopong"
        assert (box.taken, box.waiting, box.is_clean) == (2, 0, True)


def test_what_does_not_fit_waits(tmp_path: Path) -> None:
    box = make(tmp_path)
    body = random.Random(3).randbytes(5_000_000)
    ours, kernels = socket.socketpair()
    ours.setblocking(False)
    with ours, kernels:
        box.add([body], 1)
        assert not box.send(ours)
        assert not box.is_clean
        got = bytearray()
        while len(got) < len(body):
            got += kernels.recv(1 << 20)
            box.send(ours)
        assert got == body
        assert box.send(ours)
    # What was sent takes no room any more, and offsets go on.
    assert (tmp_path / "shell.out").stat().st_size == 0
    box.add([b"more"], 2)
    assert box.waiting == 4


def test_a_request_counts_only_when_it_is_whole(tmp_path: Path) -> None:
    box = make(tmp_path)
    box.add([b"one"], 1)
    # Killed before the store of OUT_END …
    box.words[OUT_NEXT], box.words[NEXT_TAKEN] = box.words[OUT_END] + 5, 2
    assert Outbox(box.words, box.descriptor).taken == 1
    # … and after it.
    box.words[OUT_END] += 5
    assert Outbox(box.words, box.descriptor).taken == 2


def test_a_full_disk_is_bridged_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = make(tmp_path)
    box.add([b"saved"], 1)

    def full(descriptor: int, data: bytes, position: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    assert box.add([b"+kept"], 2)
    assert not box.add([b"+kept"], 2)
    assert Outbox(box.words, box.descriptor).broken
    ours, kernels = socket.socketpair()
    with ours, kernels:
        assert box.send(ours)
        assert kernels.recv(100) == b"saved+kept"
    assert not Outbox(box.words, box.descriptor).broken


SENDER = """
import select, socket, sys
from farkernel.launcher.agent.outbox import Outbox
from farkernel.launcher.agent.words import Words
target, file, directory = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), sys.argv[3]
target.setblocking(False)
box = Outbox(Words(directory + "/shell.words"), file)
print(box.taken, flush=True)
number = box.taken
while number < 3000:
    number += 1
    box.add([number.to_bytes(4, "big") * (1 + number % 2000)], number)
    while box.waiting > 100000:
        select.select([], [target], [])
        box.send(target)
while not box.send(target):
    select.select([], [target], [])
"""


@pytest.mark.timeout(120)
def test_a_kill_at_any_instant_neither_loses_nor_doubles_a_byte(tmp_path: Path) -> None:
    box = make(tmp_path)
    ours, kernels = socket.socketpair()
    got = bytearray()

    def read() -> None:
        with kernels:
            while data := kernels.recv(65536):
                got.extend(data)
                time.sleep(0.002)  # slow enough for some kills

    reader = threading.Thread(target=read)
    reader.start()
    descriptors = [ours.fileno(), box.descriptor]
    command = [sys.executable, "-c", SENDER, *map(str, descriptors), str(tmp_path)]
    chance = random.Random(9)
    kills = 0
    while True:
        with subprocess.Popen(command, pass_fds=descriptors, stdout=subprocess.PIPE) as sender:
            assert sender.stdout is not None
            sender.stdout.readline()
            try:
                assert sender.wait(0.01 + chance.random() * 0.03) == 0
                break
            except subprocess.TimeoutExpired:
                sender.send_signal(signal.SIGKILL)
                kills += 1
    ours.close()
    reader.join()
    assert kills  # mostly ten or so; a busy machine gets it through between few
    assert got == b"".join(number.to_bytes(4, "big") * (1 + number % 2000) for number in range(1, 3001))
