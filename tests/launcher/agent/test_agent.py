"""The agent as a whole: loader, guard, worker and real kernels, with a small keeper at the near end."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from farkernel.backends.archive import build_archive
from farkernel.launcher.errors import RemoteError
from tests.fakekernel import payload
from tests.launcher.agent.near_end import FAKE_KERNEL, PRIORITIES, Far, NearEnd, agent_log, agent_processes
from tests.sites.pythons import PYTHONS


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The far end's private directory; whatever still runs there afterwards is ended."""
    monkeypatch.setenv("FARKERNEL_AGENT_IDLE", "20")
    place = home.parent / "far"
    yield place
    kill_both(place)
    for path in place.glob("agents/*/k/*/process-*.json"):
        process = json.loads(path.read_text())
        if psutil.pid_exists(process["pid"]):
            psutil.Process(process["pid"]).kill()


@pytest.fixture
def near(run: Path) -> Iterator[NearEnd]:
    end = NearEnd(run)
    end.connect()
    yield end
    if end.is_connected:
        end.cut()


def kill_both(run: Path) -> None:
    """Neither has the time to replace the other."""
    while processes := agent_processes(run):
        for act in (psutil.Process.suspend, psutil.Process.kill):
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    act(process)
        time.sleep(0.005)


def facts_of(run: Path, kernel: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "agents" / "here" / "k" / kernel / "kernel.json").read_text())
    return found


def wait_until(condition: Any, timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- the usual life
# ---------------------------------------------------------------------------------------------


def test_a_kernel_lives_and_is_stopped(near: NearEnd, run: Path) -> None:
    assert near.needed == 1
    far = Far(near)
    answer = far.start(label={"entry": "demo"})
    assert answer["interrupt"] == "signal"
    assert psutil.pid_exists(answer["pid"])
    assert far.attach()["taken"] == {"control": 0, "shell": 0, "stdin": 0}
    assert far.call(b"echo", b"hello", bytes(range(256)) * 5000) == [b"hello", bytes(range(256)) * 5000]
    assert far.call(b"echo", b"there", name="control") == [b"there"]
    assert far.call(b"pid") == [str(answer["pid"]).encode()]
    assert near.states("k1") == ["starting", "live"]
    listed = near.request("list")["kernels"]
    assert [(one["kernel"], one["state"], one["label"], one["attached"]) for one in listed] == [
        ("k1", "live", {"entry": "demo"}, True)
    ]
    assert listed[0]["usage"]["memory"] > 1 << 20
    near.request("stop", kernel="k1", grace=10)
    reason = near.ended("k1")
    assert (reason["kind"], reason["signum"]) == ("stopped", signal.SIGTERM)
    assert near.request("forget", kernel="k1") == {}
    assert near.request("list")["kernels"] == []
    assert list((run / "agents" / "here" / "k").iterdir()) == []


def test_a_flood_arrives_whole_and_in_order(near: NearEnd) -> None:
    far = Far(near).up()
    assert far.call(b"flood", b"3000", b"2000") == [b"3000"]
    assert far.call(b"flood", b"4", b"20000000") == [b"3004"]
    far.wait(lambda: len(far.flooded()) == 3004)
    assert far.flooded()[:3000] == [payload(number, 2000) for number in range(1, 3001)]
    assert [len(body) for body in far.flooded()[3000:]] == [20000008] * 4
    assert far.numbers("iopub") == list(range(1, far.numbers("iopub")[-1] + 1))


def test_input_reaches_the_kernel_by_stdin(near: NearEnd) -> None:
    far = Far(near).up()
    far.call(b"echo")  # libzmq has come to know us on all its sockets by then
    far.send("shell", b"ask", b"what?")
    far.wait(lambda: far.got["stdin"])
    assert far.got["stdin"][0][1] == [b"what?"]
    far.send("stdin", b"that")
    far.wait(lambda: len(far.got["shell"]) == 2)
    assert far.got["shell"][1][1] == [b"ask", b"that"]


def test_requests_sent_before_the_kernel_is_there_wait_for_it(near: NearEnd) -> None:
    far = Far(near).up("late=0.5")
    assert far.call(b"echo", b"early") == [b"early"]


def test_a_request_number_is_taken_once(near: NearEnd) -> None:
    far = Far(near).up()
    assert far.call(b"flood", b"1", b"10") == [b"1"]
    far.send("shell", b"flood", b"1", b"10", number=1)
    assert far.call(b"flood", b"1", b"10") == [b"2"]
    assert far.attach()["taken"]["shell"] == 2


def test_the_same_life_is_started_once(near: NearEnd) -> None:
    far = Far(near)
    first = far.start("late=0.2")
    again = near.request("start", kernel="k1", life=1, argv=["/bin/false"])
    assert again == first
    with pytest.raises(RemoteError, match="still runs"):
        near.request("start", kernel="k1", life=2, argv=["/bin/false"])


def test_a_restart_goes_on_with_the_numbers(near: NearEnd) -> None:
    far = Far(near).up()
    far.call(b"flood", b"5", b"10")
    near.request("stop", kernel="k1", grace=0)
    near.ended("k1")
    near.events.clear()
    far.start()
    answer = far.attach()
    assert answer["life"] == 2
    assert answer["taken"]["shell"] == 1
    assert far.call(b"flood", b"2", b"10") == [b"2"]
    far.wait(lambda: len(far.flooded()) == 7)
    assert far.numbers("iopub") == list(range(1, len(far.numbers("iopub")) + 1))
    assert [number for number, _ in far.got["shell"]] == [1, 2]


# -- how kernels end
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "kind", "status", "signum", "text"),
    [
        (b"exit 3", "exit", 3, None, "It exited with status 3."),
        (b"exit 0", "exit", 0, None, "It exited by itself"),
        (b"segfault", "signal", None, 11, "It crashed (SIGSEGV"),
        (b"kill", "signal", None, 9, "It was killed (SIGKILL) from outside"),
    ],
)
def test_the_reason_of_an_end(
    near: NearEnd, command: bytes, kind: str, status: int | None, signum: int | None, text: str
) -> None:
    far = Far(near).up()
    far.call(b"flood", b"50", b"1000")
    far.send("shell", *command.split())
    reason = near.ended("k1")
    assert (reason["kind"], reason["status"], reason["signum"]) == (kind, status, signum)
    assert reason["text"].startswith(text)
    if kind == "exit":
        assert reason["tail"] == "last words"
    # Everything it said came before the news.
    far.collect()
    assert len(far.flooded()) == 50
    answer = far.attach()
    assert (answer["state"], answer["reason"]) == ("ended", reason)


