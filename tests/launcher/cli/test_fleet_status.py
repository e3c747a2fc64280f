"""`farkernel fleet status` and `reset`: what is shown and said, with a small keeper that answers as we want."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from farkernel.launcher.cli import main
from farkernel.launcher.cli.schemas import SCHEMAS
from farkernel.launcher.client import keeper_directory
from tests.launcher.fake_keeper import FakeKeeper

Captured = pytest.CaptureFixture[str]


def pi(temperature: float, throttled: tuple[str, ...] = (), before: tuple[str, ...] = ()) -> dict[str, Any]:
    about = {"model": "Raspberry Pi 5", "temperature": temperature}
    return {
        "ok": True,
        "machine": {
            "version": 1,
            "load": [0.25, 0.1, 0.0],
            "memory": {"total": 4 << 30, "available": 3 << 30},
            "users": [{"name": "ada\x1b[2J", "sessions": 1}],
            "raspberrypi": {**about, "throttled": list(throttled), "throttled_before": list(before)},
        },
    }


PROBED = {
    "pi1": pi(51.25),
    "pi2": pi(85.0, ("throttled",), ("throttled", "under-voltage")),
    "pi3": pi(60.0, ("under-voltage",)),
    "pi4": {"ok": False, "what": "no answer\x1b[31m within 10 s", "advice": "See: farkernel doctor pi4"},
}
KERNELS = [
    {"kernel": "k1", "entry": "class", "target": "class", "member": "pi1", "state": "live", "notebook": "/a/lesson.ipynb"},
    {"kernel": "k2", "entry": "pi1", "target": "pi1", "state": "starting", "notebook": ""},
    {"kernel": "k3", "entry": "class", "target": "class", "member": "pi1", "state": "ended", "notebook": "gone.ipynb"},
    {"kernel": "k4", "entry": "pi1-board", "target": "pi1-board", "state": "live", "notebook": "led.ipynb"},
]  # fmt: skip
ELSEWHERE = [
    {
        "kernel": "k5",
        "entry": "class",
        "target": "pi3",
        "state": "live",
        "notebook": "other.ipynb",
        "host": "hub",
    }
]


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> Iterator[FakeKeeper]:
    monkeypatch.chdir(tmp_path)
    roster = "host,student,board,model\npi1,Ada,/dev/ttyACM0,\npi2,Grace,,\npi3,,,\npi4,Alan,,Pi Zero\n"
    (tmp_path / "class.csv").write_text(roster)
    assert main(["fleet", "apply", "class.csv"]) == 0
    capsys.readouterr()
    with FakeKeeper(Path(keeper_directory())) as fake:
        fake.handlers["probe"] = lambda _: {"targets": PROBED}
        fake.handlers["list"] = lambda _: {"kernels": KERNELS, "allocations": []}
        fake.handlers["elsewhere"] = lambda _: {"kernels": ELSEWHERE, "unreachable": {}}
        yield fake


def test_one_look(keeper: FakeKeeper, capsys: Captured) -> None:
    assert main(["fleet", "status"]) == 0
    out = capsys.readouterr().out
    assert [" ".join(line.split()) for line in out.splitlines()] == [
        "HOST STUDENT STATE TEMP TROUBLE LOAD FREE LOGGED IN KERNELS WHY",
        "pi1 Ada up 51 °C 0.2 3.0 GiB ada lesson.ipynb, pi1, led.ipynb",
        "pi2 Grace hot 85 °C throttled, under-voltage before 0.2 3.0 GiB ada",
        "pi3 throttled 60 °C under-voltage 0.2 3.0 GiB ada other.ipynb",
        "pi4 Alan down no answer within 10 s. See: farkernel doctor pi4",
        "",
        "4 hosts: 1 up, 1 hot, 1 throttled, 1 down; 4 kernels.",
    ]
    assert "\x1b" not in out
    asked = keeper.wait_for("probe")
    assert (asked["targets"], asked["wanted"]) == (
        ["pi1", "pi2", "pi3", "pi4"],
        ["host", "cpu", "memory", "raspberrypi"],
    )
    # Whoever does not answer is not asked for kernels too.
    assert keeper.wait_for("elsewhere")["targets"] == ["pi1", "pi2", "pi3"]


def test_for_programs(keeper: FakeKeeper, capsys: Captured) -> None:
    assert main(["fleet", "status", "class", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    jsonschema.validate(found, SCHEMAS["fleet status"])
    assert [(row["host"], row["state"]) for row in found] == [
        ("pi1", "up"),
        ("pi2", "hot"),
        ("pi3", "throttled"),
        ("pi4", "down"),
    ]
    assert [each["kernel"] for each in found[0]["kernels"]] == ["k1", "k2", "k4"]
    assert found[3]["model"] == "Pi Zero"


def test_fleets_that_there_are_not(capsys: Captured) -> None:
    assert main(["fleet", "status"]) == 0
    assert capsys.readouterr().out == "There are no fleets yet. Make one: farkernel fleet apply ROSTER\n"
    assert main(["fleet", "status", "x"]) == 1
    assert "there is no fleet 'x'. Make one: farkernel fleet apply ROSTER" in capsys.readouterr().err


# -- reset -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["pi9", "--yes"], "no fleet has a host 'pi9'. There are: pi1, pi2, pi3, pi4"),
        (["--yes"], "no host is named. Name hosts, or say --all"),
        (["pi1"], "1 host was not reset: nobody said yes. Say yes when asked, or give --yes"),
        (["--all"], "4 hosts were not reset: nobody said yes."),
        (["--all", "--fleet", "x", "--yes"], "there is no fleet 'x'. There are: class"),
    ],
)
def test_who_is_reset_is_said_exactly(
    keeper: FakeKeeper, capsys: Captured, arguments: list[str], expected: str
) -> None:
    assert main(["fleet", "reset", *arguments]) == 1
    assert expected in capsys.readouterr().err
    assert not {"stop", "bridge"} & set(keeper.asked())


def test_kernels_end_here_and_elsewhere(keeper: FakeKeeper, capsys: Captured) -> None:
    keeper.handlers["reach"] = lambda request: {
        "targets": {
            request["targets"][0]: {
                "ok": request["targets"] != ["pi4"],
                "what": "it is off",
                "advice": "Switch it on",
            }
        }
    }
    keeper.handlers["elsewhere"] = lambda request: {
        "kernels": ELSEWHERE if request["targets"] == ["pi3"] else []
    }
    keeper.handlers["adopt"] = lambda _: {"kernel": "mine"}
    assert main(["fleet", "reset", "--all", "--yes"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "pi1: 3 kernels ended.",
        "pi2: 0 kernels ended.",
        "pi3: 1 kernel ended.",
        "pi4: not reset: it is off. Switch it on",
    ]
    assert "1 of 4 hosts could not be reset (pi4). See why above" in err
    stopped = sorted(str(each["kernel"]) for each in keeper.requests if each["do"] == "stop")
    assert stopped == ["k1", "k2", "k4", "mine"]
