"""`farkernel resources` with a real keeper and a real agent, and a stand-in for NVIDIA's driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from farkernel.launcher.cli.schemas import SCHEMAS

from ..sites.engine import Engine
from ..sites.nvidia import A100, H100, MIG_0, MIG_4, fake_nvml

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


def resources(*arguments: str, status: int = 0) -> dict[str, dict[str, Any]]:
    """Target → what was found."""
    command = [sys.executable, "-P", "-m", "farkernel", "resources", *arguments, "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    assert ended.returncode == status, ended.stderr
    found = json.loads(ended.stdout)
    jsonschema.validate(found, SCHEMAS["resources"])
    return {row["target"]: row for row in found}


def test_this_machine_and_one_that_is_none(engine: Engine) -> None:
    engine.target("here")
    engine.target("again", python=sys.executable)
    assert (
        subprocess.run(
            [sys.executable, "-m", "farkernel", "add", "q", "slurm:///gpu"], check=False
        ).returncode
        == 0
    )
    found = resources()
    machine = found["here"]["machine"]
    assert (machine["host"]["name"], machine["version"]) == (os.uname().nodename, 1)
    assert found["again"]["machine"]["opencl"][-1]["where"] == sys.executable
    assert found["q"]["ok"] is False
    assert "is no machine of its own" in found["q"]["what"]
    assert engine.kernels() == []


def test_gpus(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(fake_nvml(tmp_path)))
    engine.target("here")
    machine = resources("here")["here"]["machine"]
    assert [gpu["uuid"] for gpu in machine["gpus"]] == [H100, A100, MIG_0, MIG_4]
    assert machine["nvidia"]["driver"] == "550.54.15"


def test_a_driver_that_hangs(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(fake_nvml(tmp_path)))
    monkeypatch.setenv("FAKE_NVML_HANG", "init")
    engine.target("here")
    began = time.monotonic()
    machine = resources("here")["here"]["machine"]
    assert time.monotonic() - began < 30
    assert machine["problems"] == [{"part": "nvidia", "what": "no answer within 5 s (nvmlInit)"}]
    assert machine["cpu"]["threads"]