@pytest.mark.parametrize(("command", "tail"), [(b"exit 3", "last words"), (b"kill", "a note at its start")])
def test_what_a_kernel_wrote_at_its_start_explains_no_later_end(
    near: NearEnd, command: bytes, tail: str
) -> None:
    far = Far(near)
    far.up("note=a note at its start")
    far.call(b"echo", b"1")
    far.send("shell", *command.split())
    assert near.ended("k1")["tail"] == tail


def test_a_kernel_that_ends_at_once_says_why_without_escape_codes(near: NearEnd) -> None:
    Far(near).start("exit=7")
    reason = near.ended("k1")
    assert (reason["kind"], reason["status"], reason["tail"]) == ("exit", 7, "no way")
    assert "no way" in near.request("log", kernel="k1", size=1000)["text"]


def test_a_python_without_ipykernel_is_told(near: NearEnd, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$0: No module named ipykernel_launcher" >&2\nexit 1\n')
    python.chmod(0o755)
    near.request("start", kernel="k1", life=1, python=str(python))
    assert "python -m pip install ipykernel" in near.ended("k1")["text"]


def test_stop_reaches_everything_in_the_session_and_does_not_wait_for_ever(
    near: NearEnd, tmp_path: Path
) -> None:
    script = (
        f"trap '' TERM; (trap '' TERM; echo $$; sleep 100) & {sys.executable} {FAKE_KERNEL} \"$0\"; sleep 100"
    )
    far = Far(near).up(argv=["/bin/sh", "-c", script, "{connection_file}"])
    far.call(b"echo")
    session = facts_of(near.run, "k1")["pid"]
    began = time.monotonic()
    near.request("stop", kernel="k1", grace=0.5)
    assert time.monotonic() - began >= 0.5
    assert near.ended("k1")["kind"] == "stopped"
    wait_until(lambda: not [p for p in psutil.process_iter() if sid(p) == session])


def sid(process: psutil.Process) -> int:
    try:
        return os.getsid(process.pid) if process.status() != psutil.STATUS_ZOMBIE else 0
    except (OSError, psutil.Error):
        return 0


def test_interrupt_and_signal(near: NearEnd) -> None:
    far = Far(near).up()
    far.call(b"echo")
    far.send("shell", b"sleep", b"60")
    assert near.request("interrupt", kernel="k1") == {"how": "signal"}
    assert near.ended("k1")["text"] == "It was ended by SIGINT."  # what Python does after a KeyboardInterrupt
    with pytest.raises(RemoteError, match="cannot be interrupted"):
        near.request("interrupt", kernel="k1")
    far.start(interrupt="message")
    assert near.request("interrupt", kernel="k1") == {"how": "message"}
    near.events.clear()
    near.request("signal", kernel="k1", signum=int(signal.SIGTERM), group=False)
    assert near.ended("k1")["text"].startswith("It was ended (SIGTERM)")


def test_an_interrupt_that_would_get_lost_is_given_back(near: NearEnd) -> None:
    far = Far(near).up()
    far.call(b"deaf")
    assert near.request("interrupt", kernel="k1", if_it_listens=True) == {"how": "none"}
    assert near.request("interrupt", kernel="k1") == {"how": "signal"}
    assert far.call(b"echo", b"on") == [b"on"]


def test_keep_counts_while_nobody_is_there(near: NearEnd) -> None:
    far = Far(near).up(keep=0.3)
    far.call(b"echo")
    time.sleep(0.5)  # longer than keep, but with a keeper
    assert far.call(b"echo") == []
    near.cut()
    wait_until(lambda: facts_of(near.run, "k1")["state"] == "ended")
    near.connect()
    assert near.ended("k1")["kind"] == "keep"


# -- starting
# ---------------------------------------------------------------------------------------------------


def test_environment_directory_and_mask(
    near: NearEnd, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    far = Far(near)
    answer = far.start(
        env={"A": "one", "B": "${HOME}/two", "PYTHONUNBUFFERED": "1"},
        unset=["XDG_CACHE_HOME"],
        cwd=str(tmp_path),
        before="export C='from the shell'",
    )
    assert answer["cwd"] == str(tmp_path)
    far.attach()
    names = [b"A", b"B", b"C", b"XDG_CACHE_HOME", b"JPY_PARENT_PID", b"FARKERNEL_BOOT"]
    assert far.call(b"environment", *names) == [
        b"one", f"{home}/two".encode(), b"from the shell", b"<unset>", b"<unset>", b"<unset>",
    ]  # fmt: skip
    assert far.call(b"place") == [
        str(fact).encode() for fact in (tmp_path, "0o22", True, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    ]
    assert not list(near.run.glob("agents/*/k/*/launch.json"))
    assert (near.run / "agents/here/k/k1/connection.json").stat().st_mode & 0o777 == 0o600


def test_a_missing_directory_becomes_the_home(near: NearEnd, home: Path) -> None:
    answer = Far(near).start(cwd="/no/such/place")
    assert (answer["cwd"], answer["shared"], answer["why"]) == (str(home), False, "configured-missing")


def test_what_cannot_be_started_says_what_to_do(near: NearEnd, home: Path) -> None:
    spec = home / ".local/share/jupyter/kernels/julia-1.11"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(
        '{"argv": ["no-such-julia"], "language": "julia", "display_name": "Julia"}'
    )
    with pytest.raises(RemoteError, match=r"There are: .*julia-1.11.*; did you mean julia-1.11\?"):
        near.request("start", kernel="k1", life=1, kernelspec="julia-1.1")
    with pytest.raises(RemoteError, match="program no-such-julia was not found") as caught:
        near.request("start", kernel="k1", life=1, kernelspec="julia-1.11")
    assert caught.value.remote_kind == "no-program"
    (spec / "kernel.json").write_text("{")
    with pytest.raises(RemoteError, match="cannot be used"):
        near.request("start", kernel="k1", life=1, kernelspec="julia-1.11")
    with pytest.raises(RemoteError, match="exactly one of"):
        near.request("start", kernel="k1", life=1)
    script = home / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(RemoteError, match=r"could not be started: .*No such file"):
        near.request("start", kernel="k1", life=1, argv=[str(script)])
    assert near.ended("k1")["kind"] == "failed"
    with pytest.raises(
        RemoteError, match=r"could not be started: .*No such file"
    ):  # the same life, the same answer
        near.request("start", kernel="k1", life=1, argv=["/bin/true"])
    assert Far(near, "k2").start()["pid"]


@pytest.mark.parametrize(
    "request_",
    [
        {"do": "nonsense"},
        {"do": "attach"},
        {"do": "attach", "kernel": "unknown", "channels": {}},
        {"do": "start", "kernel": "k1", "life": "x", "argv": ["/bin/true"]},
        {"do": "start", "kernel": "k1", "life": 1, "argv": [1]},
        {"do": "start", "kernel": "k1", "life": 1, "argv": ["/bin/true"], "env": 7},
        {"do": "signal", "kernel": "k1", "signum": 1 << 70},
        {"do": "stop", "kernel": []},
        {"do": "journal", "kernel": "k0", "name": "nothing", "first": 1, "channel": 9},
        {"do": "attach", "kernel": "k0", "channels": {"shell": 0}},
        {"do": "attach", "kernel": "k0", "channels": {"other": 5}},
        {"do": "usage", "kernel": "unknown"},
        {"do": "log", "kernel": "k0", "size": "x"},
    ],
)
def test_bad_requests_get_an_answer(near: NearEnd, request_: dict[str, Any]) -> None:
    Far(near, "k0").start()
    near.tell(id=77, **request_)
    with pytest.raises(RemoteError) as caught:
        near.answer(77)
    assert caught.value.what
    near.link.send(0, [b"not json"])
    near.link.send(0, [b"[1]"])
    assert len(near.request("list")["kernels"]) == 1


def test_ipykernel(near: NearEnd) -> None:
    """The real thing: the venv's own kernelspec."""
    from jupyter_client.session import Session

    far = Far(near)
    answer = far.start(kernelspec="python3", key="the-key")
    assert (answer["language"], answer["argv"][0]) == ("python", sys.executable)
    far.attach()
    session = Session(key=b"the-key")
    request = session.msg("execute_request", {"code": "print(6 * 7)", "silent": False})
    far.send("shell", *session.serialize(request))

    def said(name: str, kind: str) -> list[dict[str, Any]]:
        found = []
        for _, frames in far.got[name]:
            if b"<IDS|MSG>" in frames:  # not iopub_welcome
                message = session.deserialize(session.feed_identities(frames, copy=True)[1], content=True)
                found += [message] if message["header"]["msg_type"] == kind else []
            session.digest_history.clear()
        return found

    far.wait(lambda: said("shell", "execute_reply"))
    # Among others: a debugger's warning may come first.
    far.wait(lambda: "42\n" in [message["content"]["text"] for message in said("iopub", "stream")])
    near.request("stop", kernel="k1", grace=5)


# -- keepers come and go
# ----------------------------------------------------------------------------------------


def test_a_cut_link_is_resumed(near: NearEnd) -> None:
    far = Far(near).up()
    far.send("shell", b"flood", b"5000", b"3000")
    far.wait(lambda: len(far.flooded()) > 100)
    for _ in range(5):
        near.cut()
        near.connect()
        enough = min(len(far.flooded()) + 51, 5000)
        far.wait(partial(has_flooded, far, enough))
    far.wait(lambda: len(far.flooded()) == 5000)
    assert far.flooded() == [payload(number, 3000) for number in range(1, 5001)]
    assert near.resumed == [False, True, True, True, True, True]
    assert near.needed == 1


def has_flooded(far: Far, count: int) -> bool:
    return len(far.flooded()) >= count


def test_another_keeper_takes_over_and_the_former_is_told(near: NearEnd, run: Path) -> None:
    far = Far(near).up()
    far.call(b"flood", b"100", b"10")
    other = NearEnd(run, user="ann")
    other.connect()
    with pytest.raises(ConnectionError):
        near.wait(lambda: False)
    assert near.bye == "another keeper of ann on near has taken over"
    taken = Far(other)
    answer = taken.attach()
    assert (answer["state"], answer["taken"]["shell"]) == ("live", 1)
    taken.sent["shell"] = 1
    taken.wait(lambda: len(taken.flooded()) == 100)
    assert taken.call(b"flood", b"1", b"10") == [b"101"]
    other.cut()


def test_a_keeper_gets_only_what_it_has_not(near: NearEnd, run: Path) -> None:
    far = Far(near).up()
    far.call(b"flood", b"100", b"10")
    far.wait(lambda: len(far.flooded()) == 100)
    near.tell(do="received", kernel="k1", numbers=far.received)
    near.cut()
    other = NearEnd(run)
    other.connect()
    more = Far(other)
    more.received = {"iopub": 60}
    assert more.attach()["first"]["iopub"] == 1
    more.wait(lambda: len(more.got["iopub"]) == far.numbers("iopub")[-1] - 60)
    assert more.numbers("iopub")[0] == 61
    channel = other.open(3)
    assert other.request("journal", kernel="k1", name="iopub", first=10, channel=channel)["first"] == 10
    other.wait(lambda: channel in other.closed)
    numbers = [int.from_bytes(data[:8], "big") for data in other.messages[channel]]
    assert numbers == list(range(10, far.numbers("iopub")[-1] + 1))
    other.cut()


def test_what_is_dropped_is_said(near: NearEnd) -> None:
    far = Far(near)
    far.start(journal=1 << 20)
    far.channels = {"shell": near.open(PRIORITIES["shell"])}
    near.request("attach", kernel="k1", channels=far.channels)
    far.call(b"flood", b"100", b"100000")
    far.attach()
    far.wait(lambda: far.flooded() and far.flooded()[-1] == payload(100, 100000))
    dropped = [event for event in near.events if event["event"] == "dropped" and event["name"] == "iopub"]
    lost = [number for event in dropped for number in range(event["first"], event["last"] + 1)]
    assert dropped
    assert lost[0] == 1
    assert sorted(lost + far.numbers("iopub")) == list(range(1, far.numbers("iopub")[-1] + 1))


# -- kill -9
# ----------------------------------------------------------------------------------------------------


def worker_of(run: Path) -> psutil.Process:
    return next(process for process in agent_processes(run) if process.ppid() in pids(run))


def guard_of(run: Path) -> psutil.Process:
    return next(process for process in agent_processes(run) if process.ppid() not in pids(run))


def pids(run: Path) -> set[int]:
    return {process.pid for process in agent_processes(run)}


def come_back(near: NearEnd, far: Far) -> dict[str, Any]:
    """As a keeper does when its connection ended."""
    with pytest.raises(ConnectionError):
        near.wait(lambda: False)
    near.connect()
    assert near.resumed[-1] is False
    far.collect()
    return far.attach()


@pytest.mark.timeout(120)
def test_a_killed_worker_loses_and_doubles_nothing(near: NearEnd, run: Path) -> None:
    far = Far(near).up()
    far.call(b"echo")
    guard = guard_of(run).pid
    chance = random.Random(5)
    sent = 0
    for turn in range(18):
        for _ in range(3):
            far.send("shell", b"flood", b"400", b"700")
            sent += 1
        killer = threading.Timer(chance.random() * 0.1, worker_of(run).kill)
        killer.start()
        taken = come_back(near, far)["taken"]["shell"]
        killer.join()
        # Requests that were lost with the link are sent again, as a keeper would.
        for number in range(taken + 1, far.sent["shell"] + 1):
            far.send("shell", b"flood", b"400", b"700", number=number)
        assert guard_of(run).pid == guard, turn
    far.wait(lambda: len(far.flooded()) == 400 * sent, timeout=60)
    assert far.flooded() == [payload(number, 700) for number in range(1, 400 * sent + 1)]
    assert far.numbers("iopub") == list(range(1, len(far.numbers("iopub")) + 1))
    assert far.numbers("shell") == list(range(1, sent + 2))
    near.request("stop", kernel="k1", grace=0)
    assert near.ended("k1")["kind"] == "stopped"


def test_a_killed_guard_is_replaced_and_nobody_notices(near: NearEnd, run: Path) -> None:
    far = Far(near).up()
    far.send("shell", b"flood", b"3000", b"1000")
    far.wait(far.flooded)
    for _ in range(3):
        guard_of(run).kill()
        wait_until(lambda: len(pids(run)) == 2)
        # The worker that comes after its death gets all from the new guard.
        worker = next(p for p in agent_processes(run) if any(c.pid in pids(run) for c in p.children()))
        child = next(p for p in agent_processes(run) if p.pid != worker.pid)
        worker.kill()
        come_back(near, far)
        wait_until(lambda child=child: child.is_running())
    far.wait(lambda: len(far.flooded()) == 3000)
    assert far.flooded() == [payload(number, 1000) for number in range(1, 3001)]
    assert far.call(b"echo", b"still") == [b"still"]
    assert len(near.resumed) == 4
    far.send("shell", b"exit", b"4")
    assert near.ended("k1")["kind"] == "unknown"


def test_when_both_are_killed_the_next_agent_takes_the_kernels_up(near: NearEnd, run: Path) -> None:
    far = Far(near).up()
    far.call(b"flood", b"500", b"1000")
    far.wait(lambda: len(far.flooded()) == 500)
    gone = Far(near, "k2").up()
    pid = gone.call(b"pid")[0]
    kill_both(run)
    os.kill(int(pid), signal.SIGKILL)
    answer = come_back(near, far)
    assert answer["state"] == "live"
    assert answer["first"]["iopub"] == 1
    assert far.call(b"flood", b"10", b"1000") == [b"510"]
    far.wait(lambda: len(far.flooded()) == 510)
    assert far.flooded() == [payload(number, 1000) for number in range(1, 511)]
    dropped = {event["name"]: event["bytes"] for event in near.events if event["event"] == "dropped"}
    assert dropped == {"shell": None, "iopub": None, "stdin": None, "control": None}
    gone.received.clear()
    assert gone.attach()["state"] in ("live", "ended")
    assert near.ended("k2")["kind"] == "unknown"
    near.request("stop", kernel="k1", grace=1)
    assert near.ended("k1")["kind"] == "stopped"


def test_a_worker_that_cannot_live_is_not_started_without_end(near: NearEnd, run: Path) -> None:
    near.cut()
    killed = 0
    until = time.monotonic() + 5.0
    while time.monotonic() < until:
        guards = pids(run)
        for process in agent_processes(run):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just been killed
                if process.ppid() in guards:
                    process.kill()
                    killed += 1
        time.sleep(0.02)
    assert 5 <= killed <= 28  # at first at once, then less and less; a busy machine starts fewer


# -- the loader and the end
# -------------------------------------------------------------------------------------


def test_two_loaders_at_once_start_one_agent(run: Path) -> None:
    ends = [NearEnd(run) for _ in range(4)]
    failed: list[BaseException] = []

    def connect(end: NearEnd) -> None:
        try:
            end.connect()
            end.wait(lambda: end.bye is not None, timeout=5)
        except ConnectionError:
            pass  # displaced by the next
        except AssertionError:
            pass  # the last one is not
        except BaseException as error:  # noqa: BLE001 - carried over to the test
            failed.append(error)

    threads = [threading.Thread(target=connect, args=(end,)) for end in ends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(agent_processes(run)) == 2
    assert agent_log(run).count("agent starts") == 1
    for end in ends:
        if end.is_connected:
            end.cut()


def test_the_agent_ends_when_idle_and_leaves_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARKERNEL_AGENT_IDLE", "0.3")
    near = NearEnd(run)
    near.connect()
    assert len(agent_processes(run)) == 2
    near.cut()
    wait_until(lambda: not agent_processes(run))
    assert list((run / "agents").iterdir()) == []
    again = NearEnd(run)
    again.connect()
    assert again.needed == 0  # the program is still there
    again.cut()


def test_the_agent_ends_on_request(near: NearEnd, run: Path) -> None:
    Far(near).up().call(b"echo")
    with pytest.raises(RemoteError, match="1 running kernels"):
        near.request("end", if_idle=True)
    near.ask("end")
    with pytest.raises(ConnectionError):
        near.wait(lambda: False)
    wait_until(lambda: not agent_processes(run))


def test_sigterm_ends_the_agent_and_not_its_kernels(near: NearEnd, run: Path) -> None:
    far = Far(near).up()
    pid = int(far.call(b"pid")[0])
    near.cut()
    guard_of(run).terminate()
    wait_until(lambda: not agent_processes(run), timeout=15)
    assert psutil.pid_exists(pid)
    near.connect()
    far.collect()
    assert far.attach()["state"] == "live"
    assert far.call(b"echo", b"on") == [b"on"]


def test_a_damaged_program_is_fetched_again(near: NearEnd, run: Path) -> None:
    near.request("list")
    near.ask("end")
    with pytest.raises(ConnectionError):
        near.wait(lambda: False)
    wait_until(lambda: not agent_processes(run))
    (run / "programs" / f"{build_archive().sha256}.zip").write_bytes(b"PK")
    old = run / "programs" / "old.zip"
    old.write_bytes(b"")
    os.utime(old, (1, 1))
    near.connect()
    assert near.needed == 2
    assert not old.exists()
    assert near.request("list") == {"kernels": []}


def test_the_loader_says_why_there_is_no_directory(home: Path) -> None:
    place = home / "file"
    place.write_text("")
    near = NearEnd(place)
    with pytest.raises(RemoteError, match="it is not a directory") as caught:
        near.connect()
    assert caught.value.remote_kind == "no-directory"
    assert near.status == 1


def test_the_loader_shows_the_log_of_an_agent_that_does_not_start(run: Path) -> None:
    near = NearEnd(run)
    blocked = run / "agents" / "here"
    run.mkdir(0o700)
    blocked.mkdir(0o700, parents=True)
    (blocked / "socket.new").mkdir()
    with pytest.raises(
        RemoteError, match=r"did not start: it ended at once.*Address already in use"
    ) as caught:
        near.connect()
    assert caught.value.remote_kind == "agent-start"


def test_the_loader_goes_when_its_keeper_does(near: NearEnd) -> None:
    assert near.loader is not None
    loader = near.loader
    near.cut()
    assert loader.returncode == 0


def test_nothing_of_the_connection_is_inherited(near: NearEnd, run: Path) -> None:
    answer = Far(near).up()
    pid = int(answer.call(b"pid")[0])
    for process in agent_processes(run):
        assert os.getsid(process.pid) != os.getsid(0)
        assert process.cwd() == "/"
    kernel = {os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")}
    assert not [target for target in kernel if "agents/here" in target and "/k/" not in target]
    assert not [target for target in kernel if target.endswith(".out")]


@pytest.mark.parametrize("python", PYTHONS, ids=lambda path: path.parent.parent.name)
def test_the_core_of_it_under_each_python(run: Path, python: Path) -> None:
    near = NearEnd(run, python=str(python))
    near.connect()
    far = Far(near).up()
    assert far.call(b"echo", b"x" * 100000) == [b"x" * 100000]
    assert far.call(b"flood", b"300", b"3000") == [b"300"]
    worker_of(run).kill()
    come_back(near, far)
    far.wait(lambda: len(far.flooded()) == 300)
    guard_of(run).kill()
    wait_until(lambda: len(pids(run)) == 2)
    assert far.call(b"flood", b"300", b"3000") == [b"600"]
    far.wait(lambda: len(far.flooded()) == 600)
    assert far.flooded() == [payload(number, 3000) for number in range(1, 601)]
    version = subprocess.run([python, "-V"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)
    assert version.stdout.split()[1].decode() in agent_log(run)
    near.request("stop", kernel="k1", grace=1)
    near.cut()
