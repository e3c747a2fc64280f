"""Modules, conda and shell lines before a kernel: the program that a shell gets, and kernels started with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farkernel.launcher.agent import refusals, surroundings
from farkernel.launcher.agent.containers import Inside
from farkernel.launcher.agent.problems import BadRequest
from farkernel.launcher.agent.refusals import BadModuleName, NoConda
from farkernel.launcher.errors import RemoteError
from tests.launcher.agent.near_end import Far, NearEnd

HOSTILE = [
    "$(touch canary)",
    "`touch canary`",
    "a; touch canary",
    "a' ; touch canary; '",
    'a" ; touch canary; "',
    "a\ntouch canary",
    "-x",
    "--help",
    "a b",
    "*",
    "~",
    "\\",
    "${HOME}",
    "&& touch canary",
    "> canary",
]


def conda(prefix: Path, **files: str) -> Path:
    """An environment as conda leaves it on the disk."""
    (prefix / "conda-meta").mkdir(parents=True)
    (prefix / "conda-meta/history").touch()
    (prefix / "bin").mkdir()
    (prefix / "bin/python").symlink_to(sys.executable)
    (prefix / "etc/conda/activate.d").mkdir(parents=True)
    for name, text in files.items():
        (prefix / f"etc/conda/activate.d/{name}.sh").write_text(text)
    return prefix


def ran(
    around: dict[str, Any], place: Path, *argv: str, **environment: str
) -> tuple[subprocess.CompletedProcess[str], str]:
    """What the program does, and what it refused with."""
    found = surroundings.of_request(around, {**os.environ, **environment})
    inside = Inside(str(place), str(place), "name", [])
    command = surroundings.complete(found, list(argv), inside, {**os.environ, **environment})
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    refused = refusals.read(str(place))
    return done, str(refused) if refused else ""


SHOW = (sys.executable, "-c", "import os, json; print(json.dumps(dict(os.environ)))")


def shown(around: dict[str, Any], place: Path, **environment: str) -> dict[str, str]:
    done, refused = ran(around, place, *SHOW, **environment)
    assert (done.returncode, refused) == (0, ""), done.stderr
    variables: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return variables


# -- conda -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("miniforge3/envs/torch", "torch"),
        (".conda/envs/torch", "torch"),
        (".local/share/mamba/envs/torch", "torch"),
        ("elsewhere/torch", "torch"),  # by ~/.conda/environments.txt
        ("configured/torch", "torch"),  # by .condarc
        ("elsewhere/torch", "~/elsewhere/torch"),
        ("elsewhere/torch", "elsewhere/torch"),
        ("project/.pixi/envs/default", "~/project"),
        ("miniforge3", "base"),
    ],
)
def test_an_environment_is_found_without_a_conda_on_the_path(home: Path, where: str, named: str) -> None:
    prefix = conda(home / where)
    (home / where / "condabin").mkdir()
    (home / ".conda").mkdir(exist_ok=True)
    (home / ".conda/environments.txt").write_text(f"/gone\n{home}/elsewhere/torch\n")
    (home / ".condarc").write_text("channels:\n  - x\nenvs_dirs:\n  - ~/configured # mine\n")
    assert surroundings.find_conda(named, os.environ) == str(prefix)


def test_it_is_activated_as_conda_does_it(home: Path) -> None:
    script = 'export ACTIVATED="$CONDA_PREFIX" STATED="$STATE"; echo noise'
    prefix = conda(home / "miniforge3/envs/torch", b="export ORDER=${ORDER}b", a="export ORDER=a", c=script)
    (prefix / "conda-meta/state").write_text(json.dumps({"env_vars": {"STATE": "a 'b' $c", "0bad": "x"}}))
    (home / "miniforge3/bin").mkdir()
    (home / "miniforge3/bin/conda").symlink_to("/bin/true")
    variables = shown({"conda": "torch", "before": "export SEEN=$CONDA_DEFAULT_ENV"}, home)
    assert variables["PATH"].split(":")[0] == f"{prefix}/bin"
    names = ("CONDA_PREFIX", "CONDA_DEFAULT_ENV", "CONDA_SHLVL", "ACTIVATED", "STATED", "ORDER", "SEEN")
    assert [variables[name] for name in names] == [
        str(prefix), "torch", "1", str(prefix), "a 'b' $c", "ab", "torch",
    ]  # fmt: skip
    assert variables["CONDA_EXE"] == f"{home}/miniforge3/bin/conda"
    assert "0bad" not in variables


def test_a_conda_that_is_not_there_is_told_with_those_that_are(home: Path) -> None:
    with pytest.raises(NoConda, match=r"no conda environment 'torch'.*None was found at all"):
        surroundings.of_request({"conda": "torch"}, {"PATH": "/bin"})
    conda(home / "miniforge3/envs/tf")
    conda(home / "miniforge3/envs/jax")
    with pytest.raises(NoConda, match=r"There are: jax, tf"):
        surroundings.of_request({"conda": "torch"}, {"PATH": "/bin"})
    (home / "miniforge3/envs/plain").mkdir()
    with pytest.raises(NoConda):
        surroundings.of_request({"conda": "~/miniforge3/envs/plain"}, {"PATH": "/bin"})


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names(home: Path, hostile: str) -> None:
    name = hostile.replace("/", "")
    prefix = conda(home / "envs" / name)
    variables = shown({"conda": str(prefix)}, home)
    assert variables["CONDA_PREFIX"] == str(prefix)
    assert not list(home.rglob("canary"))
    with pytest.raises(BadModuleName, match="cannot be the name of a module"):
        surroundings.of_request({"modules": [hostile]}, {})
    done, _ = ran({"modules": ["deferred"], "conda": hostile}, home, "true")
    assert done.returncode == 1
    assert not list(home.rglob("canary"))


@pytest.mark.parametrize(
    "wrong", [{"modules": "cuda"}, {"modules": [1]}, {"conda": "a\0b"}, {"before": "\0"}]
)
def test_what_makes_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        surroundings.of_request(wrong, {})


# -- modules: the real Lmod --------------------------------------------------------------------------------


@pytest.fixture
def modules(home: Path) -> str:
    """MODULEPATH."""
    place = home / "modulefiles"
    for name, text in {
        "cuda/11.8.lua": 'setenv("CUDA", "11.8")',
        "cuda/12.4.lua": 'setenv("CUDA", "12.4") prepend_path("PATH", "/opt/cuda/bin")',
        "conda/1.lua": f'setenv("CONDA_EXE", "{home}/hidden/bin/conda")',
        "broken/1.lua": "this is no lua",
        "talks/1.lua": 'LmodMessage("hello from a module") setenv("TALKS", "1")',
    }.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text + "\n")
    return str(place)


def test_modules_are_loaded_in_order_before_everything_else(home: Path, modules: str) -> None:
    around = {"modules": ["cuda/11.8", "talks", "cuda/12.4"], "before": 'export SEEN="$CUDA"'}
    variables = shown(around, home, MODULEPATH=modules)
    assert (variables["CUDA"], variables["SEEN"], variables["TALKS"]) == ("12.4", "12.4", "1")
    assert variables["PATH"].split(":")[0] == "/opt/cuda/bin"
    assert "cuda/12.4" in variables["LOADEDMODULES"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cuda/13", r"the module cuda/13 could not be loaded: .*cuda/13.*There are: cuda/11.8, cuda/12.4\b"),
        ("nothing", r"the module nothing could not be loaded: .*nothing.*`module avail`"),
        ("broken", r"the module broken could not be loaded: .*"),
    ],
)
def test_a_module_that_cannot_be_loaded(home: Path, modules: str, name: str, said: str) -> None:
    import re

    done, refused = ran({"modules": ["cuda", name]}, home, "true", MODULEPATH=modules)
    assert done.returncode == 1
    assert re.match(said, refused), refused


def test_no_modules_at_all(home: Path) -> None:
    program = surroundings.program(
        surroundings.Surroundings(["x"], "", None, "", ""), Inside(str(home), str(home), "n", []), {}
    ).replace("/etc/profile", "/no/profile")
    program = program.replace("/usr/share", "/no/share")
    done = subprocess.run(
        ["/bin/sh", "-c", program, "sh", "true"], check=False, timeout=30, env={"PATH": "/bin"}
    )
    assert done.returncode == 1
    assert str(refusals.read(str(home))).startswith("there are no environment modules there")


def test_a_conda_that_only_a_module_makes_known(home: Path, modules: str) -> None:
    prefix = conda(home / "hidden/envs/torch")
    around = {"modules": ["conda"], "conda": "torch"}
    assert shown(around, home, MODULEPATH=modules)["CONDA_PREFIX"] == str(prefix)
    conda(home / "miniforge3/envs/seen")
    done, refused = ran({"modules": ["conda"], "conda": "jax"}, home, "true", MODULEPATH=modules)
    assert (done.returncode, refused) == (1, "no conda environment 'jax' was found there. There are: seen")


# -- with an agent -----------------------------------------------------------------------------------------


@pytest.fixture
def near(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NearEnd]:
    monkeypatch.setenv("FARKERNEL_AGENT_IDLE", "0.5")
    end = NearEnd(home.parent / "far")
    end.connect()
    yield end
    for kernel in end.request("list")["kernels"]:
        if kernel["state"] != "ended":
            end.request("stop", kernel=kernel["kernel"])
    end.request("end", if_idle=False)
    end.cut()


def test_a_kernel_with_all_of_it(near: NearEnd, home: Path, modules: str) -> None:
    conda(home / "envs/torch", a="export ACTIVATED=$CUDA")
    far = Far(near).up(
        modules=["cuda/12.4"],
        conda="~/envs/torch",
        before="export BEFORE=$ACTIVATED",
        env={"MODULEPATH": modules},
    )
    assert far.call(b"environment", b"CUDA", b"ACTIVATED", b"BEFORE") == [b"12.4"] * 3


def test_what_is_refused_is_the_kernels_reason(near: NearEnd, modules: str) -> None:
    far = Far(near)
    far.start(modules=["cuda/13"], env={"MODULEPATH": modules})
    reason = near.ended("k1")
    assert reason["kind"] == "failed"
    assert reason["text"].startswith("the module cuda/13 could not be loaded: ")
    assert reason["text"].endswith("There are: cuda/11.8, cuda/12.4")
    far.start(modules=["cuda"], env={"MODULEPATH": modules})  # nothing of the former life is left
    far.attach()
    assert far.call(b"environment", b"CUDA") == [b"12.4"]
    with pytest.raises(RemoteError, match="no conda environment 'torch'"):
        Far(near, "k2").start(conda="torch")


def test_python3_is_the_environments_own(near: NearEnd, home: Path) -> None:
    prefix = conda(home / "envs/torch")
    assert near.request("look", kernelspec="python3", conda=str(prefix))["program"] == f"{prefix}/bin/python"
    spec = prefix / "share/jupyter/kernels/ours"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text('{"argv": ["python", "-m", "ours"], "display_name": "Ours"}')
    answer = near.request("look", kernelspec="ours", conda=str(prefix))
    assert (answer["display_name"], answer["argv"][0]) == ("Ours", f"{prefix}/bin/python")
    with pytest.raises(RemoteError, match="no kernelspec 'ours'"):
        near.request("look", kernelspec="ours")


def test_a_kernelspec_that_only_shell_lines_make_known(near: NearEnd, home: Path) -> None:
    spec = home / "brought/kernels/ours"
    spec.mkdir(parents=True)
    fake = str(Path(__file__).parents[2] / "fakekernel.py")
    content = {"argv": ["python", fake, "{connection_file}"], "env": {"WHERE": "$HOME/x"}}
    (spec / "kernel.json").write_text(json.dumps(content))
    before = f"export JUPYTER_PATH={home}/brought PATH={Path(sys.executable).parent}:$PATH"
    far = Far(near).up(kernelspec="ours", before=before)
    assert far.call(b"environment", b"WHERE") == [f"{home}/x".encode()]
    Far(near, "k2").start(kernelspec="theirs", before=before)
    assert near.ended("k2")["text"].startswith(
        "no kernelspec 'theirs' was found in the kernel's surroundings. There are: "
    )
