"""The commands as a user runs them: real configuration and menu entries, a small keeper on a real socket."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farkernel import __version__
from farkernel.kernelspecs import entries
from farkernel.launcher.cli import commands, main
from farkernel.launcher.client import keeper_directory
from farkernel.launcher.configuration import load
from farkernel.launcher.errors import FarkernelError
from tests.launcher.fake_keeper import FakeKeeper

Captured = pytest.CaptureFixture[str]

KERNELS = [
    {
        "kernel": "abc123456789",
        "entry": "gpu",
        "target": "gpu",
        "allocation": "job-17",
        "state": "live",
        "since": 0,
        "usage": {"memory": 3 << 20},
        "notebook": "a.ipynb",
    },
    {
        "kernel": "abd999999999",
        "entry": "pi",
        "target": "pi",
        "state": "waiting",
        "reason": {"text": "place 3\x1b[2J in the queue"},
    },
]
ALLOCATIONS = [{"allocation": "job-17", "link": "up", "kernels": ["abc123456789"], "why": ""}]


@pytest.fixture
def keeper() -> Iterator[FakeKeeper]:
    with FakeKeeper(Path(keeper_directory())) as fake:
        fake.handlers["list"] = lambda _: {"kernels": KERNELS, "allocations": ALLOCATIONS}
        yield fake


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "farkernel", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# -- help and usage ----------------------------------------------------------------------------------------


def test_help_has_a_quick_start_and_every_command(capsys: Captured) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "farkernel add" in text
    assert "jupyter lab" in text
    assert all(f"\n  {command.name} " in text for command in commands.COMMANDS)
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("command", [command.name for command in commands.COMMANDS])
def test_every_command_listed_explains_itself(command: str, capsys: Captured) -> None:
    assert main(["help", command]) == 0
    assert capsys.readouterr().out.startswith(f"usage: farkernel {command}")


def test_version(capsys: Captured) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"farkernel {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lsit"], "farkernel: there is no command 'lsit'. Did you mean `farkernel list`?\n"),
        (["qqqq"], "farkernel: there is no command 'qqqq'. See `farkernel --help`.\n"),
        (
            ["add", "x"],
            "farkernel: the following arguments are required: ADDRESS. See `farkernel add --help`.\n",
        ),
        (["stop", "--js", "x"], "farkernel: unrecognized arguments: --js. See `farkernel stop --help`.\n"),
    ],
)
def test_wrong_usage(arguments: list[str], said: str, capsys: Captured) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == said


def test_no_command_at_all(capsys: Captured) -> None:
    assert main([]) == 2
    assert "Quick start" in capsys.readouterr().out


# -- targets and menu entries ------------------------------------------------------------------------------


def test_from_add_to_the_menu_and_back(capsys: Captured) -> None:
    assert main(["add", "lab", "ssh://me@lab", "--kernel", "ir", "--gpus", "2", "--memory", "64G"]) == 0
    assert "farkernel install lab" in capsys.readouterr().out
    target = load().target("lab")
    assert (str(target.address), target.kernel, target.resources.gpus) == ("ssh://me@lab", "ir", 2)

    assert main(["install", "lab", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["entry"] == "lab"
    assert Path(made["directory"], "logo-64x64.png").exists()
    entry = entries.find("lab")
    assert entry is not None
    assert (entry.display_name, entry.spec["language"], entry.settings) == (
        "lab · ir",
        "R",
        {"target": "lab"},
    )

    assert main(["list", "--no-check"]) == 0
    assert re.fullmatch(
        r"TARGET +ADDRESS +KERNEL +MENU ENTRIES\nlab +ssh://me@lab +ir +lab\n", capsys.readouterr().out
    )

    assert main(["remove", "lab"]) == 0
    assert "farkernel uninstall lab" in capsys.readouterr().out
    assert main(["uninstall", "lab"]) == 0
    assert entries.find("lab") is None
    assert "lab" not in load().targets


def test_set(capsys: Captured) -> None:
    arguments = ["--set", "keep=2h", "--set", 'modules=["a", "b"]', "--set", "env.X=1 2", "--cpus", "4"]
    assert main(["add", "lab", "ssh://lab", *arguments, "--set", "resources.nodes=2"]) == 0
    target = load().target("lab")
    assert (target.keep, target.modules, dict(target.env)) == (7200, ("a", "b"), {"X": "1 2"})
    assert (target.resources.cpus, target.resources.nodes) == (4, 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ["add", "lab", "shs://lab"],
        ["add", "bad name", "ssh://lab"],
        ["add", "lab", "ssh://lab", "--set", "nonsense"],
        ["add", "lab", "ssh://lab", "--set", "kernle=ir"],
        ["install", "nowhere"],
        ["remove", "nowhere"],
        ["uninstall", "nowhere"],
    ],
)
def test_failures_are_said_on_stderr(arguments: list[str], capsys: Captured) -> None:
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("farkernel: ")
    assert "Traceback" not in err


def fail(error: FarkernelError) -> dict[str, Any]:
    raise error


def test_install_elsewhere_and_under_another_name(
    keeper: FakeKeeper, tmp_path: Path, capsys: Captured
) -> None:
    """It cannot be looked up: the name is taken as it is."""
    keeper.handlers["scan"] = lambda _: fail(FarkernelError("nobody answers", ""))
    main(["add", "lab", "local:"])
    place = ["--prefix", str(tmp_path), "--as", "R-lab", "--display-name", "R there"]
    assert main(["install", "lab", "--kernel", "ir", *place]) == 0
    spec = json.loads((tmp_path / "share/jupyter/kernels/r-lab/kernel.json").read_text())
    assert spec["display_name"] == "R there"
    assert spec["metadata"]["kernel_provisioner"]["config"] == {"target": "lab", "kernel": "ir"}


def test_presets_are_entries_of_their_own(keeper: FakeKeeper, tmp_path: Path, capsys: Captured) -> None:
    main(
        [
            "add",
            "gpu",
            "slurm:///gpu",
            "--set",
            "presets.big.resources.gpus=4",
            "--set",
            "presets.long.keep=2d",
        ]
    )
    place = ["--prefix", str(tmp_path)]
    assert main(["install", "gpu", *place]) == 0
    assert main(["install", "gpu", "--preset", "big", *place]) == 0
    assert main(["install", "gpu", "--preset", "big", "--kernel", "ir", "--as", "r-big", *place]) == 0
    kernels = tmp_path / "share/jupyter/kernels"
    specs = {path.parent.name: json.loads(path.read_text()) for path in kernels.glob("*/kernel.json")}
    assert {name: spec["display_name"] for name, spec in specs.items()} == {
        "gpu": "gpu · Python",
        "gpu-big": "gpu · Python · big",
        "r-big": "r-big · ir · big",
    }
    config = specs["r-big"]["metadata"]["kernel_provisioner"]["config"]
    assert config == {"target": "gpu", "preset": "big", "kernel": "ir"}
    capsys.readouterr()
    assert main(["install", "gpu", "--preset", "bug", *place]) == 1
    assert "the target 'gpu' has no preset 'bug'. Did you mean 'big'?" in capsys.readouterr().err
    assert main(["list", "--json", "--no-check"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["presets"] == ["big", "long"]
    assert main(["list", "--no-check"]) == 0
    assert "big, long" in capsys.readouterr().out


def test_list_says_who_can_be_reached(keeper: FakeKeeper, capsys: Captured) -> None:
    main(["add", "lab", "ssh://lab"])
    main(["add", "pi", "ssh://pi"])
    keeper.handlers["reach"] = lambda _: {
        "targets": {
            "lab": {"ok": True},
            "pi": {"ok": False, "what": "connection refused.", "advice": "Switch it on"},
        }
    }
    capsys.readouterr()
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"lab +ssh://lab +ok\n", out)
    assert re.search(r"pi +ssh://pi +failed +connection refused. Switch it on\n", out)
    assert main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[1]["reach"]["ok"] is False


def test_list_with_a_keeper_that_cannot_say(keeper: FakeKeeper, capsys: Captured) -> None:
    class UnknownRequest(FarkernelError):
        kind = "unknown-request"

    def refuse(_: dict[str, Any]) -> None:
        raise UnknownRequest("this keeper does not know the request 'reach'", "")

    keeper.handlers["reach"] = refuse
    main(["add", "lab", "ssh://lab"])
    capsys.readouterr()
    assert main(["list"]) == 0
    assert "REACHED" not in capsys.readouterr().out


def test_list_without_targets(capsys: Captured) -> None:
    assert main(["list"]) == 0
    assert "farkernel add here local:" in capsys.readouterr().out


# -- kernels -----------------------------------------------------------------------------------------------


def test_ps(keeper: FakeKeeper, capsys: Captured) -> None:
    assert main(["ps"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"abc12345 +gpu +live .* 3\.0 MiB +job-17 +a\.ipynb", out)
    assert re.search(r"abd99999 +pi +waiting .*place 3 in the queue", out)
    assert re.search(r"\nALLOCATION +LINK +KERNELS\njob-17 +up +abc12345\n", out)


def test_ps_shows_for_an_hour_what_has_ended(keeper: FakeKeeper, capsys: Captured) -> None:
    ended = [
        {
            "kernel": name,
            "entry": name,
            "state": "ended",
            "since": time.time() - ago,
            "reason": {"text": name},
        }
        for name, ago in (("minutes", 3000), ("hours", 4000))
    ]
    keeper.handlers["list"] = lambda _: {"kernels": ended, "allocations": []}
    assert main(["ps"]) == 0
    out = capsys.readouterr().out
    assert "minutes" in out
    assert "hours" not in out
    assert main(["ps", "--all"]) == 0
    assert "hours" in capsys.readouterr().out


def test_ps_of_one_target_as_json(keeper: FakeKeeper, capsys: Captured) -> None:
    assert main(["ps", "pi", "--all", "--json"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    found = json.loads(out)
    assert [row["kernel"] for row in found["kernels"]] == ["abd999999999"]
    assert found["allocations"] == []
    assert keeper.wait_for("list")["all"] is True


def test_stop_gives_the_allocation_back(keeper: FakeKeeper, capsys: Captured) -> None:
    assert main(["stop", "abc", "--now"]) == 0
    assert capsys.readouterr().out == "Kernel abc12345 has been stopped.\n"
    assert keeper.asked() == ["list", "stop", "cleanup"]
    stop = keeper.wait_for("stop")
    assert (stop["kernel"], stop["now"]) == ("abc123456789", True)


def test_interrupt(keeper: FakeKeeper, capsys: Captured) -> None:
    assert main(["interrupt", "abd999999999", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"kernel": "abd999999999"}
    assert keeper.wait_for("interrupt")["kernel"] == "abd999999999"


def test_release(keeper: FakeKeeper, capsys: Captured) -> None:
    assert main(["release", "job"]) == 0
    assert keeper.wait_for("release")["allocation"] == "job-17"


def test_logs_are_made_harmless(keeper: FakeKeeper, capsys: Captured) -> None:
    keeper.handlers["logs"] = lambda _: {"log": "one\n\ttwo\x1b]0;x\x07\r\nthree"}
    assert main(["logs", "abc"]) == 0
    assert capsys.readouterr().out == "one\n\ttwo\nthree\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stop", "ab"], "could be any of 2 kernels (abc123456789, abd999999999). Give more of the ID."),
        (["stop", "zz"], "there is no kernel 'zz'. See `farkernel ps`."),
        (["release", "zz"], "there is no allocation 'zz'. See `farkernel ps`."),
    ],
)
def test_ids(keeper: FakeKeeper, capsys: Captured, arguments: list[str], said: str) -> None:
    assert main(arguments) == 1
    assert said in capsys.readouterr().err


# -- the keeper --------------------------------------------------------------------------------------------


def test_keeper_status(keeper: FakeKeeper, capsys: Captured) -> None:
    keeper.handlers["status"] = lambda _: {
        "pid": 17,
        "version": "1",
        "kernels": 2,
        "allocations": [{}],
        "memory": 1 << 20,
    }
    assert main(["keeper", "status"]) == 0
    assert capsys.readouterr().out.split() == [
        *("process:", "17", "version:", "1", "kernels:", "2", "allocations:", "1", "memory:", "1.0", "MiB")
    ]
    assert main(["keeper", "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["running"] is True


def test_keeper_status_when_there_is_none(capsys: Captured) -> None:
    assert main(["keeper", "status"]) == 1
    assert "no keeper is running" in capsys.readouterr().out
    assert main(["keeper", "status", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"running": False}
    assert main(["keeper", "stop"]) == 0
    assert capsys.readouterr().out == "No keeper was running.\n"


STUBBORN = """
import fcntl, os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN if sys.argv[2] == "stubborn" else signal.SIG_DFL)
lock = open(sys.argv[1] + "/lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
lock.write(f"{os.getpid()}\\n")
lock.flush()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("manner", "signum"), [("willing", signal.SIGTERM), ("stubborn", signal.SIGKILL)])
def test_a_keeper_that_does_not_listen_is_ended(
    manner: str, signum: int, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    from farkernel.launcher.cli import keeper as module

    monkeypatch.setattr(module, "END_DEADLINE", 0.3)
    directory = keeper_directory()
    os.makedirs(directory, mode=0o700)
    command = [sys.executable, "-c", STUBBORN, directory, manner]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert main(["keeper", "stop"]) == 0
        assert process.wait(10) == -signum
    assert "kernels live on" in capsys.readouterr().out


# -- manners -----------------------------------------------------------------------------------------------


def test_a_closed_pipe_is_quiet(keeper: FakeKeeper) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-P", "-m", "farkernel", "ps", "--json"]
    ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_ctrl_c_is_quiet(keeper: FakeKeeper) -> None:
    keeper.handlers["list"] = lambda _: None
    command = [sys.executable, "-P", "-m", "farkernel", "ps"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        keeper.wait_for("list")
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=10) == (b"", b"")
        assert process.returncode == 130


def test_python_m_farkernel() -> None:
    ended = run("--version")
    assert (ended.returncode, ended.stdout) == (0, f"farkernel {__version__}\n")


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colours_on_a_terminal(keeper: FakeKeeper, no_color: str, coloured: bool) -> None:
    import pty

    program = "import os, sys; from farkernel.launcher.cli import main; sys.exit(main(['ps']))"
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": no_color, "COLUMNS": "60"}
    master, slave = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", program], stdout=slave, env=environment) as process:
        os.close(slave)
        text = b""
        while True:
            try:
                piece = os.read(master, 4096)
            except OSError:  # the other end is closed
                break
            text += piece
        assert process.wait(10) == 0
    os.close(master)
    assert (b"\x1b[32mlive" in text) is coloured
    lines = re.sub(r"\x1b\[[0-9]*m", "", text.decode()).splitlines()
    assert max(map(len, lines)) <= 75  # as narrow as its columns allow
