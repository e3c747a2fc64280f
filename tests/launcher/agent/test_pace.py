"""What may wait a moment for what follows it, and what goes out at once."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from farkernel.launcher.agent.pace import BEGINNING, REPLY, Pace
from farkernel.launcher.agent.tape import Tape
from farkernel.launcher.agent.zmtp import encode_message

BUSY, IDLE = b'{"execution_state": "busy"}', b'{"execution_state":"idle"}'
INPUT, TEXT = b'{"code": "x", "execution_count": 1}', b'{"name": "stdout", "text": "a line"}'


class Said:
    """A kernel's tapes, a pace, and its clock."""

    def __init__(self, directory: Path) -> None:
        self.now = 100.0
        self.pace = Pace(lambda: self.now)
        self._tapes = {
            name: Tape(str(directory), name, 1 << 20, 65536, 65536) for name in ("iopub", "shell", "stdin")
        }
        self._pairs = {name: socket.socketpair() for name in self._tapes}

    def close(self) -> None:
        for pair in self._pairs.values():
            for one in pair:
                one.close()

    def sends(self, name: str, data: bytes) -> float:
        ours, kernels = self._pairs[name]
        kernels.sendall(data)
        self._tapes[name].receive(ours)
        return self.pace.patience(name, self._tapes[name])

    def says(self, name: str, *contents: bytes) -> float:
        """Messages that come together."""
        head = [b"topic", b"<IDS|MSG>", b"s" * 64, b"{}", b"{}", b"{}"]
        return self.sends(name, b"".join(b"".join(encode_message([*head, each])) for each in contents))


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Said]:
    said = Said(tmp_path)
    yield said
    said.close()


def test_the_messages_of_a_cell(kernel: Said) -> None:
    kernel.pace.asked()
    assert kernel.says("iopub", BUSY) == BEGINNING
    assert kernel.says("iopub", INPUT) == BEGINNING
    assert kernel.says("shell", b"{}") == REPLY
    assert kernel.says("iopub", IDLE) == 0


def test_only_the_beginning_of_a_cell_waits_not_what_it_prints_later(kernel: Said) -> None:
    kernel.pace.asked()
    assert kernel.says("iopub", BUSY) == BEGINNING
    kernel.now += BEGINNING
    assert kernel.says("iopub", TEXT) == 0
    assert kernel.says("iopub", TEXT, INPUT) == 0
    assert kernel.says("shell", b"{}") == REPLY


def test_a_reply_that_comes_after_idle_has_nothing_to_wait_for(kernel: Said) -> None:
    kernel.pace.asked()
    assert kernel.says("iopub", BUSY, INPUT, IDLE) == 0
    assert kernel.says("shell", b"{}") == 0


def test_nothing_waits_that_nobody_asked_for(kernel: Said) -> None:
    assert kernel.says("iopub", BUSY) == 0
    assert kernel.says("iopub", TEXT) == 0
    kernel.pace.asked()
    kernel.pace.forget()
    assert kernel.says("shell", b"{}") == 0


def test_each_of_several_requests_has_its_pairs(kernel: Said) -> None:
    kernel.pace.asked()
    kernel.pace.asked()
    for _ in range(2):
        assert kernel.says("iopub", BUSY) == BEGINNING
        kernel.now += 1
        assert kernel.says("shell", b"{}") == REPLY
        assert kernel.says("iopub", IDLE) == 0
        kernel.now += 1
    assert kernel.says("iopub", TEXT) == 0


def test_questions_and_large_messages_go_at_once(kernel: Said) -> None:
    kernel.pace.asked()
    assert kernel.says("stdin", b'{"prompt": "name?"}') == 0
    assert kernel.says("iopub", b"x" * 5000) == 0
    assert kernel.says("shell", b"x" * 5000) == 0


def test_a_message_that_is_not_whole(kernel: Said) -> None:
    kernel.pace.asked()
    whole = b"".join(encode_message([b"x" * 300]))
    assert kernel.sends("iopub", whole[:100]) == 0
    assert kernel.sends("iopub", whole[100:]) == BEGINNING
    assert repr(kernel.pace) == "<Pace, 1 requests>"
