"""Completion scripts, run by the shells themselves."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from farkernel.launcher.cli import commands, main
from farkernel.launcher.cli.completion import values

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


def test_fish_offers(capsys: Captured, home: Path) -> None:
    main(["add", "laboratory", "local:"])
    capsys.readouterr()
    program = script("fish", capsys) + "\ncomplete -C 'farkernel outp'\ncomplete -C 'farkernel doctor l'\n"
    ended = subprocess.run(
        ["fish", "--no-config", "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert "output\t" in ended.stdout
    assert "laboratory" in ended.stdout


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
