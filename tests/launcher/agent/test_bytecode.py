"""The compiled program: made by a loader that has nothing else to do, and what the next agent starts from."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farkernel.backends.archive import PACKAGE, build_archive
from farkernel.launcher.agent import bytecode
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


KEEP = f"from {PACKAGE} import bytecode; bytecode.keep(sys.argv[2]); print(bytecode.find(sys.argv[2]))"


@pytest.mark.parametrize("python", PYTHONS, ids=str)
def test_what_was_kept_is_found_and_used(python: Path, program: Path) -> None:
    found = Path(run(python, KEEP, program, str(program)))
    if run(python, "print(sys.version_info < (3, 7))", program) == "True":
        assert found == program  # its zip import knows no unchecked bytecode
        return
    assert found != program
    assert found.name.startswith(program.stem)
    with zipfile.ZipFile(found) as archive:
        # Without the sources the bytecode alone must do.
        alone = found.with_name("alone.zip")
        with zipfile.ZipFile(alone, "w") as target:
            for name in archive.namelist():
                if name.endswith("c"):
                    target.writestr(name, archive.read(name))
    where = run(python, f"import {PACKAGE}.zmtp as m; print(m.__file__)", alone)
    assert where == str(alone / PACKAGE / "zmtp.pyc")


def test_tracebacks_show_the_source(program: Path) -> None:
    bytecode.keep(str(program))
    found = bytecode.find(str(program))
    code = f"from {PACKAGE} import frames; import linecache; print(linecache.getline(frames.__file__[:-1], 12, vars(frames)))"
    assert run(sys.executable, code, found) == run(sys.executable, code, program)


def test_a_damaged_one_is_not_used(program: Path) -> None:
    bytecode.keep(str(program))
    found = Path(bytecode.find(str(program)))
    found.write_bytes(found.read_bytes()[:-1])
    assert bytecode.find(str(program)) == str(program)


def test_nothing_is_left_where_it_cannot_be_kept(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        bytecode.keep(str(program))
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
    return [process.cmdline()[2] for process in agent_processes(near.run)]


def test_the_next_agent_starts_from_it(near: NearEnd) -> None:
    place = near.run / "programs"
    plain = str(place / f"{build_archive().sha256}.zip")
    assert set(programs(near)) == {plain}
    wait_until(lambda: len(list(place.iterdir())) == 2)
    end(near)
    near.connect()
    assert near.needed == 1  # it was sent once
    (compiled,) = set(programs(near))
    assert compiled == bytecode.find(plain) != plain
    assert near.request("list") == {"kernels": []}
