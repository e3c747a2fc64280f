"""What comes from configuration, kernelspecs and far ends is data: it reaches no shell, no path, no terminal (DESIGN §3)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from farkernel.launcher import cli
from farkernel.launcher.address import AddressError, parse_address
from farkernel.launcher.configuration_file import check_document
from farkernel.launcher.errors import FarkernelError, RemoteError

from ..sites import hostile_far_end
from ..sites.engine import Engine, collect, run_cell, wait_until
from ..sites.far import Notebook
from ..sites.ssh import Sshd

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

# `owned` is a program on PATH, here and there, that leaves a canary.
HOSTILE = (
    "$(owned)",
    "`owned`",
    "'; owned; '",
    '"; owned; "',
    "; owned",
    "| owned",
    "& owned",
    "> owned",
    "(owned)",
    "!owned",
    "-oProxyCommand=owned",
    "--help; owned",
    "\\$(owned)",
    "$'owned'",
    "%owned%",
    "{connection_file}",
    "~root",
    "*",
    "",
)
WITH_NEWLINES = ("one\nowned\n", "'\nowned\n'", '$(\nowned\n)"')
SHELLS = {"bash": "", "tcsh": "/usr/bin/tcsh", "fish": "/usr/bin/fish"}


class Hostility:
    """A host, the canary, and a place for files whose names are what they are."""

    def __init__(self, engine: Engine, host: Sshd, place: Path) -> None:
        self.engine = engine
        self.host = host
        self.place = place
        self.canary = place / "canary"

    def target(self, name: str = "far", **settings: Any) -> None:
        given = {"ssh_config": str(self.host.client_config), **settings}
        self.engine.target(name, address=self.host.address, **given)

    def check(self) -> None:
        assert not self.canary.exists(), self.canary.read_text()

    def reason(self, **settings: Any) -> str:
        """Why a kernel with these settings did not come up; all of it, as the keeper tells it."""
        self.target(**settings)
        return self.why_ended(self.launch("far"), f"a kernel with {settings}")

    def launch(self, target: str) -> str:
        request: dict[str, Any] = {"entry": target, "settings": {"target": target}, "cwd": "/", "env": {}}
        return str(self.engine.client.request("launch", **request)["kernel"])

    def why_ended(self, kernel: str, what: str) -> str:
        row = wait_until(lambda: self._ended(kernel), f"the end of {what}")
        return json.dumps(row["reason"], ensure_ascii=False)

    def _ended(self, kernel: str) -> dict[str, Any] | None:
        """A kernel that nobody attends is cleared away when it has ended: its front end is still there."""
        row = self.engine.kernel(kernel)
        return row if row["state"] == "ended" else None


@pytest.fixture(params=SHELLS)
def hostility(
    request: pytest.FixtureRequest, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hostility]:
    yield from hostile_site(engine, home, monkeypatch, SHELLS[request.param])


def hostile_site(
    engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch, shell: str = "", command: str = ""
) -> Iterator[Hostility]:
    """sshd runs `SHELL -c COMMAND`; ForceCommand puts another shell in the place of the account's own."""
    programs = home / "programs"
    programs.mkdir()
    place = home / "place"
    place.mkdir()
    owned = programs / "owned"
    owned.write_text(f'#!/bin/sh\necho "$0 $*, from $PPID in $PWD" >>{place}/canary\n')
    owned.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    options = {"ForceCommand": f'exec {shell} -c "$SSH_ORIGINAL_COMMAND"'} if shell else {}
    if command:
        options = {"ForceCommand": command}
    with Sshd(home.parent / "sshd", options) as host:
        host.environment["PATH"] = f"{programs}:{host.environment['PATH']}"
        host.restart()
        host.write_client_config()
        assert subprocess.run(["owned"], check=True).returncode == 0
        site = Hostility(engine, host, place)
        assert site.canary.exists()  # it would be seen
        site.canary.unlink()
        yield site
        engine.close()
        wait_until(lambda: not host.agents(), "the far agent to end", 20)
        site.check()


