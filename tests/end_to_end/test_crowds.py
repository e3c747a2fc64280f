"""Every command ten times at once, and every command where no keeper is running."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from farkernel.launcher.client import keeper_directory
from farkernel.launcher.client_start import lock_holder
from farkernel.launcher.configuration import load

from ..sites.engine import Engine, wait_until
from ..sites.every_command import (
    CASES,
    NAMES,
    case,
    check_manners,
    filled_in,
    finish,
    furnish,
    leftovers,
    start,
)

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

TEN = 10
ONE_WINS = {"add", "remove"}  # the others are told that it is done already


@pytest.fixture
def furnished(engine: Engine, home: Path, request: pytest.FixtureRequest) -> Engine:
    # A console can be opened only on what speaks as a Jupyter kernel does.
    furnish(home, os.environ, "python3" if "[attach]" in request.node.name else "fake")
    return engine


@pytest.fixture
def kernel(furnished: Engine, home: Path) -> Iterator[str]:
    """A kernel held by `farkernel launch`, and its id."""
    launching = start(["launch", "here", "-f", str(home / "connection.json")])
    (row,) = wait_until(
        lambda: [row for row in furnished.kernels() if row["state"] == "live"], "the kernel to be live"
    )
    yield str(row["kernel"])
    launching.terminate()
    launching.communicate(timeout=60)


def connection_files(home: Path, arguments: list[str], number: int) -> list[str]:
    """Each front end gives its kernel endpoints of its own."""
    path = str(home / "connection.json")
    if path not in arguments:
        return arguments
    own = home / f"connection-{number}.json"
    content = json.loads(Path(path).read_text()) | {"ip": str(home.parent / "run" / f"brief{number}")}
    own.write_text(json.dumps(content))
    return [str(own) if argument == path else argument for argument in arguments]


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("completion")])
def test_ten_at_once(kernel: str, furnished: Engine, home: Path, name: str) -> None:
    chosen = case(name)
    command = filled_in(chosen, home, kernel)
    processes = [start(connection_files(home, command, number)) for number in range(TEN)]
    ended = [finish(process, chosen.stays) for process in processes]
    for each in ended:
        check_manners(each, chosen)
    succeeded = [each for each in ended if each.status in (0, 130)]
    if name in ONE_WINS:
        assert len(succeeded) == 1, ended
    elif name in ("stop", "release", "uninstall"):
        assert succeeded, ended
        for each in ended:
            assert not each.status or "there is no " in each.err or "no menu entry" in each.err, each
    else:
        assert len(succeeded) == (0 if chosen.fails else TEN), ended
    assert leftovers(home.parent) == []
    added = {"add": {"another"}, "fleet apply": {"class", "pi1"}}
    targets = {"here", "brief", "spare"} | added.get(name, set())
    assert set(load().targets) == targets - ({"spare"} if name == "remove" else set())
    keepers = subprocess.run(
        ["pgrep", "-f", "--", f"{sys.executable} -P -m farkernel.launcher.keeper"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    mine = [pid for pid in keepers if _belongs(pid)]
    assert len(mine) <= 1, mine


def _belongs(pid: str) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it has ended
        return False
    return f"FARKERNEL_RUN_DIR={os.environ['FARKERNEL_RUN_DIR']}".encode() in environment


@pytest.mark.parametrize("name", NAMES)
def test_without_a_keeper(furnished: Engine, home: Path, name: str) -> None:
    """What needs one starts it; what does not leaves it at that."""
    chosen = case(name)
    ended = finish(start(filled_in(chosen, home)), chosen.stays)
    check_manners(ended, chosen)
    if not chosen.needs_keeper:
        assert ended.status == (1 if name == "keeper status" or chosen.fails else 0)
        assert (lock_holder(keeper_directory()) is not None) == (name == "keeper restart")
    elif "KERNEL" in chosen.arguments:
        assert (ended.status, ended.err) == (
            1,
            "farkernel: there is no kernel 'abcdef0123456789'. See `farkernel ps`.\n",
        )
    elif name == "release":
        assert ended.err == "farkernel: there is no allocation 'local:'. See `farkernel ps`.\n"
    else:
        assert ended.status == int(chosen.fails), ended
        assert lock_holder(keeper_directory()) is not None
    assert leftovers(home.parent) == []


@pytest.mark.parametrize(
    "name", [case.name for case in CASES if case.needs_keeper and not case.reads_targets]
)
def test_a_configuration_that_broke_while_a_kernel_runs(
    kernel: str, furnished: Engine, home: Path, name: str
) -> None:
    """Looking at a kernel, interrupting and ending it must not depend on it."""
    (Path(os.environ["XDG_CONFIG_HOME"]) / "farkernel" / "broken.toml").write_text("[targets.here\n")
    chosen = case(name)
    ended = finish(start(filled_in(chosen, home, kernel)), chosen.stays)
    check_manners(ended, chosen)
    assert ended.status in (0, 130), ended
