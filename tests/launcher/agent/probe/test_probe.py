"""The whole probe as a program: its document is what our dataclasses say, and no part can spoil the others."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from farkernel.launcher.agent.probe import sections
from farkernel.launcher.agent.probe.sections import Section
from farkernel.launcher.discovery import machine
from tests.launcher.agent.probe.conftest import Probe
from tests.sites.pythons import PYTHONS


def test_this_machine(probe: Probe) -> None:
    found = probe({})
    read = machine.read_machine(found)
    assert read.version == machine.VERSION
    assert read.host.name == socket.gethostname()
    assert read.cpu.threads == psutil.cpu_count()
    assert read.cpu.usable == len(os.sched_getaffinity(0))
    assert read.memory.total == psutil.virtual_memory().total
    assert read.swap.total == psutil.swap_memory().total
    assert read.uptime == pytest.approx(time.time() - psutil.boot_time(), abs=10)
    assert read.cpu.use is not None
    assert 0 <= read.cpu.use <= 1


def test_every_field_that_comes_has_a_place(probe: Probe) -> None:
    """What the far end says and what we know of it are one schema."""
    assert list(unknown(machine.Machine, probe({}))) == []


def unknown(kind: Any, value: dict[str, Any]) -> Iterator[str]:
    known = {field.name: field.type for field in dataclasses.fields(kind)}
    for name, inner in value.items():
        if name not in known:
            yield f"{kind.__name__}.{name}"
            continue
        hint = str(known[name])
        for each in inner if isinstance(inner, list) else [inner]:
            if isinstance(each, dict):
                (inside,) = [found for found in vars(machine).values() if _is(found, hint)]
                yield from unknown(inside, each)


def _is(found: object, hint: str) -> bool:
    words = hint.replace("[", " ").replace("]", " ").replace(",", " ").split()
    return dataclasses.is_dataclass(found) and getattr(found, "__name__", "") in words


@pytest.mark.parametrize("python", PYTHONS, ids=str)
def test_under_each_python(probe: Probe, python: Path) -> None:
    found = probe({"patience": 20}, python=str(python))
    assert found["problems"] == []
    assert {"host", "cpu", "memory", "disks", "cuda", "boards"} <= set(found)


def test_only_what_is_wanted(probe: Probe) -> None:
    assert set(probe({"wanted": ["memory"]})) == {"memory", "swap", "problems", "version", "time", "took"}


def test_an_empty_tree_has_nothing_and_no_problem(probe: Probe, tmp_path: Path) -> None:
    parts = ["host", "cpu", "memory", "graphics", "jetson", "cuda", "raspberrypi", "boards"]
    found = probe({"root": str(tmp_path), "wanted": parts})
    read = machine.read_machine(found)
    assert (read.problems, read.gpus, read.boards, read.raspberrypi, read.cpu) == (
        (),
        (),
        (),
        None,
        machine.Cpu(),
    )


# -- parts side by side ------------------------------------------------------------------------------------


def hangs() -> Iterator[dict[str, Any]]:
    yield {"found": ["before"], "at": "the driver"}
    time.sleep(1000)


def crashes() -> Iterator[dict[str, Any]]:
    yield {"found": ["one"]}
    os.kill(os.getpid(), signal.SIGKILL)


def raises() -> Iterator[dict[str, Any]]:
    yield {"found": ["two"], "deep": {"a": 1}}
    raise ValueError("what is this")


def works() -> Iterator[dict[str, Any]]:
    yield {"found": ["three"], "deep": {"b": [1]}}
    yield {"deep": {"b": [2]}, "plain": 7}


def test_each_part_alone() -> None:
    parts = [Section(f.__name__, f) for f in (hangs, crashes, raises, works)]
    began = time.monotonic()
    found = sections.run(parts, 0.5)
    assert time.monotonic() - began < 5
    assert found == {
        "found": ["before", "one", "two", "three"],
        "deep": {"a": 1, "b": [1, 2]},
        "plain": 7,
        "problems": [
            {"part": "hangs", "what": "no answer within 0.5 s (the driver)"},
            {"part": "crashes", "what": "it crashed (signal 9)"},
            {"part": "raises", "what": "ValueError: what is this"},
        ],
    }
    os.waitpid(-1, 0)  # the one that hung
