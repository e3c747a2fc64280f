"""Every command where nothing more goes onto the disk: configuration, state and sockets all lie on it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..sites.engine import wait_until
from ..sites.every_command import (
    NAMES,
    Ended,
    case,
    check_manners,
    filled_in,
    finish,
    furnish,
    leftovers,
    snapshot,
    start,
)
from ..sites.small_disk import SmallDisk

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


class Machine:
    """A home on a small disk, and commands that run there."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.disk = SmallDisk(home.parent)
        self.base = self.disk.root
        self.inner_home = self.base / home.relative_to(home.parent)
        places = {
            name: self.base / Path(value).relative_to(home.parent)
            for name, value in os.environ.items()
            if name != "FARKERNEL_TEST" and value.startswith(str(home.parent) + "/")
        }
        for place in places.values():
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        furnish(self.inner_home, {name: str(place) for name, place in places.items()})
        connection = self.inner_home / "connection.json"
        outer = json.loads(connection.read_text()) | {"ip": str(home.parent / "run" / "brief")}
        connection.write_text(json.dumps(outer))
        self.users_files = (places["XDG_CONFIG_HOME"], places["JUPYTER_DATA_DIR"], self.inner_home)

    def run(self, name: str, kernel: str = "abcdef") -> Ended:
        chosen = case(name)
        process = start(filled_in(chosen, self.home, kernel), self.disk.inside())
        return finish(process, chosen.stays)

    def json(self, *arguments: str) -> dict[str, list[dict[str, object]]]:
        ended = finish(start([*arguments, "--json"], self.disk.inside()))
        assert ended.status == 0, ended
        found: dict[str, list[dict[str, object]]] = json.loads(ended.out)
        return found

    def close(self) -> None:
        self.disk.make_room()
        for row in self.json("ps")["kernels"]:
            if row["state"] != "ended":
                finish(start(["stop", "--now", str(row["kernel"])], self.disk.inside()))
        finish(start(["keeper", "stop"], self.disk.inside()))
        self.disk.close()


@pytest.fixture
def machine(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setenv("FARKERNEL_AGENT_IDLE", "0.5")
    machine = Machine(home)
    yield machine
    machine.close()


@pytest.mark.parametrize("name", NAMES)
def test_full_from_the_beginning(machine: Machine, name: str) -> None:
    before = snapshot(*machine.users_files)
    machine.disk.fill()
    ended = machine.run(name)
    check_manners(ended, case(name))
    after = snapshot(*machine.users_files)
    if name != "uninstall":
        assert after == before
    assert leftovers(machine.base) == []
    if ended.status == 1 and name in ("add", "install"):
        assert "No space left on device" in ended.err


NEED_ROOM = {
    "add",
    "remove",
    "install",
    "output",
    "output --into",
    "attach",
    "launch",
    "doctor",
    "resources",
    "fleet apply",
}


@pytest.mark.parametrize("name", NAMES)
def test_full_while_a_kernel_runs(machine: Machine, name: str) -> None:
    """What needs no room goes on: above all looking, interrupting, stopping."""
    launching = start(["launch", "here", "-f", str(machine.home / "connection.json")], machine.disk.inside())
    (row,) = wait_until(
        lambda: [row for row in machine.json("ps")["kernels"] if row["state"] == "live"], "the kernel"
    )
    before = snapshot(*machine.users_files)
    machine.disk.fill()
    ended = machine.run(name, str(row["kernel"]))
    check_manners(ended, case(name))
    if name not in NEED_ROOM and not case(name).stays:
        assert ended.status == int(case(name).fails), ended
    if ended.status == 1 and name in ("add", "remove", "install", "uninstall", "output --into"):
        assert snapshot(*machine.users_files) == before
    assert leftovers(machine.base) == []
    machine.disk.make_room()
    launching.terminate()
    launching.communicate(timeout=60)
