"""Completion scripts, run by the shells themselves."""

from __future__ import annotations

import os
import pty
import select
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from farkernel.launcher.cli import commands, main
from farkernel.launcher.cli.completion import values
from farkernel.launcher.client import keeper_directory
from tests.launcher.fake_keeper import FakeKeeper
from tests.sites.engine import wait_until

Captured = pytest.CaptureFixture[str]


def script(shell: str, capsys: Captured) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def bash(source: str, line: str) -> list[str]:
    """What bash would offer for the last word of the line."""
    words = line.split(" ")
    program = f"""{source}
COMP_WORDS=({" ".join(repr(word) for word in words)})
COMP_CWORD={len(words) - 1}
_farkernel
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    ended = subprocess.run(
        ["bash", "--norc", "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert ended.stderr == ""
    return ended.stdout.split()


def test_bash(capsys: Captured, home: Path) -> None:
    main(["add", "laboratory", "local:"])
    capsys.readouterr()
    source = script("bash", capsys)
    assert bash(source, "farkernel o") == ["output"]
    assert set(bash(source, "farkernel ")) == {command.name for command in commands.COMMANDS} | {
        "--help",
        "--version",
    }
    assert bash(source, "farkernel output 3f --s") == ["--since"]
    assert bash(source, "farkernel doctor l") == ["laboratory"]
    assert bash(source, "farkernel keeper st") == ["status", "stop"]
    assert bash(source, "farkernel completion ") == ["bash", "zsh", "fish"]
    assert bash(source, "farkernel image e") == ["esp8266", "esp32"]
    assert bash(source, "farkernel board fl") == ["flash"]
    assert bash(source, "farkernel board flash x --ba") == ["--baud"]
    assert bash(source, "farkernel stop ") == []  # no keeper is running, and none is started


@pytest.mark.parametrize(("shell", "arguments"), [("bash", ["-n"]), ("zsh", ["-f", "-n"]), ("fish", ["-n"])])
def test_the_shells_take_their_scripts(
    shell: str, arguments: list[str], capsys: Captured, tmp_path: Path
) -> None:
    file = tmp_path / "script"
    file.write_text(script(shell, capsys))
    ended = subprocess.run(
        [shell, *arguments, str(file)], capture_output=True, text=True, check=False, timeout=30
    )
    assert (ended.returncode, ended.stderr) == (0, "")


KERNEL = "abc123456789"


@pytest.fixture
def furnished(home: Path, capsys: Captured) -> Iterator[None]:
    """A target, a menu entry, a kernel and an allocation."""
    main(["add", "laboratory", "local:", "--set", "presets.spacious.resources.gpus=2"])
    main(["install", "laboratory", "--as", "menu-entry"])
    capsys.readouterr()
    with FakeKeeper(Path(keeper_directory())) as keeper:
        row = {"kernel": KERNEL, "entry": "menu-entry", "target": "laboratory", "state": "live"}
        held = {"allocation": "job-17", "link": "up", "kernels": [KERNEL], "why": ""}
        keeper.handlers["list"] = lambda _: {"kernels": [row], "allocations": [held]}
        yield


# What is typed before the key, and what must stand there after it.
TYPED = {
    "farkernel outp": "farkernel output",
    "farkernel doctor l": "farkernel doctor laboratory",
    "farkernel uninstall m": "farkernel uninstall menu-entry",
    "farkernel stop a": "farkernel stop abc12345",
    "farkernel release j": "farkernel release job-17",
    "farkernel keeper rest": "farkernel keeper restart",
    "farkernel output abc --sin": "farkernel output abc --since",
    "farkernel install laboratory --preset sp": "farkernel install laboratory --preset spacious",
}

# The widget at Ctrl-X writes down what stands in the line, and empties it.
_ZSH_SESSION = """
PROMPT='' RPROMPT=''
unsetopt beep
autoload -Uz compinit && compinit -D -u
source {script}
note() {{ print -r -- "$BUFFER" >> {noted}; BUFFER= }}
zle -N note
bindkey '^X' note
bindkey '^I' complete-word
touch {noted}
"""


def test_zsh_completes(furnished: None, capsys: Captured, tmp_path: Path) -> None:
    """An interactive zsh, at a terminal, with the key that people press."""
    (tmp_path / "script").write_text(script("zsh", capsys))
    noted = tmp_path / "noted"
    (tmp_path / ".zshrc").write_text(_ZSH_SESSION.format(script=tmp_path / "script", noted=noted))
    master, slave = pty.openpty()
    environment = {**os.environ, "ZDOTDIR": str(tmp_path), "TERM": "dumb"}
    with subprocess.Popen(
        ["zsh", "-d", "-i"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        start_new_session=True,
    ) as shell:
        os.close(slave)
        said = b""

        def lines() -> list[str]:
            nonlocal said
            if select.select([master], [], [], 0.05)[0]:
                said += os.read(master, 65536)
            return noted.read_text().splitlines() if noted.exists() else []

        def written(count: int) -> bool:
            return len(lines()) >= count

        wait_until(lambda: lines() is not None and noted.exists(), "zsh to be ready")
        for count, line in enumerate(TYPED, 1):
            os.write(master, line.encode() + b"\t\x18")
            wait_until(partial(written, count), f"{line!r} in zsh; it said {said!r}")
        shell.kill()
        shell.wait()
    os.close(master)
    assert [line.rstrip() for line in noted.read_text().splitlines()] == list(TYPED.values())


def test_fish_completes(furnished: None, capsys: Captured) -> None:
    asked = "\n".join(f"echo '>>'; complete -C '{line}'" for line in TYPED)
    program = f"{script('fish', capsys)}\n{asked}\n"
    ended = subprocess.run(
        ["fish", "--no-config", "-c", program], capture_output=True, text=True, check=True, timeout=50
    )
    # What it offers comes with a description behind a tab.
    offered = [
        [line.split("\t")[0] for line in part.splitlines() if line] for part in ended.stdout.split(">>\n")[1:]
    ]
    assert offered == [[line.split(" ")[-1]] for line in TYPED.values()]


def test_bash_completes(furnished: None, capsys: Captured) -> None:
    source = script("bash", capsys)
    assert {line: bash(source, line) for line in TYPED} == {
        line: [after.split(" ")[-1]] for line, after in TYPED.items()
    }


def test_values(home: Path, capsys: Captured) -> None:
    main(["add", "laboratory", "local:"])
    main(["install", "laboratory", "--as", "menu"])
    assert (values("targets"), values("entries"), values("kernels"), values("nonsense")) == (
        ["laboratory"],
        ["menu"],
        [],
        [],
    )


def test_wrong_shell(capsys: Captured) -> None:
    assert main(["completion", "csh"]) == 2
    assert "csh" in capsys.readouterr().err
