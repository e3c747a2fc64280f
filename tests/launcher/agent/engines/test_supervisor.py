"""The program that holds an engine: started, joined, held, told of and ended; with a stand-in for the engine itself."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import psutil
import pytest

from farkernel.backends.archive import build_engines

from ....sites.engine import wait_until
from ....sites.pythons import PYTHONS

STAND_IN = Path(__file__).with_name("stand_in.py")


class Site:
    """One directory for an engine, and the program."""

    def __init__(self, place: Path, python: str = sys.executable) -> None:
        self.place = place
        self.directory = place / "e"
        self.python = place / "python"
        self._by = python
        (place / "engines.zip").write_bytes(build_engines().content)
        self.python.write_text(f'#!/bin/sh\nexec {sys.executable} {place}/stand_in.py "$@"\n')
        self.python.chmod(0o755)
        (place / "stand_in.py").write_bytes(STAND_IN.read_bytes())
        self.does("")

    def does(self, what: str) -> None:
        (self.place / "what").write_text(what)

    def request(self, **more: Any) -> dict[str, Any]:
        return {
            "kind": "dask",
            "launcher": "ssh",
            "hosts": [],
            "nodes": 1,
            "secrets": {"certificate": "C", "key": "K", "word": "W"},
            "prefix": [],
            "node_prefix": [],
            "python": str(self.python),
            "pythons": [self._by],
            "environment": {"PATH": os.environ["PATH"], "HOME": str(self.place), "SITE": str(self.place)},
            "extra": {},
            "unset": [],
            "fresh": False,
            **more,
        }

    def ask(self, *words: str, **more: Any) -> dict[str, Any]:
        argv = [self._by, "-I", str(self.place / "engines.zip"), *words]
        given = json.dumps(self.request(**more)).encode()
        done = subprocess.run(argv, input=given, capture_output=True, check=True, timeout=50)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def start(self, **more: Any) -> dict[str, Any]:
        return self.ask("start", str(self.directory), **more)

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if str(self.place) in " ".join([*process.cmdline(), process.environ().get("SITE", "")]):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def hold(self) -> int:
        descriptor = os.open(self.directory / "life", os.O_WRONLY | os.O_NONBLOCK)
        os.write(descriptor, b"\n")
        return descriptor

    def supervisor(self) -> psutil.Process:
        return next(each for each in self.processes() if "start" in each.cmdline())

    def ended(self) -> None:
        wait_until(lambda: not self.processes(), "everything to end", deadline=40)
        assert not list(filter(is_left, Path("/tmp").glob("farkernel-node-*")))


def is_left(directory: Path) -> bool:
    """Nobody holds it any more; other runs of the tests may have some of their own."""
    try:
        descriptor = os.open(directory / "lock", os.O_RDWR)
    except OSError:
        return False  # it is being removed
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return directory.exists()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    for process in site.processes():
        process.kill()


def test_it_comes_up_and_ends_with_the_last_that_holds_it(site: Site) -> None:
    answer = site.start()
    engine = answer["engine"]
    assert (engine["state"], engine["address"]) == ("ready", "tls://127.0.0.1:7777")
    assert answer["environment"]["DASK_SCHEDULER_ADDRESS"] == "tls://127.0.0.1:7777"
    assert (site.directory / "key.pem").read_text() == "K"
    assert all(path.stat().st_mode & 0o077 == 0 for path in (site.directory, site.directory / "key.pem"))
    assert not [each for each in site.processes() if "K" in each.cmdline()]
    first, second = site.hold(), site.hold()
    os.close(first)
    assert site.start()["engine"] == engine  # the same one, for another kernel
    os.close(second)
    site.ended()
    assert not site.directory.exists()


@pytest.mark.parametrize("python", PYTHONS)
def test_every_python(tmp_path: Path, python: Path) -> None:
    site = Site(tmp_path, str(python))
    assert site.start()["engine"]["state"] == "ready"
    os.close(site.hold())
    site.ended()


def test_it_is_not_installed(site: Site) -> None:
    site.does("fails")
    answer = site.start()
    assert answer["environment"] == {}
    assert answer["engine"]["state"] == "failed"
    assert answer["engine"]["text"] == "Dask is not installed in the kernel's environment"
    place = str(site.place / "check")
    assert site.ask("check", place) == {"installed": "Dask 9.9"}
    assert site.ask("check", place, python=sys.executable) == {
        "problem": "Dask is not installed in the kernel's environment",
        "advice": "Install distributed there, on all nodes",
    }
    wrong = site.ask("check", place, python="/nonexistent/python")
    assert "No such file" in wrong["problem"]
    os.close(site.hold())
    site.ended()


def test_its_worker_dies_at_once(site: Site) -> None:
    """The head is there, and can be connected to; a restart makes a fresh one."""
    site.does("dies")
    answer = site.start()
    assert answer["engine"]["state"] == "degraded"
    assert "SIGKILL (OSError: no space left)" in answer["engine"]["text"]
    assert answer["environment"]["DASK_SCHEDULER_ADDRESS"]
    held = site.hold()
    former = site.supervisor()
    assert site.start()["engine"]["state"] == "degraded"  # for another kernel
    site.does("")
    assert site.start(fresh=True)["engine"]["state"] == "ready"
    wait_until(
        lambda: not former.is_running() or former.status() == psutil.STATUS_ZOMBIE, "the former to end"
    )
    os.close(held)
    os.close(site.hold())
    site.ended()


@contextlib.contextmanager
def watched(site: Site) -> Iterator[BinaryIO]:
    with socket.socket(socket.AF_UNIX) as watcher:
        watcher.settimeout(30)
        watcher.connect(str(site.directory / "socket"))
        with watcher.makefile("rb") as lines:
            yield lines


def test_who_watches_is_told(site: Site) -> None:
    site.start()
    held = site.hold()
    with watched(site) as lines:
        assert json.loads(lines.readline())["state"] == "ready"
        worker = next(each for each in site.processes() if "distributed.cli.dask_worker" in each.cmdline())
        worker.kill()
        told = json.loads(lines.readline())
        assert told["state"] == "degraded"
        assert (
            told["nodes"][0]["text"]
            == "it was ended by the signal SIGKILL (Registered to: tls://127.0.0.1:7777)"
        )
        head = next(each for each in site.processes() if "distributed.cli.dask_scheduler" in each.cmdline())
        head.kill()
        told = json.loads(lines.readline())
        assert (told["state"], told["advice"]) == ("ended", "Restart the kernel for a fresh one")
    assert site.start()["engine"]["state"] == "ended"
    os.close(held)
    site.ended()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_the_supervisor_is_killed(site: Site, signum: int) -> None:
    """Nothing is left, not even who went into a session of its own; and the next start begins anew."""
    site.does("deaf")
    site.start()
    site.does("")
    held = site.hold()
    site.supervisor().send_signal(signum)
    site.ended()
    os.close(held)
    assert site.start()["engine"]["state"] == "ready"
    os.close(site.hold())
    site.ended()


def test_nodes_that_have_no_names(site: Site) -> None:
    answer = site.start(nodes=2, hosts=["-oProxyCommand=touch /tmp/x"])
    assert answer["engine"]["state"] == "failed"
    assert "cannot be the name of a node" in answer["engine"]["text"]
    os.close(site.hold())
    site.ended()


def test_a_scheduler_that_starts_nothing_on_other_nodes(site: Site) -> None:
    """One node is enough for a head and a worker; with more it is said that it cannot be."""
    assert site.start(launcher="htcondor")["engine"]["state"] == "ready"
    os.close(site.hold())
    site.ended()
    answer = site.start(launcher="htcondor", nodes=2)
    assert answer["engine"]["text"] == (
        "Dask could not be started: nothing is known that starts programs on other nodes of htcondor"
    )
    os.close(site.hold())
    site.ended()


def test_mpi_goes_into_no_container(site: Site) -> None:
    answer = site.start(kind="mpi", container=True)
    assert answer["engine"]["text"] == (
        "MPI could not be started: it runs in no container: take container out of the target"
    )
    os.close(site.hold())
    site.ended()


def test_more_nodes_than_are_known(site: Site) -> None:
    answer = site.start(nodes=3)
    assert answer["engine"]["text"].endswith("no other nodes are known than this one, and 3 were asked for")
    os.close(site.hold())
    site.ended()


def test_a_node_that_cannot_be_reached(site: Site) -> None:
    """ssh says why, and the head is there all the same."""
    answer = site.start(nodes=2, hosts=["nowhere.invalid", "127.0.0.1"])
    assert answer["engine"]["state"] == "degraded"
    assert (
        "Dask has 0 of its 1 nodes (nowhere.invalid: it ended with exit status 255"
        in answer["engine"]["text"]
    )
    os.close(site.hold())
    site.ended()


def test_what_stands_before_it_is_done(site: Site) -> None:
    """Modules, conda and shell lines are words before the engine's own; those for nodes have their own directory."""
    mark = site.place / "marks"
    shell = ["/bin/sh", "-c", f'echo "$0 $#" >>{mark}; exec "$@"']
    site.start(
        prefix=[*shell, "head"], node_prefix=[*shell, "@DIRECTORY@"], extra={"HOSTILE": "$(touch x) \"'"}
    )
    lines = mark.read_text().splitlines()
    assert lines[0].startswith("head ")
    assert lines[1].startswith("/tmp/farkernel-node-")
    worker = next(each for each in site.processes() if "distributed.cli.dask_worker" in each.cmdline())
    assert worker.environ()["HOSTILE"] == "$(touch x) \"'"
    os.close(site.hold())
    site.ended()
