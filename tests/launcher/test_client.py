from __future__ import annotations

import asyncio
import fcntl
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel import __version__
from farkernel.launcher import client as client_module
from farkernel.launcher import client_async, client_start
from farkernel.launcher.client import KeeperClient
from farkernel.launcher.client_protocol import (
    KeeperEnding,
    KeeperGone,
    KeeperNotRunning,
    KeeperSilent,
    KeeperTooNew,
    KeeperTooOld,
    LineReader,
    NotAKeeper,
    encode,
    exit_code,
)
from farkernel.launcher.errors import FarkernelError, RemoteError
from tests.launcher.fake_keeper import FakeKeeper


class NoSuchKernel(FarkernelError):
    kind = "no-such-kernel"


@pytest.fixture
def directory(home: Path) -> Path:
    return home / "keeper"


@pytest.fixture
def keeper(directory: Path) -> Iterator[FakeKeeper]:
    with FakeKeeper(directory) as fake:
        yield fake


@pytest.fixture
def client(keeper: FakeKeeper) -> Iterator[KeeperClient]:
    with KeeperClient(str(keeper.directory), start=False) as client:
        yield client


def test_a_request_is_answered(keeper: FakeKeeper, client: KeeperClient) -> None:
    keeper.handlers["status"] = lambda request: {"echo": request["detail"]}
    assert client.request("status", detail=[1, "ü"]) == {"echo": [1, "ü"]}
    assert client.peer["version"] == "0.0.fake"


