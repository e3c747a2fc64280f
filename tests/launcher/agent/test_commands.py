"""Commands whose stdin and stdout are a channel of the link, with a real agent."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from farkernel.launcher.agent.link import Priority
from farkernel.launcher.errors import RemoteError
from tests.launcher.agent.near_end import NearEnd
from tests.sites.engine import wait_until


class Run:
    """One command, from the keeper's side."""

    def __init__(self, near: NearEnd, *argv: str) -> None:
        self.near = near
        self.channel = near.open(Priority.PORT, True)
        near.request("run", channel=self.channel, argv=list(argv))

    def give(self, data: bytes) -> None:
        self.near.link.send(self.channel, [data])

    def end(self) -> None:
        self.near.link.close(self.channel)

    def ended(self) -> dict[str, Any]:
        def told() -> list[dict[str, Any]]:
            return [e for e in self.near.events if e["event"] == "ran" and e["channel"] == self.channel]

        self.near.wait(lambda: told() and self.channel in self.near.closed)
        return told()[0]


@pytest.fixture
def near(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NearEnd]:
    monkeypatch.setenv("FARKERNEL_AGENT_IDLE", "0.5")
    end = NearEnd(home.parent / "far")
    end.connect()
    yield end
    end.request("end", if_idle=False)
    end.cut()


def test_what_goes_in_and_out(near: NearEnd, home: Path) -> None:
    run = Run(near, "sh", "-c", "pwd; cat; echo complaint >&2; exit 7")
    big = b"x" * 3_000_000
    run.give(b"hello ")
    run.give(big)
    run.end()
    assert run.ended() == {"event": "ran", "channel": run.channel, "status": 7, "said": "complaint\n"}
    assert b"".join(near.streams[run.channel]) == f"{home}\n".encode() + b"hello " + big


def test_a_command_that_says_much_is_held_up_by_who_reads(near: NearEnd) -> None:
    run = Run(near, "{python}", "-c", "import sys; sys.stdout.write('y' * 5000000)")
    run.end()
    assert run.ended()["status"] == 0
    assert len(b"".join(near.streams[run.channel])) == 5_000_000


def test_words_are_words(near: NearEnd) -> None:
    words = ["$(id)", "a b", "'", '"', "-x", "\n", "*"]
    run = Run(near, "{python}", "-c", "import sys, json; print(json.dumps(sys.argv[1:]))", *words)
    run.end()
    assert run.ended()["status"] == 0
    assert json.loads(b"".join(near.streams[run.channel])) == words


def test_what_cannot_be_run(near: NearEnd) -> None:
    with pytest.raises(RemoteError, match="there is no no-such-program there"):
        Run(near, "no-such-program")
    for argv in ([], [1], "sh", ["a\0b"]):
        with pytest.raises(RemoteError, match="argv must be a list of strings"):
            near.request("run", channel=90, argv=argv)
    assert near.request("list") == {"kernels": []}


def test_a_command_ends_with_its_channel_and_with_the_link(near: NearEnd) -> None:
    def running(mark: str) -> list[int]:
        return [p.pid for p in psutil.process_iter() if mark in _words(p)]

    run = Run(near, sys.executable, "-c", "import time; time.sleep(50)", "first-mark")
    wait_until(lambda: running("first-mark"), "it to start")
    near.tell(do="reset", channel=run.channel)
    near.wait(lambda: not running("first-mark"))
    run = Run(near, sys.executable, "-c", "import time; time.sleep(50)", "second-mark")
    wait_until(lambda: running("second-mark"), "it to start")
    near.request("end", if_idle=False)
    wait_until(lambda: not running("second-mark"), "it to end")
    near.cut()
    near.connect()


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
