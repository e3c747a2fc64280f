"""What a scan finds, in a home made for it; the search is a program of its own and starts no interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from farkernel.backends.archive import errand_text
from farkernel.launcher.agent import surroundings
from farkernel.launcher.agent.errands import environments
from farkernel.launcher.agent.problems import NoKernelspec, NoProgram
from farkernel.launcher.agent.scans import look_up, sorted_out
from tests.sites.pythons import PYTHONS


def make(prefix: Path, minor: int = 12, kernel: bool = False, venv: str = "", conda: str = "") -> Path:
    library = prefix / "lib" / f"python3.{minor}" / "site-packages"
    library.mkdir(parents=True)
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python3").symlink_to(sys.executable)
    if kernel:
        (library / "ipykernel").mkdir()
    if venv:
        (prefix / "pyvenv.cfg").write_text(venv)
    if conda:
        (prefix / "conda-meta").mkdir()
        (prefix / "conda-meta" / f"python-{conda}-h123_0_cpython.json").write_text("{}")
    return prefix


def found(home: Path) -> dict[str, dict[str, Any]]:
    return {
        row["path"]: row
        for row in environments.pythons(str(home), list(surroundings.conda_prefixes(os.environ)))
        if row["path"].startswith(str(home))
    }


def test_each_kind(home: Path) -> None:
    cfg = "home = /usr/bin\nversion = 3.12.4\n"
    make(home / "envs/one", kernel=True, venv=cfg)
    make(home / "project/.venv", venv=cfg + "uv = 0.5.1\n")
    make(home / "other/.pixi/envs/default", 11, True, conda="3.11.9")
    make(home / ".pyenv/versions/3.10.13", 10)
    make(home / "elsewhere/conda", 9, conda="3.9.18")
    (home / ".conda").mkdir()
    (home / ".conda/environments.txt").write_text(f"{home}/elsewhere/conda\n/gone\n\nnonsense\n")
    make(home / "miniforge3/envs/torch", 12, True, conda="3.12.7")
    make(home / ".local/share/uv/python/cpython-3.13", 13)
    (home / "plain/bin").mkdir(parents=True)
    (home / "plain/bin/python3").symlink_to(sys.executable)  # no environment
    rows = found(home)
    assert {
        path.removeprefix(f"{home}/"): (row["kind"], row["version"], row["kernel"])
        for path, row in rows.items()
    } == {
        "envs/one": ("venv", "3.12.4", True),
        "project/.venv": ("uv", "3.12.4", False),
        "other/.pixi/envs/default": ("pixi", "3.11.9", True),
        ".pyenv/versions/3.10.13": ("pyenv", "3.10.13", False),
        "elsewhere/conda": ("conda", "3.9.18", False),
        "miniforge3/envs/torch": ("conda", "3.12.7", True),
        ".local/share/uv/python/cpython-3.13": ("uv", "3.13", False),
    }
    assert all(os.access(row["program"], os.X_OK) for row in rows.values())


def test_python_2_is_none(home: Path) -> None:
    prefix = home / ".pyenv/versions/2.7.18"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin/python").symlink_to(sys.executable)
    assert found(home) == {}


def test_kernelspecs_as_jupyter_finds_them(tmp_path: Path) -> None:
    ours = {"display_name": "far", "metadata": {"kernel_provisioner": {"provisioner_name": "farkernel"}}}
    for place, name, content in [
        ("a", "Python3", {"display_name": "first", "language": "python"}),
        ("b", "python3", {"display_name": "hidden"}),
        ("b", "ir", {"display_name": "R", "language": "R"}),
        ("b", "far", ours),
        ("b", "broken", "not an object"),
    ]:
        (tmp_path / place / name).mkdir(parents=True)
        (tmp_path / place / name / "kernel.json").write_text(json.dumps(content))
    rows = list(environments.kernelspecs([str(tmp_path / "a"), str(tmp_path / "gone"), str(tmp_path / "b")]))
    assert [(row["name"], row["display_name"]) for row in rows] == [("python3", "first"), ("ir", "R")]


@pytest.mark.parametrize("python", PYTHONS, ids=str)
def test_as_a_program_under_each_python(python: Path, home: Path) -> None:
    program = errand_text("environments").encode()
    command = [str(python), "-I", "-c", "import sys; exec(sys.stdin.buffer.read())", '{"kernelspecs": []}']
    ended = subprocess.run(command, input=program, capture_output=True, check=True, timeout=30)
    answer = sorted_out(ended.stdout)
    assert answer["complete"] is True
    assert len(program) < 65536  # it goes into a pipe at once


def test_what_was_found_before_a_hang_is_kept() -> None:
    line = b'{"what": "kernelspec", "name": "a"}\n{"what": "environment", "path": "/x"}\n{"what": "env'
    assert sorted_out(line) == {
        "kernelspecs": [{"name": "a"}],
        "environments": [{"path": "/x"}],
        "modules": [],
        "complete": False,
    }


def test_look_up_starts_nothing_and_says_what_start_would() -> None:
    answer = look_up({"kernelspec": "python3"})
    assert (answer["display_name"], answer["language"]) == ("Python 3 (ipykernel)", "python")
    assert os.access(answer["program"], os.X_OK)
    with pytest.raises(NoKernelspec, match="no kernelspec 'nope'"):
        look_up({"kernelspec": "nope"})
    with pytest.raises(NoProgram):
        look_up({"python": "/nowhere/python"})
