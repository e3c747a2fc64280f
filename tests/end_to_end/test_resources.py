"""`farkernel resources` with a real keeper and a real agent, and a stand-in for NVIDIA's driver."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from jupyter_client.manager import KernelManager

from farkernel.launcher.cli.schemas import SCHEMAS

from ..sites.engine import Engine, connected, run_cell, wait_until
from ..sites.nvidia import A100, H100, MIG_0, MIG_4, fake_nvml
from ..sites.ssh import Sshd

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
    engine.target("twin")
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
    assert found["twin"]["machine"]["time"] == machine["time"]  # one machine, one question
    assert found["q"]["ok"] is False
    assert "Slurm" in found["q"]["what"]  # there is none here
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
    assert {"part": "nvidia", "what": "no answer within 5 s (nvmlInit)"} in machine["problems"]
    assert machine["cpu"]["threads"]


def test_over_ssh_where_one_host_hangs(engine: Engine, home: Path) -> None:
    """A server that takes the connection and says nothing costs its deadline, and its line."""
    with Sshd(home.parent / "sshd") as host, socket.create_server(("127.0.0.1", 0)) as silent:
        host.write_client_config()
        engine.target("far", address=host.address, ssh_config=str(host.client_config))
        hung = f"ssh://me@127.0.0.1:{silent.getsockname()[1]}"
        engine.target("hung", address=hung, ssh_config=str(host.client_config))
        engine.target("here")
        began = time.monotonic()
        found = resources("--deadline", "10")
        assert time.monotonic() - began < 40
        assert found["far"]["machine"]["host"]["name"] == os.uname().nodename
        assert found["here"]["ok"] is True
        assert found["hung"]["ok"] is False
        assert "farkernel doctor hung" in found["hung"]["advice"]
        engine.close()
        wait_until(lambda: not host.agents(), "the far agent to end", 15)


# -- GPUs for kernels --------------------------------------------------------------------------------------


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(fake_nvml(tmp_path)))
    monkeypatch.setenv("FARKERNEL_LEASES", str(tmp_path / "leases"))


@contextlib.contextmanager
def kernel(name: str) -> Iterator[KernelManager]:
    manager = KernelManager(kernel_name=name, transport="ipc")
    manager.start_kernel()
    try:
        yield manager
    finally:
        manager.shutdown_kernel(now=True)


SEEN = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"


@pytest.mark.usefixtures("gpus")
def test_a_kernel_gets_an_idle_gpu_of_its_own(engine: Engine) -> None:
    engine.target("here", kernel="python3", resources={"gpus": 1, "gpu_memory": "20G"})
    engine.entry("here", "here")
    with kernel("here") as first, connected(first.connection_file) as client:
        assert run_cell(client, SEEN).text == f"{MIG_4}\n"
        with kernel("here") as second:
            with connected(second.connection_file) as other:
                assert run_cell(other, SEEN).text == f"{H100}\n"
            ps = subprocess.run(
                [sys.executable, "-m", "farkernel", "ps"], capture_output=True, text=True, check=True
            ).stdout
            assert "MIG 1.4" in ps
            assert "GPU 0" in ps
            with kernel("here"):
                row = wait_until(
                    lambda: next((row for row in engine.kernels() if row["state"] == "ended"), None),
                    "the refusal",
                )
                assert "1 GPU with 20 GiB cannot be had there" in row["reason"]["text"]
                assert "MIG 1.4 (NVIDIA A100-SXM4-40GB MIG 3g.20gb): leased by you" in row["reason"]["text"]
            seen = {gpu["uuid"]: gpu["lease"] for gpu in resources("here")["here"]["machine"]["gpus"]}
            assert (seen[H100]["mine"], seen[H100]["user"], seen[MIG_0]) == (True, "root", None)
            second.restart_kernel(now=True)
            with connected(second.connection_file) as other:
                assert run_cell(other, SEEN).text == f"{H100}\n"
    with kernel("here") as third, connected(third.connection_file) as client:
        assert run_cell(client, SEEN).text == f"{MIG_4}\n"


@pytest.mark.usefixtures("gpus")
def test_who_asks_for_none_gets_none(engine: Engine) -> None:
    engine.target("here", kernel="python3", resources={"cpus": 1})
    engine.entry("here", "here")
    with kernel("here") as manager, connected(manager.connection_file) as client:
        assert run_cell(client, "import os; print('CUDA_VISIBLE_DEVICES' in os.environ)").text == "False\n"
    assert not Path(os.environ["FARKERNEL_LEASES"]).exists()
