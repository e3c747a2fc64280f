"""`farkernel fleet diff|apply|remove`: as a teacher runs it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from farkernel.kernelspecs import entries
from farkernel.launcher import configuration
from farkernel.launcher.cli import fleet_hosts, fleet_servers, main
from farkernel.launcher.fleet.plan import Change
from farkernel.launcher.fleet.roster import Environment

Captured = pytest.CaptureFixture[str]

CLASS = "host;student\r\npi01;Ada Lovelace\r\npi02;Grace Hopper\r\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "class.csv").write_text(CLASS)
    return tmp_path


def fleet(*arguments: str) -> int:
    return main(["fleet", *arguments])


def settings() -> Path:
    return Path(os.environ["XDG_CONFIG_HOME"]) / "farkernel"


def test_diff_apply_and_again(place: Path, capsys: Captured) -> None:
    lines = "+ target pi01  ssh://pi01\n+ target pi02  ssh://pi02\n+ target class  pool:pi01,pi02\n+ entry class  class · Python\n"
    assert fleet("diff", "class.csv") == 0
    assert capsys.readouterr().out == lines + "4 would be added.\n"
    assert list(settings().rglob("*")) == []
    assert fleet("apply", "class.csv") == 0
    assert capsys.readouterr().out == lines + "4 added.\nNext: farkernel fleet status class\n"
    found = configuration.load()
    assert list(found.targets) == ["pi01", "pi02", "class"]
    assert found.targets["class"].address.members == ("pi01", "pi02")
    entry = entries.find("class")
    assert entry is not None
    assert entry.settings == {"target": "class"}
    assert sorted(path.name for path in Path(entry.directory).iterdir()) == [
        "kernel.json",
        "logo-32x32.png",
        "logo-64x64.png",
        "logo-svg.svg",
    ]
    assert (settings() / "fleet-class.toml").stat().st_mode & 0o777 == 0o600
    before = {path: path.stat().st_mtime_ns for path in settings().glob("*.toml")}
    assert fleet("apply", "class.csv") == 0
    assert capsys.readouterr().out == "Nothing to do: all is as the roster says.\n"
    assert {path: path.stat().st_mtime_ns for path in settings().glob("*.toml")} == before
    assert fleet("diff", "class.csv") == 0
    assert capsys.readouterr().out == "Nothing would change: all is as the roster says.\n"


def test_only_what_the_roster_made_is_removed(place: Path, capsys: Captured) -> None:
    assert main(["add", "mine", "local:"]) == 0
    assert main(["install", "mine"]) == 0
    assert fleet("apply", "class.csv") == 0
    (place / "class.csv").write_text("host,student,user\npi02,Grace,pi\n")
    capsys.readouterr()
    assert fleet("apply", "class.csv") == 0
    assert capsys.readouterr().out == (
        "~ target pi02  address: ssh://pi02 → ssh://pi@pi02\n"
        "~ target class  address: pool:pi01,pi02 → pool:pi02\n"
        "- target pi01\n"
        "2 changed, 1 removed.\n"
    )
    assert list(configuration.load().targets) == ["pi02", "class", "mine"]
    assert fleet("remove", "class") == 0
    assert capsys.readouterr().out == "- target pi02\n- target class\n- entry class\n3 removed.\n"
    assert list(configuration.load().targets) == ["mine"]
    assert [entry.name for entry in entries.installed()] == ["mine"]
    assert [
        path.name for path in settings().rglob("*") if path.is_file() and not path.name.startswith(".")
    ] == ["targets.toml"]
    assert fleet("remove", "class") == 1
    assert capsys.readouterr().err == (
        "farkernel: there is no fleet 'class'. Make one: farkernel fleet apply ROSTER\n"
    )


def test_entries_follow_the_roster(place: Path, capsys: Captured) -> None:
    text = '[fleet]\nentries = {}\n[[hosts]]\nhost = "pi1"\nstudent = "Ada"\nboard = "/dev/ttyACM0"\n'
    roster = place / "lab.toml"
    roster.write_text(text.format('["pool", "hosts", "boards"]'))
    assert fleet("apply", "lab.toml") == 0
    shown = {entry.name: entry.display_name for entry in entries.installed()}
    assert shown == {"lab": "lab · Python", "pi1": "pi1 · Ada", "pi1-board": "pi1 · Ada · MicroPython"}
    assert {entry.name: entry.spec["language"] for entry in entries.installed()}["pi1-board"] == "micropython"
    roster.write_text(text.format('["hosts"]'))
    capsys.readouterr()
    assert fleet("apply", "lab.toml") == 0
    assert capsys.readouterr().out == "- entry lab\n- entry pi1-board\n2 removed.\n"


def test_what_is_there_already_is_not_taken(place: Path, capsys: Captured) -> None:
    assert main(["add", "pi02", "local:"]) == 0
    capsys.readouterr()
    for action in ("diff", "apply"):
        assert fleet(action, "class.csv") == 1
        assert capsys.readouterr().err == (
            f"farkernel: a target 'pi02' is there already ({settings()}/targets.toml), and not made by this roster. "
            "Take it out of there (farkernel remove pi02), or give the host another name\n"
        )
    assert main(["remove", "pi02"]) == 0
    assert main(["add", "x", "local:"]) == 0
    assert main(["install", "x", "--as", "class"]) == 0
    capsys.readouterr()
    assert fleet("apply", "class.csv") == 1
    assert "a menu entry 'class' is there already" in capsys.readouterr().err
    assert not (settings() / "fleet-class.toml").exists()
    assert main(["uninstall", "class"]) == 0
    (settings() / "fleet-class.toml").write_text("# by hand\n")
    capsys.readouterr()
    assert fleet("apply", "class.csv") == 1
    assert "the file 'fleet-class.toml' is there already" in capsys.readouterr().err


def test_errors_of_a_roster(place: Path, capsys: Captured) -> None:
    (place / "class.csv").write_text("host,board\npi1,x\nPI1,\n")
    assert fleet("apply", "class.csv") == 1
    assert capsys.readouterr().err == (
        "farkernel: the roster has 2 errors:\n"
        "  class.csv:2: 'board' is no device with a board: 'x'. Write /dev/ttyUSB0 or /usb/VID:PID, as `farkernel board "
        "list` shows it there; what the machine itself is goes into the column `model`\n"
        "  class.csv:3: the name 'pi1' is taken by line 2. Every name can be given once\n"
    )
    assert list(settings().rglob("*")) == []


def test_json_and_the_record(place: Path, capsys: Captured) -> None:
    assert fleet("apply", "class.csv", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fleet"] == "class"
    assert found["changes"][0] == {
        "how": "add",
        "kind": "target",
        "name": "pi01",
        "detail": "ssh://pi01",
        "place": "",
    }
    record = json.loads((settings() / "fleets" / "class.json").read_text())
    assert record["roster"] == str(place / "class.csv")
    assert [row["student"] for row in record["hosts"]] == ["Ada Lovelace", "Grace Hopper"]


def test_a_roster_for_everybody_in_this_environment(
    place: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.prefix", str(place / "prefix"))
    assert fleet("apply", "class.csv", "--sys-prefix") == 0
    file = place / "prefix/etc/farkernel/fleet-class.toml"
    assert file.stat().st_mode & 0o777 == 0o644
    assert file.parent.stat().st_mode & 0o777 == 0o755
    assert (place / "prefix/share/jupyter/kernels/class/kernel.json").exists()
    assert list(configuration.load().targets) == ["pi01", "pi02", "class"]


def test_locks_of_the_system_are_told(place: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.prefix", str(place / "prefix"))
    (place / "prefix/etc/farkernel").mkdir(parents=True)
    (place / "prefix/etc/farkernel/site.toml").write_text('locked = ["targets.*.address"]\n')
    assert fleet("apply", "class.csv") == 0
    assert "Note: " in capsys.readouterr().out


def test_hostile_texts_stay_texts(place: Path, capsys: Captured) -> None:
    student = "Robert'); DROP TABLE students;-- \u202e $(reboot) `id` \"\\"
    (place / "lab.toml").write_text(
        "[fleet]\nentries = ['hosts']\n[[hosts]]\nhost = 'pi1'\nstudent = "
        + json.dumps(student.replace("\u202e", ""))
    )
    assert fleet("apply", "lab.toml") == 0
    (entry,) = entries.installed()
    assert entry.display_name == "pi1 · " + student.replace("\u202e", "")
    assert configuration.load().targets["pi1"].address.host == "pi1"


# -- what other machines say -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "what", "advice"),
    [
        ("farkernel: x is wrong. Mend it\n", "x is wrong", "Mend it"),
        ("boom\x1b[31m", "boom", "Try it there by hand: farkernel fleet apply --system"),
        ("", "it said nothing", "Try it there by hand: farkernel fleet apply --system"),
    ],
)
def test_why_a_server_failed(said: str, what: str, advice: str) -> None:
    error = fleet_servers.ServerFailed(said)
    assert (error.what, error.advice) == (what, advice)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'{"changes": 3}',
        b'{"changes": [{}]}',
        b'{"changes": [{"how": "eat"}]}',
        b"\xff",
    ],
)
def test_answers_of_servers_that_make_no_sense(said: bytes) -> None:
    with pytest.raises(fleet_servers.ServerFailed, match="its answer cannot be read"):
        list(fleet_servers._changes("hub", said))


def test_answers_of_servers_are_made_fit_for_a_terminal() -> None:
    said = json.dumps(
        {"changes": [{"how": "add", "kind": "target", "name": "a\x1b[2J\nb", "detail": "\x07"}]}
    )
    assert list(fleet_servers._changes("hub", said.encode())) == [Change("add", "target", "a b", "", "hub")]


def test_what_a_host_lacks() -> None:
    environment = Environment("class", ("ipykernel", "numpy"))
    cases: list[tuple[dict[str, Any], str | None]] = [
        ({"python": None, "missing": ["numpy"]}, "/opt/farkernel/class"),
        ({"python": "3.13.5", "missing": [], "kernelspec": True}, None),
        (
            {"python": "3.13.5", "missing": ["numpy\x1b[2J"], "kernelspec": False},
            "without numpy; no kernelspec",
        ),
        ({"python": "3.13.5", "missing": 7, "kernelspec": True}, "without ipykernel, numpy"),
        ({}, "/opt/farkernel/class"),
    ]
    for found, detail in cases:
        change = fleet_hosts._change("pi1", environment, found)
        assert (change.detail if change else None) == detail
