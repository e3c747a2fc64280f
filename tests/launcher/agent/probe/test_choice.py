"""Which GPUs a kernel could have: idle, large enough, allowed; the smallest first, and why not the others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.agent.probe import choice

GIB = 1 << 30


def gpu(index: int, total: int = 80, **more: Any) -> dict[str, Any]:
    found = {
        "uuid": f"GPU-{index}",
        "name": "H100",
        "vendor": "nvidia",
        "kind": "gpu",
        "index": index,
        "memory_total": total * GIB,
        "memory_used": GIB // 2,
        "processes": [],
    }
    return {**found, **more}


def choose(
    gpus: list[dict[str, Any]], count: int = 1, memory: int = 0, **more: Any
) -> tuple[list[str], list[str]]:
    found = choice.choose(gpus, {"count": count, "memory": memory * GIB, **more})
    return [one["uuid"] for one in found["free"]], found["reasons"]


def test_the_smallest_that_fits_comes_first_unless_it_had_another() -> None:
    gpus = [gpu(0, 80), gpu(1, 40), gpu(2, 24), gpu(3, 40, use=0.4)]
    assert choose(gpus)[0] == ["GPU-2", "GPU-1", "GPU-3", "GPU-0"]
    free, reasons = choose(gpus, memory=30)
    assert free == ["GPU-1", "GPU-3", "GPU-0"]
    assert reasons == ["GPU 2 (H100): it has 24 GiB"]
    assert choose(gpus, former=["GPU-0"])[0][0] == "GPU-0"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"mig": True}, "parted by MIG"),
        ({"compute_mode": "prohibited"}, "its compute mode prohibits programs"),
        ({"processes": [{"pid": 7, "user": "ada", "name": "python"}]}, "in use by ada (python, pid 7)"),
        ({"processes": [{"pid": 7}]}, "in use by somebody (a process, pid 7)"),
        ({"processes": None, "memory_used": 9 * GIB}, "in use (9.0 of 80.0 GiB)"),
        ({"uuid": None, "problem": "the GPU is lost"}, "the GPU is lost"),
        ({"uuid": None}, "it has no UUID by which it could be leased"),
    ],
)
def test_why_not(more: dict[str, Any], said: str) -> None:
    assert choose([gpu(0, **more)]) == ([], [f"GPU 0 (H100): {said}"])


def test_a_card_that_does_not_say_its_memory_is_not_given_to_those_who_ask_for_some() -> None:
    unknown = gpu(0, memory_total=None, memory_used=None, processes=None)
    assert choose([unknown])[0] == ["GPU-0"]
    assert choose([unknown], memory=1) == ([], ["GPU 0 (H100): its memory is not known"])


@pytest.mark.parametrize(("name", "total", "asked"), [("T4", 15843721216, 16), ("A100", 42505273344, 40)])
def test_a_card_has_what_it_is_sold_by(name: str, total: int, asked: int) -> None:
    assert choose([gpu(0, memory_total=total)], memory=asked)[0] == ["GPU-0"], name


def test_mig_instances_are_for_those_who_want_one() -> None:
    gpus = [gpu(0, mig=True), gpu(0, 20, uuid="MIG-1", kind="mig", slot=4), gpu(1)]
    assert choose(gpus)[0] == ["MIG-1", "GPU-1"]
    free, reasons = choose(gpus, count=2)
    assert free == ["GPU-1"]
    assert "MIG 0.4 (H100): a MIG instance, of which a program can use one only" in reasons


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["GPU-0", "GPU-1", "MIG-7"]),
        ("1", ["GPU-1"]),
        ("GPU-1,0", ["GPU-0", "GPU-1"]),
        ("MIG-7", ["MIG-7"]),
        ("", []),
        ("0,-1,1", ["GPU-0"]),
    ],
)
def test_what_others_leave_us(visible: str | None, expected: list[str]) -> None:
    gpus = [gpu(0), gpu(1), gpu(2, uuid="MIG-7", kind="mig", parent="GPU-2", slot=1)]
    assert choose(gpus, visible=visible)[0] == expected


def test_an_amd_card_is_none_of_cuda_s() -> None:
    assert choose([gpu(0, vendor="amd")], visible="")[0] == ["GPU-0"]


GPUS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "uuid": st.none() | st.text(max_size=4),
            "name": st.none() | st.text(max_size=4),
            "vendor": st.sampled_from(["nvidia", "amd", None]),
            "kind": st.sampled_from(["gpu", "mig", None]),
            "index": st.none() | st.integers(0, 9),
            "slot": st.none() | st.integers(0, 9),
            "parent": st.none() | st.text(max_size=4),
            "mig": st.none() | st.booleans(),
            "memory_total": st.none() | st.integers(0, 1 << 40),
            "memory_used": st.none() | st.integers(0, 1 << 40),
            "use": st.none() | st.floats(0, 1),
            "processes": st.none() | st.lists(st.fixed_dictionaries({"pid": st.integers(0, 9)}), max_size=2),
            "problem": st.none() | st.text(max_size=4),
        },
    ),
    max_size=5,
)


@given(GPUS, st.integers(1, 3), st.integers(0, 1 << 40), st.none() | st.text("GPU-0123,", max_size=8))
def test_any_gpus(gpus: list[dict[str, Any]], count: int, memory: int, visible: str | None) -> None:
    found = choice.choose(gpus, {"count": count, "memory": memory, "visible": visible, "former": ["a"]})
    assert len(found["free"]) + len(found["reasons"]) <= len(gpus)
    for one in found["free"]:
        assert one["uuid"]
