"""A link that is cut all the time: the cells' results are those of a link that never is (DESIGN §6)."""

from __future__ import annotations

import base64
import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from ..sites.engine import Engine, is_notice, run_cell
from ..sites.far import Far, Notebook, far_site
from ..sites.wire import TO_CLIENT, TO_SERVER

pytestmark = [pytest.mark.servers]

AHEAD = 4  # cells that wait in the kernel's queue
LOGIN = 3500  # bytes to the client before it is logged in, and more follow

# What the kernel does with a cell's blob: says what it got, and as much again, in every way that a kernel can speak.
WORK = """
import base64, hashlib, random, sys
from comm import create_comm
from IPython.display import display
def work(number, blob):
    digest = hashlib.sha256(blob.encode()).hexdigest()
    source = random.Random(digest)
    size = len(blob) // 4
    for line in range(20):
        print(number, line, base64.b64encode(source.randbytes(size * 3 // 80)).decode())
        if line % 7 == 0:
            print(digest, line, file=sys.stderr)
    display({"text/plain": digest, "application/x-bulk": base64.b64encode(source.randbytes(size * 3 // 4)).decode()},
            raw=True)
    create_comm(target_name="bulk", data={"number": number}, buffers=[source.randbytes(size), b"", source.randbytes(size)])
    if number % 5 == 0:
        print("told", hashlib.sha256(input(f"{number}?").encode()).hexdigest())
    if number % 11 == 0:
        raise ValueError(number)
    return digest
"""


@pytest.fixture
def far(engine: Engine, home: Path) -> Iterator[Far]:
    with far_site(engine, home.parent) as far:
        yield far


class Cutter:
    """Cuts each new connection after a random number of bytes in a random direction, until it has done so often enough."""

    def __init__(self, wanted: int, mean: int, seed: int) -> None:
        self._random = random.Random(seed)
        self._left = wanted
        self._mean = mean

    def __call__(self) -> tuple[int, int]:
        if not self._left:
            return TO_SERVER, -1
        self._left -= 1
        direction = self._random.choice((TO_SERVER, TO_CLIENT))
        if self._random.random() < 0.15:
            return direction, self._random.randrange(LOGIN)
        return direction, self._random.randrange(2 * self._mean)


def blob(number: int, size: int) -> str:
    return base64.b64encode(random.Random(number).randbytes(size * 3 // 4)).decode()


class Reader:
    """Runs cells some ahead of their results, and writes down all that comes back, in order."""

    def __init__(self, notebook: Notebook) -> None:
        self._client = notebook.client
        self._sockets = {
            channel.socket: channel
            for channel in (
                self._client.iopub_channel,
                self._client.shell_channel,
                self._client.stdin_channel,
            )
        }
        self._poller = zmq.Poller()
        for socket in self._sockets:
            self._poller.register(socket, zmq.POLLIN)
        self._cells: dict[str, int] = {}
        self.outputs: list[Any] = []
        self.replies: list[Any] = []
        self.states: list[tuple[int, str]] = []

    @property
    def idle(self) -> int:
        return sum(state == "idle" for _, state in self.states)

    def run(self, cells: int, size: int, deadline: float) -> None:
        sent, end = 0, time.monotonic() + deadline
        while len(self.replies) < cells or self.idle < cells:
            while sent < min(cells, len(self.replies) + AHEAD):
                code = f"work({sent}, {blob(sent, size)!r})"
                self._cells[self._client.execute(code, store_history=False, stop_on_error=False)] = sent
                sent += 1
            ready = self._poller.poll(int(max(0.0, end - time.monotonic()) * 1000))
            assert ready, f"only {len(self.replies)} of {cells} cells came to an end"
            for socket, _ in ready:
                self._take(self._sockets[socket].get_msg(timeout=10), size)

    def _take(self, message: dict[str, Any], size: int) -> None:
        cell = self._cells.get(message["parent_header"].get("msg_id", ""))
        if cell is None:
            return
        content = message["content"]
        buffers = [bytes(each) for each in message.get("buffers", [])]
        match message["msg_type"]:
            case "execute_reply":
                self.replies.append((cell, content["status"], content["execution_count"]))
            case "input_request":
                self._client.input(f"{content['prompt']} {blob(-1 - cell, size)}")
            case "status":
                self.states.append((cell, content["execution_state"]))
            case "stream":
                self._stream(cell, content["name"], content["text"])
            case kind if not is_notice(kind, content):
                content.pop("comm_id", None)
                self.outputs.append((cell, message["msg_type"], content, buffers))

    def _stream(self, cell: int, name: str, text: str) -> None:
        """How a kernel divides what is printed, and in which order it flushes stdout and stderr, is a matter of time."""
        after = []
        while self.outputs and self.outputs[-1][:2] == (cell, "stream") and self.outputs[-1][2] >= name:
            after.append(self.outputs.pop())
        if after and after[-1][2] == name:
            text = after.pop()[3] + text
        self.outputs += [(cell, "stream", name, text), *reversed(after)]


def run(far: Far, cells: int, size: int, deadline: float) -> list[list[Any]]:
    """One kernel's life: everything that a notebook got of it.

    A cell that is typed while the link is down is busy at once, also while an earlier one runs; no other state moves.
    """
    with Notebook(far.engine) as notebook:
        assert run_cell(notebook.client, WORK).reply["content"]["status"] == "ok"
        reader = Reader(notebook)
        reader.run(cells, size, deadline)
        far.engine.client.request("stop", kernel=notebook.kernel, now=True)
    idle = [each for each in reader.states if each[1] == "idle"]
    return [reader.outputs, reader.replies, idle, sorted(reader.states, key=lambda state: state[0])]


def compare(far: Far, cells: int, size: int, cuts: int, deadline: float) -> None:
    """``size`` bytes for each cell, and as much out of it twice."""
    began = time.monotonic()
    uncut = run(far, cells, size, deadline)
    plain, carried, began = time.monotonic() - began, sum(far.wire.carried), time.monotonic()
    assert carried >= cells * size * 3
    far.wire.cut_after = Cutter(cuts, int(carried / cuts / 5), seed=cuts)
    far.wire.cut()  # it is the new connections that are cut
    before, logins = far.wire.connections, far.host.logins()
    cut = run(far, cells, size, deadline)
    real, logins = far.wire.cuts[1:], far.host.logins() - logins
    early = far.wire.connections - before - logins
    print(
        f"\n{cells} cells, {carried / 1e6:.1f} MB: {plain:.1f} s uncut, {time.monotonic() - began:.1f} s with "
        f"{len(real)} cuts, {early} of them before the login was through, "
        f"{sum(each.to_client < LOGIN for each in real)} before {LOGIN} bytes had come back"
    )
    names = ("outputs", "replies", "idle", "states")
    for name, theirs, ours in zip(names, uncut, cut, strict=True):
        for one, other in itertools.zip_longest(theirs, ours):
            assert one == other, name
    assert len(real) >= cuts
    assert early


@pytest.mark.timeout(240)
def test_forty_cuts_change_nothing(far: Far) -> None:
    compare(far, cells=40, size=36_000, cuts=40, deadline=120)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_thousand_cuts_in_100_mb_change_nothing(far: Far) -> None:
    compare(far, cells=660, size=51_000, cuts=1000, deadline=1700)
