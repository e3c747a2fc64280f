"""The compiled program: made by a loader that has nothing else to do, and what the next agent starts from."""

from __future__ import annotations

import hashlib
import importlib
import marshal
import os
import subprocess
import sys
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farkernel.backends.archive import PACKAGE, build_archive
from farkernel.launcher.agent import bytecode
from farkernel.launcher.agent.bundle import Bundle
from tests.launcher.agent.near_end import NearEnd, agent_processes
from tests.sites.pythons import PYTHONS


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / f"{build_archive().sha256}.zip"
    path.write_bytes(build_archive().content)
    return path


def run(python: Path | str, code: str, program: str | Path, *arguments: str) -> str:
    """With the program's modules."""
    command = [str(python), "-I", "-c", f"import sys; sys.path.insert(0, sys.argv[1]); {code}", str(program)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


KEEP = f"from {PACKAGE} import bytecode; bytecode.keep(sys.argv[1], sys.argv[2])"
VERSION = "print('%d %d' % sys.version_info[:2])"


def kept(python: Path | str, program: Path) -> Path | None:
    run(python, KEEP, program, f"{program}.x.")
    found = list(program.parent.glob("*.pyc"))
    return found[0] if found else None


@pytest.mark.parametrize("python", PYTHONS, ids=str)
def test_what_was_kept_is_the_whole_agent(python: Path, program: Path) -> None:
    found = kept(python, program)
    if run(python, VERSION, program) == "3 6":
        assert found is None  # it knows no unchecked bytecode
        return
    assert found is not None
    assert found.name == f"{program.name}.x.{hashlib.sha256(found.read_bytes()).hexdigest()}.pyc"
    program.unlink()
    for options in ((), ("-S",)):
        command = [
            str(python),
            "-I",
            *options,
            str(found),
            "serve",
            "--directory",
            str(program.parent / "missing"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith("FileNotFoundError: ")
        assert "missing" in last


def test_tracebacks_show_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {"bundled/__init__.py": "", "bundled/one.py": "def fail():\n    raise ValueError(1)\n"}
    program = tmp_path / "program.zip"
    with zipfile.ZipFile(program, "w") as archive:
        for name, text in sources.items():
            archive.writestr(name, text)
    modules = {
        name[:-3].replace("/", "."): marshal.dumps(compile(text, str(program / name), "exec"))
        for name, text in sources.items()
    }
    monkeypatch.setattr(sys, "meta_path", [Bundle(modules, str(program)), *sys.meta_path])
    one = importlib.import_module("bundled.one")
    with pytest.raises(ValueError, match="1") as caught:
        one.fail()
    for name in ("bundled", "bundled.one"):
        del sys.modules[name]
    assert "".join(traceback.format_exception(caught.value)).endswith(
        f'  File "{program}/bundled/one.py", line 2, in fail\n    raise ValueError(1)\nValueError: 1\n'
    )
    with pytest.raises(ImportError):
        importlib.import_module("bundled.two")


def test_nothing_is_left_where_it_cannot_be_kept(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        bytecode.keep(str(program), f"{program}.x.")
    assert list(program.parent.iterdir()) == [program]


# -- by the loader ---------------------------------------------------------------------------------------------


@pytest.fixture
def near(home: Path) -> Iterator[NearEnd]:
    near = NearEnd(Path(os.environ["FARKERNEL_RUN_DIR"]))
    near.connect()
    yield near
    end(near)


def end(near: NearEnd) -> None:
    near.ask("end")
    with pytest.raises(ConnectionError):
        near.wait(lambda: False)
    wait_until(lambda: not agent_processes(near.run))


def wait_until(condition: Callable[[], bool]) -> None:
    """For what gives no event: other processes' files and ends."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def programs(near: NearEnd) -> list[str]:
    """What its agent's processes were started from."""
    commands = [process.cmdline() for process in agent_processes(near.run)]
    return [command[command.index("serve") - 1] for command in commands]


def test_the_next_agent_starts_from_it(near: NearEnd) -> None:
    place = near.run / "programs"
    plain = str(place / f"{build_archive().sha256}.zip")
    assert set(programs(near)) == {plain}
    wait_until(lambda: len(list(place.iterdir())) == 2)
    end(near)
    near.connect()
    assert near.needed == 1  # it was sent once
    (compiled,) = set(programs(near))
    assert [Path(compiled)] == list(place.glob("*.pyc"))
    assert near.request("list") == {"kernels": []}


def test_a_damaged_one_is_not_used(near: NearEnd) -> None:
    place = near.run / "programs"
    wait_until(lambda: len(list(place.glob("*.pyc"))) == 1)
    end(near)
    (compiled,) = place.glob("*.pyc")
    compiled.write_bytes(compiled.read_bytes()[:-1])
    near.connect()
    assert set(programs(near)) == {str(place / f"{build_archive().sha256}.zip")}
    name = compiled.name.split(".")
    wait_until(lambda: hashlib.sha256(compiled.read_bytes()).hexdigest() == name[-2])  # it is made anew
    end(near)