def test_values_arrive_as_they_are(hostility: Hostility) -> None:
    """Environment, working directory, interpreter, notebook, kernelspec: one kernel with all of them."""
    values = [*HOSTILE, *WITH_NEWLINES]
    directory = hostility.place / "$(owned) `owned` '; owned; '\" -x"
    directory.mkdir()
    python = directory / "-c 'owned' $(owned)"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    env = {f"HOSTILE_{number}": value for number, value in enumerate(values)}
    hostility.engine.kernelspec(
        "words",
        [
            str(python),
            "-m",
            "ipykernel_launcher",
            "-f",
            "{connection_file}",
            *(f"--Owned.x{n}={v}" for n, v in enumerate(values)),
        ],
        env={"FROM_SPEC": "'; owned; '"},
        display_name="$(owned)",
        language="`owned`",
    )
    hostility.target(kernel="words", cwd=str(directory), env=env)
    fields = {"notebook": "$(owned)/`owned`\n'; owned; '.ipynb"}
    with pytest.raises(RemoteError, match="cannot be a kernel's id"):
        Notebook(hostility.engine, kernel="$(owned)")
    with Notebook(hostility.engine, **fields) as notebook:
        code = (
            "import json, os, sys; print('@' + json.dumps([os.getcwd(), [os.environ[f'HOSTILE_{n}'] for n in "
            f"range({len(values)})], os.environ['FROM_SPEC'], open(f'/proc/{{os.getpid()}}/cmdline').read().split(chr(0))]))"
        )
        text = run_cell(notebook.client, code).text
        cwd, there, spec, command = json.loads(text.partition("@")[2])
    assert cwd == str(directory)
    assert there == values
    assert spec == "'; owned; '"
    connection = command[command.index("-f") + 1]
    words = [f"--Owned.x{n}={value}" for n, value in enumerate(values)]
    assert command[-len(values) - 1 : -1] == [word.replace("{connection_file}", connection) for word in words]
    hostility.check()


def test_what_is_not_there_is_refused_in_a_sentence(hostility: Hostility) -> None:
    """All at once, over one connection, whose agent was found behind Pythons with such names, too."""
    pythons = ["$(owned)", "-c owned", "; owned", "python3"]
    cases: list[dict[str, Any]] = [
        {key: [value] if key == "modules" else value}
        for value in ("$(owned)", "'; owned; '", "-oProxyCommand=owned", "`owned`")
        for key in ("kernel", "python", "conda", "modules", "container")
    ]
    for number, settings in enumerate(cases):
        hostility.target(f"far{number}", agent_python=pythons, **settings)
    kernels = [hostility.launch(f"far{number}") for number in range(len(cases))]
    for kernel, settings in zip(kernels, cases, strict=True):
        said = hostility.why_ended(kernel, f"a kernel with {settings}")
        assert '"kind": "failed"' in said, (settings, said)
        assert "Traceback" not in said, (settings, said)
        assert len(json.loads(said)["text"]) > 30, (settings, said)
    assert hostility.host.logins() == 1
    hostility.check()


@pytest.mark.parametrize("value", [*HOSTILE, *WITH_NEWLINES, "a b", "\x1b[31m", "x" * 5000])
def test_no_hostile_name_of_host_or_user_gets_past_the_address(value: str) -> None:
    """Names that the grammar lets through hold nothing that means anything to a shell or to ssh."""
    harmless = re.compile(
        r"ssh://(?:[A-Za-z0-9_.~*][A-Za-z0-9_.~*@\\+=%-]*@)?[A-Za-z0-9_.~*%][A-Za-z0-9_.:%~*-]*"
    )
    for text in (
        f"ssh://{value}",
        f"ssh://{value}@127.0.0.1",
        f"ssh://user@{value}:22",
        f"ssh://127.0.0.1:{value}",
    ):
        try:
            parse_address(text)
        except AddressError as error:
            assert error.what
            assert error.advice
        else:
            assert harmless.fullmatch(text), text
            assert "$" not in text
    name = check_document({"targets": {value: {"address": "local:"}}}, "x.toml")
    assert name.problems or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value)


