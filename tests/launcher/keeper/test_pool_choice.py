"""Which member gets a kernel: the choice by itself, for whatever members may be like."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.discovery.machine import (
    Cpu,
    Gpu,
    GpuProcess,
    Lease,
    Machine,
    Memory,
    OpenClDevice,
    OpenClPlatform,
    RaspberryPi,
)
from farkernel.launcher.keeper.pool_choice import Candidate, NoneFits, choose, load, unfit
from farkernel.launcher.settings import Resources

GIB = 1 << 30
NOTHING = Resources()
POLICIES = ("least-loaded", "round-robin", "first")


def machine(load: float = 0.0, cpus: int = 4, free: int = 8, total: int = 16) -> Machine:
    return Machine(load=(load,), cpu=Cpu(usable=cpus), memory=Memory(total=total * GIB, available=free * GIB))


machines = st.builds(
    machine,
    load=st.floats(0, 100),
    cpus=st.integers(1, 128),
    free=st.integers(0, 16),
)
candidates = st.lists(
    st.builds(
        Candidate,
        name=st.text("abcdefgh", min_size=1, max_size=6),
        drained=st.booleans(),
        capacity=st.none() | st.integers(1, 4),
        kernels=st.integers(0, 5),
        machine=st.none() | machines,
        why=st.sampled_from(["", "", "cannot be reached: no route"]),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda each: each.name,
)
chances = st.floats(0, 1, exclude_max=True)
names = st.text("abcdefgh", max_size=6)


@given(candidates, st.sampled_from(POLICIES), chances, names, names, names)
def test_what_is_picked_fits_and_if_nothing_does_each_reason_is_said(
    members: list[Candidate], policy: str, chance: float, wanted: str, after: str, avoid: str
) -> None:
    fitting = [each for each in members if unfit(each, NOTHING) is None]
    try:
        picked = choose(
            "pool", members, policy, NOTHING, lambda: chance, wanted=wanted, after=after, avoid=avoid
        )
    except NoneFits as error:
        assert not fitting
        assert set(error.reasons) == {each.name for each in members}
        assert all(f"{name} {reason}" in error.what for name, reason in error.reasons.items())
        return
    assert picked in fitting
    if picked.name == avoid:
        assert [each.name for each in fitting] == [avoid]
    if any(each.name == wanted for each in fitting) and wanted != avoid:
        assert picked.name == wanted


@given(candidates, chances)
def test_no_other_is_clearly_less_loaded(members: list[Candidate], chance: float) -> None:
    fitting = [each for each in members if unfit(each, NOTHING) is None]
    if fitting:
        picked = choose("pool", members, "least-loaded", NOTHING, lambda: chance)
        assert load(picked) <= min(map(load, fitting)) + 0.25 + 1e-6 * load(picked)


@given(st.integers(1, 9), st.integers(0, 30), chances)
def test_turns_go_round(size: int, rounds: int, chance: float) -> None:
    members = [Candidate(f"m{number}") for number in range(size)]
    last, taken = "", []
    for _ in range(rounds):
        last = choose("pool", members, "round-robin", NOTHING, lambda: chance, after=last).name
        taken.append(last)
    for number, name in enumerate(taken[1:], 1):
        assert int(name[1:]) == (int(taken[number - 1][1:]) + 1) % size


@given(st.integers(2, 8), st.integers(1, 60), st.randoms())
def test_kernels_that_start_at_once_are_spread(size: int, count: int, random: object) -> None:
    """Each pick counts at once, whatever the probe said a moment ago."""
    kernels = dict.fromkeys((f"m{number}" for number in range(size)), 0)
    for _ in range(count):
        members = [Candidate(name, kernels=number, machine=machine()) for name, number in kernels.items()]
        kernels[choose("pool", members, "least-loaded", NOTHING, random.random).name] += 1  # type: ignore[attr-defined]
    assert max(kernels.values()) - min(kernels.values()) <= 1


def test_first_is_the_first_that_fits() -> None:
    members = [Candidate("a", drained=True), Candidate("b", kernels=9), Candidate("c")]
    assert choose("pool", members, "first", NOTHING, lambda: 0.0).name == "b"


PI = Machine(raspberrypi=RaspberryPi(temperature=61.5, throttled=()))


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        (Candidate("m"), None),
        (Candidate("m", machine=PI), None),
        (Candidate("m", drained=True, why="cannot be reached: x"), "is drained (drain = true)"),
        (Candidate("m", why="did not answer within 15 s"), "did not answer within 15 s"),
        (Candidate("m", capacity=2, kernels=2), "is full: 2 of 2 kernels (capacity)"),
        (Candidate("m", machine=Machine(raspberrypi=RaspberryPi(temperature=80.0))), "is hot: 80 °C"),
        (
            Candidate("m", machine=Machine(raspberrypi=RaspberryPi(throttled=("under-voltage", "thr\x1b[1mottled")))),
            "is throttled: under-voltage, thr",
        ),
        (Candidate("m", machine=machine(free=0)), "has no memory free: 0 MiB of 16 GiB"),
    ],
)  # fmt: skip
def test_who_is_passed_over_and_why(candidate: Candidate, expected: str | None) -> None:
    reason = unfit(candidate, NOTHING)
    assert reason == expected or (expected is not None and str(reason).startswith(expected))
    assert reason is None or reason.isprintable()


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (Resources(memory=8 * GIB), None),
        (Resources(memory=9 * GIB), "has 8 GiB of memory free, and 9 GiB are asked for"),
        (Resources(cpus=4), None),
        (Resources(cpus=5), "has 4 CPUs, and 5 are asked for"),
        (Resources(gpus=1), "has 0 idle GPUs that would do, and 1 are asked for"),
        (Resources(gpu_memory=GIB), "has 0 idle GPUs that would do, and 1 are asked for"),
        (Resources(opencl="gpu"), "has no OpenCL device of the kind gpu"),
        (Resources(opencl="any"), "has no OpenCL device"),
    ],
)
def test_what_was_asked_for_must_be_there(resources: Resources, expected: str | None) -> None:
    assert unfit(Candidate("m", machine=machine()), resources) == expected


def test_an_opencl_device_of_the_kind_is_enough() -> None:
    with_pocl = replace(machine(), opencl=(OpenClPlatform(devices=(OpenClDevice(type=("cpu",)),)),))
    expected = {"any": None, "cpu": None, "gpu": "has no OpenCL device of the kind gpu"}
    assert {
        kind: unfit(Candidate("m", machine=with_pocl), Resources(opencl=kind)) for kind in expected
    } == expected


def test_idle_gpus_are_those_that_nobody_has() -> None:
    idle = Gpu(uuid="GPU-1", memory_total=16 * GIB)
    held = (
        Gpu(uuid="GPU-2", memory_total=16 * GIB, lease=Lease(user="ada")),
        Gpu(uuid="GPU-3", memory_total=16 * GIB, processes=(GpuProcess(pid=1),)),
        Gpu(uuid="GPU-4", mig=True),
        Gpu(uuid="GPU-5", problem="lost"),
    )
    there = Candidate("m", machine=Machine(gpus=(idle, *held)))
    assert unfit(there, Resources(gpus=1, gpu_memory=16 * GIB)) is None
    assert unfit(there, Resources(gpus=2)) == "has 1 idle GPUs that would do, and 2 are asked for"
    assert unfit(there, Resources(gpu_memory=40 * GIB)) is not None


def test_gpus_that_are_about_to_be_leased_count_as_taken() -> None:
    machine = Machine(gpus=(Gpu(uuid="GPU-1"), Gpu(uuid="GPU-2")))
    assert unfit(Candidate("m", machine=machine, claimed=1), Resources(gpus=1)) is None
    assert unfit(Candidate("m", machine=machine, claimed=3), Resources(gpus=1)) == (
        "has 0 idle GPUs that would do, and 1 are asked for"
    )
    assert unfit(Candidate("m", machine=machine, claimed=3), NOTHING) is None


def test_a_large_pool_does_not_fill_the_notebook() -> None:
    members = [Candidate(f"m{number}", drained=True) for number in range(1000)]
    with pytest.raises(NoneFits) as caught:
        choose("lab", members, "first", NOTHING, lambda: 0.0)
    assert caught.value.what.startswith(
        "no member of the pool lab can take this kernel: m0 is drained (drain = true)"
    )
    assert caught.value.what.endswith("and 980 more")
    assert "farkernel resources" in caught.value.advice
    assert len(caught.value.what) < 1000