def test_the_first_line_lends_the_environment(
    keeper: FakeKeeper, client: KeeperClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/tmp/agent")
    monkeypatch.delenv("KRB5CCNAME", raising=False)
    monkeypatch.setenv("UNRELATED_SECRET", "x")
    client.request("status")
    greeting = keeper.greetings[0]
    assert (greeting["farkernel"], greeting["version"]) == (1, __version__)
    assert greeting["environment"]["SSH_AUTH_SOCK"] == "/tmp/agent"
    assert not {"UNRELATED_SECRET", "KRB5CCNAME"} & greeting["environment"].keys()


def test_the_keepers_error_keeps_its_words(keeper: FakeKeeper, client: KeeperClient) -> None:
    def refuse(_: dict[str, Any]) -> None:
        raise NoSuchKernel("there is no kernel abc", "See: farkernel ps")

    keeper.handlers["interrupt"] = refuse
    with pytest.raises(RemoteError) as caught:
        client.request("interrupt", kernel="abc")
    assert str(caught.value) == "there is no kernel abc. See: farkernel ps"
    assert caught.value.remote_kind == "no-such-kernel"


def test_a_deadline_passes(keeper: FakeKeeper, client: KeeperClient) -> None:
    keeper.handlers["status"] = lambda _: None
    began = time.monotonic()
    with pytest.raises(KeeperSilent, match=r"did not answer within 0\.1 s .* kernels live on"):
        client.request("status", timeout=0.1)
    assert time.monotonic() - began < 2


def test_threads_share_one_connection(keeper: FakeKeeper, client: KeeperClient) -> None:
    keeper.handlers["status"] = lambda request: {"number": request["number"]}
    answers: dict[int, int] = {}

    def ask(number: int) -> None:
        answers[number] = client.request("status", number=number)["number"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: number for number in range(20)}
    assert len(keeper.greetings) == 1


@pytest.mark.parametrize(
    ("protocol", "error", "advice"),
    [
        (0, KeeperTooOld, "older version"),
        (2, KeeperTooNew, "newer version"),
    ],
)
def test_another_protocol_says_what_to_do(
    directory: Path, protocol: int, error: type[FarkernelError], advice: str
) -> None:
    with (
        FakeKeeper(directory, {"farkernel": protocol, "version": "9.9", "error": {"kind": "version"}}),
        KeeperClient(str(directory), start=False) as client,
        pytest.raises(error, match=f"{advice} .*farkernel keeper restart.* live on"),
    ):
        client.request("status")


def test_a_stranger_on_the_socket(directory: Path) -> None:
    with (
        FakeKeeper(directory, {"hello": "world"}),
        KeeperClient(str(directory), start=False) as client,
        pytest.raises(NotAKeeper),
    ):
        client.request("status")


def test_no_keeper_and_not_to_be_started(directory: Path) -> None:
    with KeeperClient(str(directory), start=False) as client, pytest.raises(KeeperNotRunning):
        client.request("status")
    assert not directory.exists()


def test_a_repeatable_request_survives_a_break(keeper: FakeKeeper, client: KeeperClient) -> None:
    keeper.handlers["list"] = lambda _: None
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client.submit("list", {}, answers.put)
    keeper.wait_for("list")
    keeper.handlers["list"] = lambda _: {"kernels": []}
    keeper.drop()
    assert answers.get(timeout=10).result() == {"kernels": []}


def test_another_request_is_not_repeated(keeper: FakeKeeper, client: KeeperClient) -> None:
    keeper.handlers["signal"] = lambda _: None
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client.submit("signal", {"kernel": "k", "signum": 10}, answers.put)
    keeper.wait_for("signal")
    keeper.drop()
    with pytest.raises(KeeperGone, match="farkernel ps"):
        answers.get(timeout=10).result()
    client.request("status")
    assert keeper.asked() == ["signal", "status"]


def test_a_request_that_always_breaks_is_given_up(keeper: FakeKeeper, client: KeeperClient) -> None:
    def die(_: dict[str, Any]) -> None:
        keeper.drop()

    keeper.handlers["list"] = die
    with pytest.raises(KeeperGone):
        client.request("list")
    assert keeper.asked().count("list") <= 3


def test_a_keeper_that_is_just_ending_is_greeted_again(keeper: FakeKeeper, client: KeeperClient) -> None:
    keeper.breaking = 2
    assert client.request("status") == {}
    assert len(keeper.greetings) == 3


def test_a_keeper_that_ends_every_connection_is_given_up(
    keeper: FakeKeeper, client: KeeperClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "GREET_AGAIN", 0.001)
    keeper.breaking = 1000
    with pytest.raises(KeeperEnding, match="farkernel keeper status"):
        client.request("status")
    assert len(keeper.greetings) == client_module.GREETINGS


def test_watching_goes_on_with_the_next_keeper(directory: Path) -> None:
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with KeeperClient(str(directory), start=False) as client:
        with FakeKeeper(directory) as first:
            client.watch("k1", events.put)
            first.wait_for("watch")
            first.state("k1", "live")
            first.state("k2", "live")
            assert events.get(timeout=10)["state"] == "live"
        with FakeKeeper(directory) as second:
            assert second.wait_for("watch")["kernel"] == "k1"
            second.state("k1", "ended", exit=3)
            assert events.get(timeout=10)["exit"] == 3
        assert events.empty()


def test_a_keeper_that_was_told_to_end_is_not_started_by_mere_watching(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[str] = []
    monkeypatch.setattr(client_start, "start_keeper", starts.append)
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with KeeperClient(str(directory)) as client:
        with FakeKeeper(directory) as first:
            client.watch("k1", events.put)
            first.wait_for("watch")
            first.send({"event": "end"})
            first.state("k1", "live")
            assert events.get(timeout=10)["state"] == "live"
        with FakeKeeper(directory) as second:
            second.wait_for("watch")
            assert starts == []
        # A keeper that was killed is another matter.
        deadline = time.monotonic() + 10
        while not starts:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_watching_a_kernel_that_nobody_knows(keeper: FakeKeeper, client: KeeperClient) -> None:
    def refuse(_: dict[str, Any]) -> None:
        raise NoSuchKernel("there is no kernel k1", "See: farkernel ps")

    keeper.handlers["watch"] = refuse
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client.watch("k1", events.put)
    event = events.get(timeout=10)
    assert event["state"] == "ended"
    assert event["reason"]["text"] == "there is no kernel k1. See: farkernel ps"


def test_an_answer_that_nobody_waits_for(keeper: FakeKeeper, client: KeeperClient) -> None:
    answers: list[Any] = []
    keeper.handlers["slow"] = lambda _: None
    number = client.submit("slow", {}, answers.append)
    keeper.wait_for("slow")
    client.forget(number)
    keeper.send({"id": number, "ok": {}})
    client.request("status")
    assert answers == []


def test_closing_fails_what_is_unanswered(keeper: FakeKeeper, client: KeeperClient) -> None:
    keeper.handlers["list"] = lambda _: None
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client.submit("list", {}, answers.put)
    keeper.wait_for("list")
    client.close()
    with pytest.raises(KeeperGone):
        answers.get(timeout=10).result()
    with pytest.raises(KeeperGone):
        client.request("status")


def test_coroutines_do_not_block_their_loop(keeper: FakeKeeper, client: KeeperClient) -> None:
    keeper.handlers["list"] = lambda _: None

    async def scenario() -> float:
        longest, before = 0.0, time.monotonic()
        waiting = asyncio.ensure_future(client_async.request(client, "list", timeout=0.5))
        while not waiting.done():
            await asyncio.sleep(0.005)
            longest, before = max(longest, time.monotonic() - before), time.monotonic()
        with pytest.raises(KeeperSilent):
            await waiting
        return longest

    assert asyncio.run(scenario()) < 0.2


def test_a_cancelled_coroutine_leaves_nothing(keeper: FakeKeeper, client: KeeperClient) -> None:
    keeper.handlers["list"] = lambda _: None

    async def scenario() -> None:
        waiting = asyncio.ensure_future(client_async.request(client, "list"))
        await asyncio.to_thread(keeper.wait_for, "list")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(scenario())
    assert repr(client).endswith("waiting=0 watches=0>")


# -- starting ----------------------------------------------------------------------------------------------

KEEPER = """
import fcntl, os, socket, sys
directory, ready = sys.argv[1], int(sys.argv[2])
lock = open(directory + "/lock", "a")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(0)
with open(directory + "/starts", "a") as starts:
    starts.write(f"{os.getpid()}\\n")
if os.path.exists(directory + "/broken"):
    print("ModuleNotFoundError: no module named zmq", file=sys.stderr)
    sys.exit(1)
import signal
signal.signal(signal.SIGTERM, signal.SIG_DFL)
listener = socket.socket(socket.AF_UNIX)
if os.path.exists(directory + "/socket"):
    os.unlink(directory + "/socket")
listener.bind(directory + "/socket")
listener.listen(64)
os.write(ready, b"1")
os.close(ready)
while True:
    connection, _ = listener.accept()
    if connection.recv(65536):
        interruptible = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        facts = [os.getsid(0) != os.getpid(), os.getcwd(), interruptible]
        connection.sendall(b'{"farkernel": 1, "version": "x", "pid": %d}\\n' % os.getpid())
        connection.recv(65536)
        import json
        connection.sendall(json.dumps({"id": 1, "ok": {"facts": facts}}).encode() + b"\\n")
"""


@pytest.fixture
def startable(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory in which `start_keeper` starts the small keeper above."""
    program = directory.parent / "keeper.py"
    program.write_text(KEEPER)
    monkeypatch.setattr(
        client_start,
        "keeper_command",
        lambda ready: [sys.executable, "-S", str(program), str(directory), str(ready)],
    )
    yield directory
    if (directory / "starts").exists():
        for pid in (directory / "starts").read_text().split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass


def test_the_first_request_starts_the_keeper(startable: Path) -> None:
    with KeeperClient(str(startable)) as client:
        not_session_leader, cwd, interruptible = client.request("status")["facts"]
    assert (not_session_leader, cwd, interruptible) == (True, "/", True)
    assert startable.stat().st_mode & 0o777 == 0o700


def test_ten_at_once_start_one(startable: Path) -> None:
    errors: list[BaseException] = []

    def start() -> None:
        try:
            client_start.start_keeper(str(startable))
        except FarkernelError as error:
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len((startable / "starts").read_text().split()) == 1


def test_a_server_that_ignores_interrupts_does_not_pass_that_on(startable: Path) -> None:
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with KeeperClient(str(startable)) as client:
            assert client.request("status")["facts"][2] is True
    finally:
        signal.signal(signal.SIGINT, previous)


def test_a_keeper_that_cannot_start_says_why(startable: Path) -> None:
    startable.mkdir(mode=0o700)
    (startable / "broken").touch()
    with (
        KeeperClient(str(startable)) as client,
        pytest.raises(
            client_start.KeeperStartFailed, match=r"ended at once.*keeper/log.*no module named zmq"
        ),
    ):
        client.request("status")


def test_what_a_keeper_says_that_cannot_start_is_passed_on(
    startable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import os, sys; os.write(int(sys.argv[1]), b'the disk is full. Make room.')"
    monkeypatch.setattr(
        client_start, "keeper_command", lambda ready: [sys.executable, "-S", "-c", program, str(ready)]
    )
    said = r"could not be started: the disk is full\. Make room\. See .*keeper/log"
    with pytest.raises(client_start.KeeperStartFailed, match=said):
        client_start.start_keeper(str(startable))


def test_a_keeper_that_is_just_ending_is_waited_for(startable: Path) -> None:
    startable.mkdir(mode=0o700)
    ending = os.open(startable / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(ending, fcntl.LOCK_EX)
    os.write(ending, b"17\n")
    assert client_start.lock_holder(str(startable)) == 17
    release = threading.Timer(0.5, os.close, [ending])
    release.start()
    client_start.start_keeper(str(startable))
    release.join()
    assert len((startable / "starts").read_text().split()) == 1


def test_a_dead_keepers_socket_is_no_obstacle(startable: Path) -> None:
    startable.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(startable / "socket"))
    assert client_start.log_tail(str(startable / "log")) == ""
    with KeeperClient(str(startable)) as client:
        assert client.request("status")["facts"]


# -- lines -------------------------------------------------------------------------------------------------


def test_lines_exact_bytes() -> None:
    assert encode({"id": 1, "do": "status"}) == b'{"id":1,"do":"status"}\n'
    reader = LineReader()
    assert reader.feed(b'{"id":1,') == []
    assert reader.feed(b'"ok":{}}\n{"event":"x"}\n{"e') == [{"id": 1, "ok": {}}, {"event": "x"}]


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text() | st.none())), st.data())
def test_lines_in_any_pieces(messages: list[dict[str, Any]], data: st.DataObject) -> None:
    stream = b"".join(encode(message) for message in messages)
    reader, got = LineReader(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got += reader.feed(stream[:size])
        stream = stream[size:]
    assert got == messages


@given(st.binary(max_size=100))
def test_any_bytes_are_objects_or_refused(line: bytes) -> None:
    with suppress(NotAKeeper):
        assert all(isinstance(message, dict) for message in LineReader().feed(line + b"\n"))


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"exit": 3}, 3),
        ({"exit": -9, "reason": {"kind": "oom"}}, -9),
        ({"reason": {"kind": "exit", "status": 7}}, 7),
        ({"reason": {"kind": "signal", "signum": 11}}, -11),
        ({"reason": {"kind": "oom"}}, -9),
        ({"reason": {"kind": "stopped"}}, 0),
        ({"reason": "garbage"}, 1),
        ({}, 1),
    ],
)
def test_exit_codes(event: dict[str, Any], code: int) -> None:
    assert exit_code(event) == code


def test_what_a_front_end_imports_is_light() -> None:
    program = "import sys, farkernel.launcher.client, farkernel.launcher.launch; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    heavy = {
        "asyncio",
        "logging",
        "subprocess",
        "zmq",
        "traitlets",
        "jupyter_client",
        "dataclasses",
        "inspect",
    }
    assert not heavy & set(loaded)
    assert json.dumps(sorted(set(loaded))).count("farkernel") < 12
