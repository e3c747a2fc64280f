"""NVML by nvidia-ml-py against a stand-in library: two cards, one with MIG instances in slots 0 and 4."""

from __future__ import annotations

import os
import pwd
import time
from pathlib import Path
from typing import Any

import pytest

from tests.launcher.agent.probe.conftest import Probe
from tests.sites.nvidia import A100, H100, MIG_0, MIG_4
from tests.sites.pythons import PYTHONS

NVIDIA = {"wanted": ["nvidia"], "patience": 5.0}
GIB = 1 << 30


@pytest.fixture
def look(probe: Probe, nvml_library: Path) -> Probe:
    def run(request: dict[str, Any] = NVIDIA, **more: Any) -> dict[str, Any]:
        return probe(request, nvml=True, LD_LIBRARY_PATH=str(nvml_library), **more)

    return run


def test_every_field(look: Probe) -> None:
    found = look()
    assert found["nvidia"] == {"driver": "550.54.15", "nvml": "12.550.54.15", "cuda": "12.4"}
    assert found["problems"] == []
    h100, a100, first, second = found["gpus"]
    assert h100 == {
        "vendor": "nvidia",
        "kind": "gpu",
        "name": "NVIDIA H100 80GB HBM3",
        "uuid": H100,
        "pci": "00000000:18:00.0",
        "index": 0,
        "memory_total": 80 * GIB,
        "memory_used": GIB // 64,
        "use": 0.37,
        "temperature": 41,
        "power": 70.123,
        "compute_mode": "default",
        "capability": "9.0",
        "processes": [],
        "mig": None,
        "problem": None,
    }
    assert (a100["uuid"], a100["mig"], a100["use"], a100["problem"]) == (A100, True, None, None)
    for instance, slot, uuid, size in ((first, 0, MIG_0, 5), (second, 4, MIG_4, 20)):
        assert instance["kind"] == "mig"
        assert (instance["slot"], instance["uuid"], instance["parent"]) == (slot, uuid, A100)
        assert instance["memory_total"] == size * GIB
        assert (instance["index"], instance["pci"], instance["problem"]) == (1, a100["pci"], None)
        assert "MIG" in instance["name"]


def test_who_uses_it(look: Probe) -> None:
    (process,) = look(FAKE_NVML_BUSY=str(os.getpid()))["gpus"][0]["processes"]
    me = pwd.getpwuid(os.getuid()).pw_name
    comm = Path("/proc/self/comm").read_text().strip()
    assert process == {"pid": os.getpid(), "user": me, "name": comm, "memory": 30 * GIB}


def test_a_process_that_cannot_be_seen_from_here(look: Probe) -> None:
    (process,) = look(FAKE_NVML_BUSY="4194399")["gpus"][0]["processes"]
    assert (process["user"], process["name"]) == (None, None)


def test_a_driver_before_510(look: Probe) -> None:
    found = look(FAKE_NVML_OLD="1", FAKE_NVML_BUSY=str(os.getpid()))
    assert [process["pid"] for process in found["gpus"][0]["processes"]] == [os.getpid()]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("9", "its driver is installed but not loaded"),
        ("4", "no permission to ask"),
        ("18", "different versions"),
    ],
)
def test_a_driver_that_does_not_answer(look: Probe, code: str, said: str) -> None:
    found = look(FAKE_NVML_INIT=code)
    (problem,) = found["problems"]
    assert problem["part"] == "nvidia"
    assert said in problem["what"]
    assert "gpus" not in found


def test_no_permission_for_a_card_leaves_its_instances(look: Probe) -> None:
    _, a100, first, _ = look(FAKE_NVML_DENY="1")["gpus"]
    assert (a100["memory_total"], a100["processes"], a100["problem"]) == (None, None, "no permission to ask")
    assert (first["memory_total"], first["processes"]) == (5 * GIB, [])


def test_a_card_that_fell_off_the_bus(look: Probe) -> None:
    h100, lost = look(FAKE_NVML_LOST="1")["gpus"]
    assert h100["problem"] is None
    assert "fallen off the bus" in lost["problem"]
    assert lost["index"] == 1


@pytest.mark.parametrize(("call", "at", "cards"), [("init", "nvmlInit", 0), ("memory", "GPU 1", 1)])
def test_a_hang_costs_its_deadline_and_nothing_else(look: Probe, call: str, at: str, cards: int) -> None:
    began = time.monotonic()
    found = look({"wanted": ["nvidia", "host"], "patience": 1.0}, FAKE_NVML_HANG=call)
    assert time.monotonic() - began < 15  # on a loaded machine
    assert 1.0 <= found["took"] < 5
    assert found["problems"] == [{"part": "nvidia", "what": f"no answer within 1 s ({at})"}]
    assert len(found.get("gpus", [])) == cards
    assert found["host"]["name"] == os.uname().nodename


def test_a_crash_is_said(look: Probe) -> None:
    (problem,) = look(FAKE_NVML_CRASH="1")["problems"]
    assert problem["what"] == "it crashed (signal 6) (nvmlInit)"


def test_what_asks_the_driver_is_wanted_only_where_there_is_one(probe: Probe, nvml_library: Path) -> None:
    assert probe(NVIDIA, LD_LIBRARY_PATH=str(nvml_library)) == {"need": "nvml"}
    assert "need" not in probe({"wanted": ["host"]}, LD_LIBRARY_PATH=str(nvml_library))
    without = probe(NVIDIA)
    assert (without["problems"], "gpus" in without) == ([], False)


@pytest.mark.parametrize("python", PYTHONS, ids=str)
def test_under_each_python(look: Probe, python: Path) -> None:
    found = look(python=str(python))
    assert [gpu["uuid"] for gpu in found["gpus"]] == [H100, A100, MIG_0, MIG_4]
    assert found["problems"] == []
