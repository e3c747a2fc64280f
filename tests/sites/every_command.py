"""Every command of DESIGN §5 that is ours, in a form that can be run, and what holds for each of them in any condition."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

KERNEL = "abcdef0123456789"
LAUNCHED = "KERNEL"  # in a command's arguments: the id of a kernel that there is
CONNECTION_FILE, NOTEBOOK, FREE_PORT = "CONNECTION_FILE", "NOTEBOOK", "48787"
ROSTER = "ROSTER"


class Case(NamedTuple):
    """One command with arguments; one that ``stays`` runs until Ctrl-C, once it has said that it is there."""

    name: str
    arguments: tuple[str, ...]
    needs_keeper: bool = True
    reads_targets: bool = False
    stays: bool = False
    fails: bool = False  # there is nothing here that it could do, and it says so
    tells: bool = False  # bad news are what it was asked for: they come on stdout


CASES = (
    Case("add", ("add", "another", "local:"), needs_keeper=False, reads_targets=True),
    Case("list", ("list",), reads_targets=True),
    Case("remove", ("remove", "spare"), needs_keeper=False, reads_targets=True),
    Case("scan", ("scan", "here"), reads_targets=True),
    Case("doctor", ("doctor", "here"), reads_targets=True, tells=True),
    Case("install", ("install", "here", "--as", "new-entry"), needs_keeper=False, reads_targets=True),
    Case("uninstall", ("uninstall", "spare"), needs_keeper=False),
    Case("login", ("login", "here"), reads_targets=True, fails=True),
    Case("ps", ("ps",)),
    Case("stop", ("stop", LAUNCHED)),
    Case("interrupt", ("interrupt", LAUNCHED)),
    Case("logs", ("logs", LAUNCHED)),
    Case("output", ("output", LAUNCHED)),
    Case("output --into", ("output", LAUNCHED, "--into", NOTEBOOK)),
    Case("attach", ("attach", LAUNCHED)),
    Case("forward", ("forward", LAUNCHED, FREE_PORT), stays=True),
    Case("release", ("release", "local:")),
    Case("resources", ("resources", "here"), reads_targets=True, tells=True),
    Case("sync", ("sync", "here", NOTEBOOK), reads_targets=True),
    Case("ps --all", ("ps", "--all"), reads_targets=True),
    Case("image", ("image", "check", NOTEBOOK), needs_keeper=False, fails=True),
    Case("board flash", ("board", "flash", "/dev/null", NOTEBOOK), needs_keeper=False, fails=True),
    Case("fleet diff", ("fleet", "diff", ROSTER), needs_keeper=False, reads_targets=True),
    Case("fleet apply", ("fleet", "apply", ROSTER), needs_keeper=False, reads_targets=True),
    Case("fleet status", ("fleet", "status"), needs_keeper=False),
    Case("fleet reset", ("fleet", "reset", "pi1", "--yes"), needs_keeper=False, fails=True),
    Case("completion", ("completion", "bash"), needs_keeper=False),
    Case("completion of kernels", ("completion", "bash", "kernels"), needs_keeper=False),
    Case("launch", ("launch", "brief", "-f", CONNECTION_FILE), reads_targets=True),
    Case("keeper status", ("keeper", "status"), needs_keeper=False, tells=True),
    Case("keeper stop", ("keeper", "stop"), needs_keeper=False),
    Case("keeper restart", ("keeper", "restart"), needs_keeper=False),
)
NAMES = [case.name for case in CASES]


def case(name: str) -> Case:
    return CASES[NAMES.index(name)]


def filled_in(case: Case, home: Path, kernel: str = KERNEL) -> list[str]:
    values = {
        LAUNCHED: kernel,
        CONNECTION_FILE: str(home / "connection.json"),
        NOTEBOOK: str(home / "a.ipynb"),
        ROSTER: str(home / "class.csv"),
    }
    return [values.get(argument, argument) for argument in case.arguments]


def furnish(home: Path, environment: Mapping[str, str], kernel: str = "fake") -> None:
    """Targets, menu entries and files that the commands speak of; ``kernel`` is that of the target here."""
    configuration = Path(environment["XDG_CONFIG_HOME"]) / "farkernel"
    configuration.mkdir(parents=True, exist_ok=True)
    kernels_there = {"here": kernel, "spare": "fake", "brief": "brief-kernel"}
    targets = [
        f'[targets.{name}]\naddress = "local:"\nkernel = "{there}"\n' for name, there in kernels_there.items()
    ]
    (configuration / "targets.toml").write_text("\n".join(targets))
    kernels = Path(environment["JUPYTER_DATA_DIR"]) / "kernels"
    fake = [sys.executable, str(Path(__file__).parent.parent / "fakekernel.py"), "{connection_file}", "calm"]
    for name, argv in (("fake", fake), ("brief-kernel", [sys.executable, "-c", ""])):
        _spec(kernels / name, {"argv": argv, "display_name": name, "language": "python"})
    for name in ("here", "spare", "brief"):
        stanza = {"provisioner_name": "farkernel", "config": {"target": name}}
        launch = [sys.executable, "-P", "-m", "farkernel", "launch", name, "-f", "{connection_file}"]
        spec = {"argv": launch, "display_name": name, "language": "python"}
        _spec(kernels / name, {**spec, "metadata": {"kernel_provisioner": stanza}})
    (home / "connection.json").write_text(
        json.dumps(_CONNECTION | {"ip": str(home.parent / "run" / "brief")})
    )
    notebook = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (home / "a.ipynb").write_text(json.dumps(notebook))
    (home / "class.csv").write_text("host,student\npi1,Ada\n")


_CONNECTION = {
    "transport": "ipc",
    "signature_scheme": "hmac-sha256",
    "key": "k",
    **{f"{name}_port": number for number, name in enumerate(("shell", "iopub", "stdin", "control", "hb"), 1)},
}


def _spec(directory: Path, spec: Mapping[str, object]) -> None:
    directory.mkdir(parents=True)
    (directory / "kernel.json").write_text(json.dumps(spec))


# -- running -----------------------------------------------------------------------------------------------


class Ended(NamedTuple):
    """What came of one run of a command."""

    status: int
    out: str
    err: str


def start(
    arguments: Sequence[str], inside: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """``inside``: the words of another program that runs it (in a namespace)."""
    return subprocess.Popen(
        [*inside, sys.executable, "-P", "-m", "farkernel", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )


def finish(process: subprocess.Popen[str], stays: bool = False, deadline: float = 100.0) -> Ended:
    first = ""
    if stays:
        assert process.stdout is not None
        first = process.stdout.readline()  # it says that it is there, or ends
        if first:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=deadline)
    return Ended(process.returncode, first + out, err)


# -- what holds always -------------------------------------------------------------------------------------


def check_manners(ended: Ended, case: Case) -> None:
    """0, 1 or 2 (130 after Ctrl-C); no traceback; whoever fails says in a sentence why, and then what to do."""
    said = f"{case.name} → {ended}"
    assert ended.status in ((130, 1) if case.stays else (0, 1)), said
    assert "Traceback" not in ended.err + ended.out, said
    assert "Errno" not in ended.err + ended.out, said
    if ended.status != 1 or case.tells:
        return
    complaints = [line for line in ended.err.splitlines() if line.strip()]
    assert complaints, said
    assert complaints[0].startswith("farkernel: "), said
    assert re.search(r"[.:] ?\n? *[A-Z`].*", ended.err[len("farkernel: ") :], re.DOTALL), said


def leftovers(*directories: Path) -> list[str]:
    """Files that only something half done leaves."""
    patterns = ("*.new", ".farkernel-*", "attach-*", "output-*", ".*.tmp", "*.partial")
    return sorted(
        str(path) for directory in directories for pattern in patterns for path in directory.rglob(pattern)
    )


def snapshot(*directories: Path) -> dict[str, bytes]:
    """The user's own files, byte for byte."""
    return {
        str(path): path.read_bytes()
        for directory in directories
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        and not re.search(r"/\.cache/|/\.local/state/", str(path))  # those are ours
        and not path.name.startswith(".")
        and "connection" not in path.name
    }
