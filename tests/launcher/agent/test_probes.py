"""`bring` and `probe` of a real agent: what travels when, and what a machine that hangs costs."""

from __future__ import annotations

import base64
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farkernel.backends.archive import Archive, build_nvml, build_probe
from farkernel.launcher.agent.probes import ProbeFailed, kernel_python, outcome
from farkernel.launcher.errors import RemoteError
from tests.launcher.agent.near_end import NearEnd
from tests.sites.nvidia import A100, H100, fake_nvml
from tests.sites.pythons import OLDEST

PROGRAMS = {"probe": build_probe().sha256, "nvml": build_nvml().sha256}


@pytest.fixture
def run(home: Path) -> Path:
    return Path(os.environ["FARKERNEL_RUN_DIR"])


@pytest.fixture
def near(run: Path) -> Iterator[NearEnd]:
    near = NearEnd(run)
    near.connect()
    yield near
    near.request("end", if_idle=True)
    near.cut()


def bring(near: NearEnd, archive: Archive) -> dict[str, Any]:
    return near.request("bring", program=archive.sha256, content=base64.b64encode(archive.content).decode())


def test_the_probe_is_brought_once(near: NearEnd) -> None:
    assert near.request("probe", programs=PROGRAMS) == {"need": "probe"}
    bring(near, build_probe())
    machine = near.request("probe", programs=PROGRAMS, wanted=["host", "memory"])["machine"]
    assert machine["host"]["name"] == os.uname().nodename
    assert near.request("probe", programs=PROGRAMS, wanted=["cpu"])["machine"]["cpu"]["threads"]


def test_another_version_of_it_is_asked_for(near: NearEnd) -> None:
    bring(near, build_probe())
    assert near.request("probe", programs={"probe": "0" * 64}) == {"need": "probe"}
    assert near.request("probe", programs={"probe": "../../etc/passwd"}) == {"need": "probe"}


def test_what_is_not_what_its_hash_says_is_refused(near: NearEnd) -> None:
    with pytest.raises(RemoteError, match="not what its hash says"):
        near.request("bring", program="0" * 64, content="AAAA")
    with pytest.raises(RemoteError, match="bad arguments"):
        near.request("bring", program="0" * 64, content="no base64!")


def test_with_a_driver_two_programs_are_needed(run: Path, tmp_path: Path) -> None:
    near = NearEnd(run, python=OLDEST)
    near.connect({"LD_LIBRARY_PATH": str(fake_nvml(tmp_path))})
    try:
        bring(near, build_probe())
        assert near.request("probe", programs=PROGRAMS) == {"need": "nvml"}
        bring(near, build_nvml())
        machine = near.request("probe", programs=PROGRAMS, wanted=["nvidia"])["machine"]
        assert [gpu["uuid"] for gpu in machine["gpus"]][:2] == [H100, A100]
    finally:
        near.request("end", if_idle=True)
        near.cut()


def test_a_driver_that_hangs_holds_up_neither_agent_nor_answer(run: Path, tmp_path: Path) -> None:
    near = NearEnd(run)
    near.connect({"LD_LIBRARY_PATH": str(fake_nvml(tmp_path)), "FAKE_NVML_HANG": "init"})
    try:
        bring(near, build_probe())
        bring(near, build_nvml())
        began = time.monotonic()
        number = near.ask("probe", programs=PROGRAMS, wanted=["nvidia", "host"], deadline=4.0)
        assert near.request("list") == {"kernels": []}
        assert time.monotonic() - began < 2.0
        machine = near.answer(number)["machine"]
        assert machine["problems"] == [{"part": "nvidia", "what": "no answer within 2 s (nvmlInit)"}]
        assert machine["host"]["name"]
    finally:
        near.request("end", if_idle=True)
        near.cut()


def test_a_probe_that_hangs_as_a_whole_ends_at_its_deadline(near: NearEnd) -> None:
    bring(near, build_probe())
    with pytest.raises(RemoteError, match=r"no answer within 0\.1 s"):
        near.request("probe", programs=PROGRAMS, deadline=0.1)


def test_what_makes_no_sense_is_said() -> None:
    for data in (b"", b"{half", b"nonsense\n", b"\xff\n"):
        assert isinstance(outcome(data, 1.0), ProbeFailed)


def test_the_kernel_s_python() -> None:
    assert kernel_python({"python": sys.executable}) == sys.executable
    assert kernel_python({"python": "/nowhere/python3"}) is None
    assert kernel_python({"kernelspec": "no such kernel"}) is None
    assert kernel_python({"kernelspec": None}) is None