# -- a far end that means harm ---------------------------------------------------------------------


def clean(text: str) -> bool:
    return not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text.replace("\r\n", "\n"))


@pytest.fixture
def liar(
    request: pytest.FixtureRequest, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hostility]:
    command = f"exec {sys.executable} {hostile_far_end.__file__} {request.param}"
    yield from hostile_site(engine, home, monkeypatch, command=command)


@pytest.fixture
def impatient(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> pytest.CaptureFixture[str]:
    """Commands that do not wait a minute for an answer that never comes."""
    for name in ("doctor.STEP_DEADLINE", "resources.DEADLINE", "targets.REACH_DEADLINE"):
        monkeypatch.setattr(f"farkernel.launcher.cli.{name}", 3.0)
    return capsys


def check_shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
    cli.main(arguments)
    shown = capsys.readouterr()
    assert clean(shown.out), (arguments, shown.out)
    assert clean(shown.err), (arguments, shown.err)
    assert shown.out or shown.err
    assert "Traceback" not in shown.err, (arguments, shown.err)


@pytest.mark.parametrize(
    ("liar", "expected"),
    [
        ("endless", "printed more than 64 KiB before the agent answered"),
        ("refusal", "no room"),
    ],
    indirect=["liar"],
)
def test_it_is_refused_in_words_that_paint_nothing(
    liar: Hostility, expected: str, impatient: pytest.CaptureFixture[str]
) -> None:
    said = json.loads(liar.reason())
    assert expected in said["text"]
    assert all(clean(str(part)) for part in said.values()), said
    check_shown(impatient, "doctor", "far")


@pytest.mark.parametrize("liar", ["escapes", "oversized", "huge_message"], indirect=True)
def test_it_is_tried_again_and_costs_nothing(liar: Hostility) -> None:
    """These may be accidents.  The cell says what is the matter, and the keeper does not grow."""
    liar.target()
    keeper = psutil.Process(liar.engine.keeper_pid())
    before = keeper.memory_info().rss
    with Notebook(liar.engine) as notebook:
        cell = notebook.client.execute("1")
        said, _ = notebook.shown("far: ")
        until = time.monotonic() + 6
        while time.monotonic() < until and "cannot be reached" not in str(said["content"]):
            said, _ = notebook.shown("far: ")
        text = str(said["content"].get("text", ""))
        assert clean(text), text
        assert (
            liar.engine.client.request("status", timeout=5)["pid"] == keeper.pid
        )  # it is not kept busy either
        assert keeper.memory_info().rss - before < 100e6
        notebook.interrupt()
        assert "KeyboardInterrupt" in collect(notebook.client, cell).error
        liar.engine.client.request("stop", kernel=notebook.kernel, now=True)


@pytest.mark.parametrize("liar", ["lies"], indirect=True)
def test_lies_are_shown_clean_and_climb_nowhere(
    liar: Hostility, home: Path, impatient: pytest.CaptureFixture[str]
) -> None:
    before = {path for path in home.parent.rglob("*") if "climbed" in path.name}
    said = json.loads(liar.reason())
    assert all(clean(str(part)) for part in said.values()), said
    check_shown(impatient, "scan", "far")
    check_shown(impatient, "ps", "--all")
    check_shown(impatient, "ps", "--all", "--json")
    check_shown(impatient, "install", "far")
    check_shown(impatient, "resources", "far")
    check_shown(impatient, "doctor", "far")
    check_shown(impatient, "list")
    assert {path for path in home.parent.rglob("*") if "climbed" in path.name} == before
    with pytest.raises(FarkernelError) as caught:
        liar.engine.client.request("adopt", target="far", kernel="../../x")
    assert clean(str(caught.value))
