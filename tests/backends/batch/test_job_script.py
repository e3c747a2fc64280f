"""The script of every job, run as a scheduler would."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from farkernel.backends.batch.ends import BAD_NAME, NO_PYTHON, failed_end
from farkernel.backends.batch.job_script import IDLE, RENDEZVOUS, TRIED_FIRST, job_script

BARE = {"PATH": "/usr/bin:/bin"}


def run(environment: dict[str, str]) -> int:
    kept = {name: os.environ[name] for name in ("HOME", "FARKERNEL_RUN_DIR", "FARKERNEL_TEST")}
    return subprocess.run(
        ["/bin/sh"],
        input=job_script().encode(),
        env={**BARE, **kept, **environment},
        timeout=40,
        check=False,
        cwd="/",
    ).returncode


@pytest.mark.parametrize(
    "variable", ["SLURM_JOB_NAME", "PBS_JOBNAME", "LSB_JOBNAME", "OAR_JOB_NAME", "JOB_NAME"]
)
def test_an_agent_in_the_foreground(home: Path, variable: str) -> None:
    """It ends by itself when nobody comes; nothing of it stays but its log."""
    assert run({variable: "fk-test-1", IDLE: "0.1", TRIED_FIRST: sys.executable}) == 0
    assert list((home / RENDEZVOUS).iterdir()) == []
    assert not list(Path(os.environ["FARKERNEL_RUN_DIR"]).glob("agents/*/socket"))


@pytest.mark.parametrize("name", ["", "fk-", "someone-elses", "fk-../x", "fk-a b", "fk-$(id)"])
def test_another_name(name: str) -> None:
    assert run({"SLURM_JOB_NAME": name, IDLE: "0.1"}) == BAD_NAME


def test_no_python(home: Path) -> None:
    (home / "bin").mkdir()
    for program in ("mkdir", "find", "uname", "rm", "cat"):
        (home / "bin" / program).symlink_to(f"/usr/bin/{program}")
    assert run({"SLURM_JOB_NAME": "fk-test-1", "PATH": str(home / "bin")}) == NO_PYTHON
    assert "agent_python" in failed_end(NO_PYTHON, 0, "c1").advice


def test_a_python_that_is_too_old_is_passed_over(home: Path) -> None:
    """Python 2 reads as far as the version; here one says 99 at once."""
    old = home / "old"
    old.write_text("#!/bin/sh\nexit 99\n")
    old.chmod(0o755)
    assert run({"SLURM_JOB_NAME": "fk-test-1", IDLE: "0.1", TRIED_FIRST: f"{old}:{sys.executable}"}) == 0


def test_a_job_without_an_environment(home: Path, tmp_path: Path) -> None:
    """As HTCondor starts one; a home that is not on this node is no place for anything."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "getent").write_text("#!/bin/sh\necho x:x:0:0::/nonexistent:/bin/sh\n")
    seen = tmp_path / "python"
    seen.write_text(f'#!/bin/sh\necho "$HOME $LOGNAME $USER" >{tmp_path}/seen\n')
    for program in (programs / "getent", seen):
        program.chmod(0o755)
    environment = {"FARKERNEL_JOB_NAME": "fk-test-1", "PATH": f"{programs}:/usr/bin:/bin"}
    subprocess.run(
        ["/bin/sh"],
        input=job_script().encode(),
        env={**environment, TRIED_FIRST: str(seen)},
        check=True,
        timeout=40,
        cwd=tmp_path,
    )
    name = pwd.getpwuid(os.getuid()).pw_name
    assert (tmp_path / "seen").read_text() == f"{tmp_path} {name} {name}\n"
