"""Environments at the far end of SSH, made by the real tools where they can be had: found, installed, and run in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

from ..sites import environments
from ..sites.engine import Engine, connected, run_cell, wait_until
from ..sites.far import Notebook
from ..sites.podman import podman_settings, root_file_system
from ..sites.ssh import Sshd
from ..sites.tcl_modules import TclModules

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]


@pytest.fixture
def host(engine: Engine, home: Path) -> Iterator[Sshd]:
    host = Sshd(home.parent / "sshd")
    host.write_client_config()
    try:
        yield host
    finally:
        engine.close()
        wait_until(lambda: not host.agents(), "the far agent to end", 20)
        host.stop()


def far(engine: Engine, host: Sshd, **settings: Any) -> None:
    engine.target("far", address=host.address, ssh_config=str(host.client_config), **settings)


def farkernel(*arguments: str) -> Any:
    command = [sys.executable, "-P", "-m", "farkernel", *arguments, "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


PYTHON = "import os, sys; print('@@', sys.prefix, os.environ.get('ACTIVATED', ''))"


def test_what_scan_finds_is_installed_and_runs(engine: Engine, host: Sshd, home: Path) -> None:
    """venv, virtualenv, uv and R by themselves; conda, pixi and Julia as they lie on a disk."""
    made = {
        "venv": environments.venv(home / "project/.venv"),
        "virtualenv": environments.virtualenv(home / ".virtualenvs/tools"),
        "uv": environments.uv(home / "other/.venv"),
        "conda": environments.conda(home / "miniforge3/envs/torch"),
        "pixi": environments.conda(home / "third/.pixi/envs/default"),
        "julia": environments.julia(home).parent.parent,
        "r": Path("/usr"),
    }
    far(engine, host)
    host.start()
    found = farkernel("scan", "far")["environments"]
    by_path = {(row["path"], row["language"]): (row["kind"], row["kernel"]) for row in found}
    wanted = {
        "venv": ("python", "venv"),
        "virtualenv": ("python", "venv"),
        "uv": ("python", "uv"),
        "conda": ("python", "conda"),
        "pixi": ("python", "pixi"),
        "julia": ("julia", "system"),
        "r": ("R", "system"),
    }
    for name, (language, kind) in wanted.items():
        assert by_path[str(made[name]), language] == (kind, True), name
    for name in wanted:
        # The one place for R and for Debian's Python is told by its program.
        which = shutil.which("R") if name == "r" else str(made[name])
        farkernel("install", "far", "--kernel", str(which), "--as", name)
    said = run_all(list(wanted))
    for name in ("venv", "virtualenv", "uv"):
        assert said[name] == f"{made[name]}"
    for name in ("conda", "pixi"):
        assert said[name].split()[-1] == str(made[name])
    assert said["julia"].startswith("julia -i --color=yes --project=@.")
    assert said["r"] == "/usr/lib/R"
    assert host.logins() == 1


def run_all(entries: list[str]) -> dict[str, str]:
    """All at once, by their menu entries; what a cell in each has to say of where it runs."""
    codes = {"r": "cat('@@', R.home(), '\\n')", "julia": "import os; print('@@', os.environ['STANDS_FOR'])"}
    with ExitStack() as stack:
        managers = {name: KernelManager(kernel_name=name, transport="ipc") for name in entries}
        for manager in managers.values():
            manager.start_kernel()
            stack.callback(manager.shutdown_kernel, now=True)
        said = {}
        for name, manager in managers.items():
            with connected(manager.connection_file) as client:
                text = run_cell(client, codes.get(name, PYTHON), 90).text
                said[name] = text.rpartition("@@")[2].strip()
        return said


LUA = 'setenv("TOOLS", "1.0") prepend_path("PATH", "/opt/tools/bin")'
TCL = "#%Module1.0\nsetenv TOOLS 1.0\nprepend-path PATH /opt/tools/bin\n"


@pytest.mark.parametrize("kind", ["lmod", "tcl"])
def test_modules_of_both_kinds(engine: Engine, host: Sshd, home: Path, kind: str) -> None:
    place = home.parent / "modulefiles/tools"
    place.mkdir(parents=True)
    (place / ("1.0.lua" if kind == "lmod" else "1.0")).write_text(LUA if kind == "lmod" else TCL)
    with ExitStack() as stack:
        if kind == "tcl":
            modules = TclModules(home.parent, place.parent)
            stack.callback(modules.close)
            host.before = modules.inside()
        else:
            host.environment["MODULEPATH"] = str(place.parent)
        host.start()
        python = {"python": sys.executable, "before": 'export SEEN="$TOOLS $LOADEDMODULES"'}
        far(engine, host, modules=["tools/1.0"], **python)
        assert "tools/1.0" in farkernel("scan", "far")["modules"]
        with Notebook(engine) as notebook:
            code = "import os; print(os.environ['SEEN'], os.environ['PATH'].split(':')[0])"
            assert run_cell(notebook.client, code, 60).text.endswith("1.0 tools/1.0 /opt/tools/bin\n")
        far(engine, host, modules=["tools/9"], **python)
        with Notebook(engine) as notebook:
            outcome = run_cell(notebook.client, "1", 60)
            assert "the module tools/9 could not be loaded: " in outcome.error
            assert "There are: tools/1.0" in outcome.error
        engine.close()
        wait_until(lambda: not host.agents(), "the far agent to end", 20)
        host.stop()


def test_a_kernel_in_podman(engine: Engine, host: Sshd, home: Path) -> None:
    """A Jupyter kernel that only the image has, with the notebook's directory in it; interrupted, and ended."""
    with root_file_system() as image, podman_settings() as settings:
        library = image / Path(os.__file__).parent.relative_to("/") / "site-packages"
        for name, path in environments.files_of("ipykernel").items():
            if name.partition("-")[0] not in ("debugpy", "jedi") and not (library / name).exists():
                copy = shutil.copytree if path.is_dir() else shutil.copy
                copy(path, library / name)
        host.environment.update(settings)
        host.start()
        (home / "work").mkdir()
        far(engine, host, container=str(image), python="/usr/bin/python3", cwd=str(home / "work"))
        with Notebook(engine) as notebook:
            code = "import os; print('@', os.getcwd(), os.path.exists('/kernel'), os.path.exists('/usr/bin/podman'))"
            text = run_cell(notebook.client, code, 90).text
            assert text.rpartition("@")[2].split() == [f"{home}/work", "True", "False"]
            cell = notebook.client.execute("import time; print('be' + 'gan', flush=True); time.sleep(60)")
            notebook.shown("began")
            notebook.interrupt()
            message, _ = notebook.shown("KeyboardInterrupt")
            assert message["parent_header"]["msg_id"] == cell
            engine.client.request("stop", kernel=notebook.kernel, now=True)
        command = ["podman", "ps", "--all", "--format", "{{.Names}}"]
        environment = {**os.environ, **settings}
        wait_until(
            lambda: not subprocess.run(command, capture_output=True, env=environment, check=True).stdout,
            "the container to go",
        )
        engine.close()
        wait_until(lambda: not host.agents(), "the far agent to end", 20)
