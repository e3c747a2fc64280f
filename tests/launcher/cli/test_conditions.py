"""Every command where something is wrong with what it needs: an older keeper, a broken configuration, a full stdout."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from farkernel.launcher.cli import commands, main
from farkernel.launcher.client import keeper_directory
from farkernel.launcher.errors import FarkernelError
from tests.launcher.fake_keeper import FakeKeeper
from tests.sites.every_command import (
    CASES,
    KERNEL,
    Case,
    Ended,
    case,
    check_manners,
    filled_in,
    furnish,
    leftovers,
    snapshot,
)

Captured = pytest.CaptureFixture[str]

ASKS_KEEPER = [case.name for case in CASES if case.needs_keeper]
READS_TARGETS = [case.name for case in CASES if case.reads_targets and case.name != "launch"]


ELSEWHERE = {"board", "image", "resources"}  # about machines and boards, not kernels: tested with those


def test_every_command_is_here() -> None:
    here = {case.name.split()[0] for case in CASES}
    assert here | ELSEWHERE == {command.name for command in commands.COMMANDS}


@pytest.fixture(autouse=True)
def furnished(home: Path) -> None:
    furnish(home, os.environ)


def run(chosen: Case, home: Path, capsys: Captured) -> Ended:
    status = main(filled_in(chosen, home))
    out, err = capsys.readouterr()
    ended = Ended(status, out, err)
    check_manners(ended, chosen)
    return ended


# -- an older keeper ---------------------------------------------------------------------------------------


class UnknownRequest(FarkernelError):
    """As every keeper answers what it does not know."""

    kind = "unknown-request"


@pytest.fixture
def older_protocol() -> Iterator[FakeKeeper]:
    with FakeKeeper(Path(keeper_directory()), {"farkernel": 0, "version": "0.0.1", "pid": 1}) as fake:
        yield fake


@pytest.mark.parametrize("name", ASKS_KEEPER)
def test_a_keeper_of_an_older_protocol(
    older_protocol: FakeKeeper, name: str, home: Path, capsys: Captured
) -> None:
    before = snapshot(home)
    ended = run(case(name), home, capsys)
    assert ended.status == 1
    said = ended.out if name == "doctor" else ended.err
    assert "the keeper that is running is of an older version (0.0.1, here" in said
    assert "farkernel keeper restart" in said
    assert snapshot(home) == before
    assert leftovers(home.parent) == []


@pytest.fixture
def older_keeper() -> Iterator[FakeKeeper]:
    """It speaks our protocol, and lacks what came later."""

    def refuse(request: dict[str, object]) -> None:
        raise UnknownRequest(f"this keeper (0.0.1) does not know the request {request['do']!r}", "")

    row = {"kernel": KERNEL, "entry": "here", "target": "here", "state": "live", "since": 0, "reason": None}
    held = {"allocation": "local:", "link": "up", "why": "", "kernels": [KERNEL]}
    with FakeKeeper(Path(keeper_directory()), {"farkernel": 1, "version": "0.0.1", "pid": 1}) as fake:
        for do in (
            "reach",
            "forward",
            "output",
            "scan",
            "doctor",
            "login",
            "connection",
            "release",
            "probe",
            "elsewhere",
            "bridge",
        ):
            fake.handlers[do] = refuse
        fake.handlers["list"] = lambda _: {"kernels": [row], "allocations": [held]}
        fake.handlers["logs"] = lambda _: {"log": "what it said\n"}
        fake.handlers["launch"] = refuse
        yield fake


@pytest.mark.parametrize("name", ASKS_KEEPER)
def test_a_keeper_without_later_requests(
    older_keeper: FakeKeeper, name: str, home: Path, capsys: Captured
) -> None:
    before = snapshot(home)
    ended = run(case(name), home, capsys)
    if name in ("list", "ps", "stop", "interrupt", "logs"):
        assert ended.status == 0
    else:
        said = ended.out if name == "doctor" else ended.err
        assert ended.status == 1
        assert "older version (0.0.1, here" in said
        assert "farkernel keeper restart" in said
    assert snapshot(home) == before
    assert leftovers(home.parent) == []


def test_an_older_keeper_is_looked_at_stopped_and_replaced(capsys: Captured) -> None:
    """A process that holds the lock and speaks an older protocol, as an upgrade leaves it."""
    directory = keeper_directory()
    for action, status in (("status", 1), ("stop", 0), ("restart", 0)):
        program = Path(__file__).parent.parent / "older_keeper.py"
        with subprocess.Popen([sys.executable, str(program), directory], stdout=subprocess.PIPE) as older:
            assert older.stdout is not None
            assert older.stdout.readline() == b"listening\n"
            assert main(["keeper", action]) == status
            if action == "status":
                assert "farkernel keeper restart" in capsys.readouterr().err
                older.terminate()
            older.wait(20)
    assert main(["keeper", "status", "--json"]) == 0
    assert main(["keeper", "stop"]) == 0


# -- a broken configuration --------------------------------------------------------------------------------

BROKEN = {
    "a wrong key": '[targets.here]\naddres = "local:"\n',
    "no TOML": "[targets.here\n",
    "not text": b"\xff\xfe\x00".decode("latin-1"),
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("name", READS_TARGETS)
def test_a_broken_configuration(what: str, name: str, home: Path, capsys: Captured) -> None:
    directory = Path(os.environ["XDG_CONFIG_HOME"]) / "farkernel"
    (directory / "targets.toml").write_bytes(BROKEN[what].encode("latin-1"))
    before = snapshot(home)
    ended = run(case(name), home, capsys)
    if what == "a wrong key" and name in ("add", "remove"):
        # They change one table, whatever else stands there: also a way out of trouble.
        assert ended.status == (0 if name == "add" else 1)
        return
    assert ended.status == 1
    assert str(directory / "targets.toml") in ended.out + ended.err
    assert snapshot(home) == before
    assert leftovers(home.parent) == []


# -- a full stdout -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["list", "--no-check"], ["list", "--no-check", "--json"], ["completion", "bash"]],
)
def test_a_full_stdout(arguments: list[str]) -> None:
    with open("/dev/full", "w", encoding="ascii") as full:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "farkernel", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=50,
        )
    assert ended.returncode == 1
    assert ended.stderr == (
        "farkernel: No space left on device. Make room on that disk (`df -h` shows how full they are), "
        "then try again.\n"
    )
