"""`farkernel launch` as the process that front ends start, with a small keeper on a real socket behind it."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from farkernel.kernelspecs import entries
from farkernel.launcher.client import keeper_directory
from farkernel.launcher.errors import FarkernelError
from farkernel.launcher.launch import ConnectionFileError, read_connection_file
from tests.launcher.fake_keeper import CONNECTION, FakeKeeper, launched

TCP = {
    **CONNECTION,
    "transport": "tcp",
    "ip": "127.0.0.1",
    "curve_publickey": "p" * 40,
    "curve_secretkey": "s" * 40,
}


@pytest.fixture
def keeper() -> Iterator[FakeKeeper]:
    with FakeKeeper(Path(keeper_directory())) as fake:
        fake.handlers["launch"] = launched
        yield fake


@pytest.fixture
def connection_file(tmp_path: Path) -> Path:
    path = tmp_path / "kernel-1.json"
    path.write_text(json.dumps(TCP))
    return path


class Launched:
    """A running `farkernel launch`."""

    def __init__(self, arguments: list[str], keeper: FakeKeeper) -> None:
        self.keeper = keeper
        self.process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)

    @property
    def kernel(self) -> str:
        return str(self.keeper.wait_for("watch")["kernel"])

    def signal(self, signum: int) -> None:
        self.process.send_signal(signum)

    def end(self) -> tuple[int, str]:
        """The exit status and what was said on stderr."""
        _, said = self.process.communicate(timeout=20)
        return self.process.returncode, said


@pytest.fixture
def launch(keeper: FakeKeeper, connection_file: Path) -> Iterator[Callable[..., Launched]]:
    started: list[Launched] = []

    def start(entry: str = "lab") -> Launched:
        command = [sys.executable, "-P", "-m", "farkernel", "launch", entry, "-f", str(connection_file)]
        started.append(Launched(command, keeper))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate()


def test_what_the_keeper_is_asked(
    keeper: FakeKeeper, launch: Callable[..., Launched], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "work/a.ipynb")
    launch()
    request = keeper.wait_for("launch")
    assert len(request.pop("kernel")) == 32
    assert request == {
        "id": 1,
        "do": "launch",
        "entry": "lab",
        "settings": {"target": "lab"},
        "connection": TCP,
        "cwd": os.getcwd(),
        "env": {},
        "notebook": "work/a.ipynb",
        "front": "argv",
        "restart": False,
        "life": None,
    }


def test_an_installed_entrys_settings(keeper: FakeKeeper, launch: Callable[..., Launched]) -> None:
    spec = entries.build("gpu", "GPU", "R", {"target": "lab", "kernel": "ir"})
    entries.install("gpu", spec, entries.data_directory("user"), {})
    launch("GPU")
    assert keeper.wait_for("launch")["settings"] == {"target": "lab", "kernel": "ir"}


@pytest.mark.parametrize(
    ("event", "status", "said"),
    [
        ({"exit": 0, "reason": {"kind": "stopped", "text": "stopped"}}, 0, ""),
        (
            {"exit": 3, "reason": {"kind": "exit", "text": "it ended with status 3"}},
            3,
            "it ended with status 3",
        ),
        ({"exit": -9, "reason": {"kind": "oom", "text": "out of\x1b[2J memory\n"}}, 137, "out of memory"),
        ({"exit": 1}, 1, "nobody knows why"),
    ],
)
def test_the_exit_status_tells_how_it_ended(
    keeper: FakeKeeper, launch: Callable[..., Launched], event: dict[str, Any], status: int, said: str
) -> None:
    running = launch()
    keeper.state(running.kernel, "live")
    keeper.state(running.kernel, "ended", **event)
    code, stderr = running.end()
    assert code == status
    assert said in stderr
    assert "\x1b" not in stderr
    assert stderr.count("\n") == (1 if said else 0)
    assert keeper.wait_for("cleanup")["restart"] is False


def test_sigint_interrupts(keeper: FakeKeeper, launch: Callable[..., Launched]) -> None:
    running = launch()
    kernel = running.kernel
    running.signal(signal.SIGINT)
    keeper.wait_for("interrupt")
    running.signal(signal.SIGINT)
    assert keeper.wait_for("interrupt", 2)["kernel"] == kernel
    assert running.process.poll() is None


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_leaves_the_kernel_to_keep(
    keeper: FakeKeeper, launch: Callable[..., Launched], signum: int
) -> None:
    running = launch()
    kernel = running.kernel
    running.signal(signum)
    assert running.end() == (0, "")
    assert keeper.asked() == ["launch", "watch", "detach"]
    assert keeper.wait_for("detach")["kernel"] == kernel


def test_sigterm_twice_stops(keeper: FakeKeeper, launch: Callable[..., Launched]) -> None:
    running = launch()
    kernel = running.kernel
    running.signal(signal.SIGTERM)
    keeper.wait_for("detach")
    running.signal(signal.SIGTERM)
    stop = keeper.wait_for("stop")
    assert (stop["kernel"], stop["now"]) == (kernel, False)
    running.signal(signal.SIGTERM)
    assert keeper.wait_for("stop", 2)["now"] is True
    keeper.state(kernel, "ended", exit=0, reason={"kind": "stopped"})
    assert running.end() == (0, "")


def test_sigterm_before_the_keeper_has_answered(keeper: FakeKeeper, launch: Callable[..., Launched]) -> None:
    keeper.handlers["launch"] = lambda _: None
    running = launch()
    request = keeper.wait_for("launch")
    running.signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        running.process.wait(0.2)
    keeper.send({"id": request["id"], "ok": launched(request)})
    assert running.end() == (0, "")
    assert keeper.asked()[-1] == "detach"


def test_a_refusal_is_said_and_fails(keeper: FakeKeeper, launch: Callable[..., Launched]) -> None:
    class NoSuchTarget(FarkernelError):
        kind = "unknown-target"

    def refuse(_: dict[str, Any]) -> None:
        raise NoSuchTarget("there is no target 'lab'", "Add it: farkernel add lab ADDRESS")

    keeper.handlers["launch"] = refuse
    assert launch().end() == (1, "farkernel: there is no target 'lab'. Add it: farkernel add lab ADDRESS\n")


def test_the_keeper_is_killed_and_comes_back(keeper: FakeKeeper, launch: Callable[..., Launched]) -> None:
    running = launch()
    kernel = running.kernel
    keeper.drop()
    assert keeper.wait_for("watch", 2)["kernel"] == kernel
    keeper.state(kernel, "ended", exit=0)
    assert running.end()[0] == 0


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        ("{", "it is not JSON"),
        ("[]", "it is not a JSON object"),
        (json.dumps({**TCP, "key": 1} | {"hb_port": 1}).replace('"hb_port"', '"x"'), "it lacks hb_port"),
    ],
)
def test_a_connection_file_that_is_none(tmp_path: Path, content: str | None, why: str) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConnectionFileError, match=f"cannot be used: {why}. It is written by the front end"):
        read_connection_file(str(path))


def test_wrong_usage_is_status_2() -> None:
    command = [sys.executable, "-P", "-m", "farkernel", "launch", "lab"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == (
        "farkernel: the following arguments are required: -f/--connection-file. "
        "See `farkernel launch --help`.\n"
    )


def test_a_file_in_the_notebooks_directory_does_not_stand_in_for_a_module(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(77)")
    spec = entries.build("lab", "lab", "python", {"target": "lab"})
    command = [part.format(connection_file="/nonexistent") for part in spec["argv"]]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "No such file or directory" in ended.stderr


def test_it_is_imported_in_60_ms(keeper: FakeKeeper) -> None:
    def took(*arguments: str) -> float:
        times = []
        for _ in range(5):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-P", *arguments], capture_output=True, check=False)
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    own = took("-m", "farkernel", "launch", "lab", "-f", "/nonexistent") - took("-c", "pass")
    assert own < 0.12  # 60 ms on a machine that does nothing else (scripts/bench)
