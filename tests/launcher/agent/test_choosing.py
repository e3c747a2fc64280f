"""A real agent gives GPUs to kernels: each to one, said to the others, and kept as long as the kernel lives."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from farkernel.backends.archive import build_nvml, build_probe
from farkernel.launcher.agent import devices
from farkernel.launcher.agent.devices import NoGpu, Wanted
from farkernel.launcher.agent.leases import Leases
from farkernel.launcher.agent.problems import BadRequest
from farkernel.launcher.errors import RemoteError
from tests.launcher.agent.near_end import Far, NearEnd, agent_processes
from tests.sites.nvidia import H100, MIG_0, MIG_4, fake_nvml
from tests.sites.other_users import PYTHON, UIDS, open_directory
from tests.sites.pythons import OLDEST

PROGRAMS = {"probe": build_probe().sha256, "nvml": build_nvml().sha256}
ONE = {"gpus": 1, "gpu_memory": 0}
LARGE = {"gpus": 1, "gpu_memory": 40 << 30}

Connect = Callable[..., NearEnd]


@pytest.fixture
def run(home: Path) -> Path:
    return Path(os.environ["FARKERNEL_RUN_DIR"])


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    library = tmp_path / "library"
    library.mkdir()
    return {"LD_LIBRARY_PATH": str(fake_nvml(library)), "FARKERNEL_LEASES": str(tmp_path / "leases")}


@pytest.fixture
def connect(run: Path, environment: dict[str, str]) -> Iterator[Connect]:
    """An agent with the programs in it; all kernels are ended afterwards."""
    opened: list[NearEnd] = []

    def open_one(allocation: str = "here", **more: str) -> NearEnd:
        near = NearEnd(run, allocation, OLDEST)
        near.connect({**environment, **more})
        opened.append(near)
        bring_programs(near)
        return near

    yield open_one
    for near in opened:
        if near.loader is not None:
            near.request("end", if_idle=False)
            near.cut()


def bring_programs(near: NearEnd) -> None:
    for archive in (build_probe(), build_nvml()):
        content = base64.b64encode(archive.content).decode()
        near.request("bring", program=archive.sha256, content=content)


def start(far: Far, asked: dict[str, int] = ONE, **more: Any) -> list[str]:
    """UUIDs of what it got."""
    answer = far.start(devices=asked, programs=PROGRAMS, **more)
    return [gpu["uuid"] for gpu in answer["devices"]]


def environment_of(pid: int) -> dict[str, str]:
    return psutil.Process(pid).environ()


def is_free(environment: dict[str, str], device: str) -> bool:
    leases = Leases(environment["FARKERNEL_LEASES"])
    descriptor = leases.take(device, {})
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is not None


def wait_until(condition: Callable[[], bool]) -> None:
    """For what gives no event: the ends of other processes."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_each_kernel_gets_its_own_until_there_is_none(connect: Connect, environment: dict[str, str]) -> None:
    near = connect()
    got = []
    for number, asked in enumerate((ONE, ONE, LARGE)):
        far = Far(near, f"k{number}")
        answer = far.start(devices=asked, programs=PROGRAMS)
        (gpu,) = answer["devices"]
        seen = environment_of(answer["pid"])
        assert (seen["CUDA_VISIBLE_DEVICES"], seen["CUDA_DEVICE_ORDER"]) == (gpu["uuid"], "PCI_BUS_ID")
        got.append(gpu["uuid"])
    assert got == [MIG_0, MIG_4, H100]
    with pytest.raises(RemoteError) as raised:
        start(Far(near, "k3"))
    assert raised.value.remote_kind == "no-gpu"
    assert raised.value.what.startswith(
        "1 GPU cannot be had there: GPU 1 (NVIDIA A100-SXM4-40GB): parted by MIG; "
    )
    assert "GPU 0 (NVIDIA H100 80GB HBM3): leased by you for the kernel k2 since" in raised.value.what
    assert "Wait until one is free" in raised.value.advice
    near.request("stop", kernel="k2", grace=0)
    near.request("forget", kernel="k2")
    assert start(Far(near, "k4"), LARGE) == [H100]


def test_what_is_asked_for_twice_is_chosen_once(connect: Connect) -> None:
    near = connect()
    request: dict[str, Any] = {
        "kernel": "k1",
        "life": 1,
        "argv": ["/bin/sleep", "1000"],
        "devices": ONE,
        "programs": PROGRAMS,
    }
    first, second = near.ask("start", **request), near.ask("start", **request)
    assert near.answer(first) == near.answer(second)
    assert near.request("start", **request)["devices"][0]["uuid"] == MIG_0
    assert near.request("list")["kernels"][0]["devices"][0]["uuid"] == MIG_0


def test_the_next_life_has_the_same(connect: Connect, environment: dict[str, str]) -> None:
    near = connect()
    far = Far(near)
    assert start(far, LARGE) == [H100]
    near.request("stop", kernel="k1", grace=0)
    assert not is_free(environment, H100)
    assert start(far, LARGE) == [H100]
    near.request("stop", kernel="k1", grace=0)
    assert start(far, ONE) == [H100]  # asked for afresh; it had that one before
    near.request("stop", kernel="k1", grace=0)
    near.request("forget", kernel="k1")
    assert is_free(environment, H100)


def test_a_life_that_wants_none_has_none(connect: Connect, environment: dict[str, str]) -> None:
    near = connect()
    far = Far(near)
    start(far)
    near.request("stop", kernel="k1", grace=0)
    answer = far.start()
    assert answer["devices"] == []
    assert "CUDA_VISIBLE_DEVICES" not in environment_of(answer["pid"])
    assert is_free(environment, MIG_0)


def test_the_lease_ends_with_the_kernel_although_everything_else_was_killed(
    connect: Connect, environment: dict[str, str], run: Path
) -> None:
    near = connect()
    answer = Far(near).start(devices=LARGE, programs=PROGRAMS)

    def all_are_killed() -> bool:
        """Guard and worker replace each other, if one has the time."""
        found = agent_processes(run)
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return not found

    wait_until(all_are_killed)
    near.cut()
    assert psutil.pid_exists(answer["pid"])
    assert not is_free(environment, H100)
    other = connect("elsewhere")
    with pytest.raises(RemoteError, match="leased by you for the kernel k1"):
        start(Far(other, "k9"), LARGE)
    os.kill(answer["pid"], signal.SIGKILL)
    wait_until(lambda: is_free(environment, H100))
    again = connect()
    assert start(Far(again, "k2"), LARGE) == [H100]


def test_another_worker_and_another_guard_hold_it_on(
    connect: Connect, environment: dict[str, str], run: Path
) -> None:
    near = connect()
    start(Far(near), LARGE)
    near.cut()
    for _ in range(2):
        before = {process.pid: process for process in agent_processes(run)}
        victim = min(before, key=lambda pid: before[pid].create_time())
        before[victim].kill()
        wait_until(lambda gone=victim: len({one.pid for one in agent_processes(run)} - {gone}) == 2)  # type: ignore[misc]
        assert not is_free(environment, H100)
    near = connect()
    near.request("stop", kernel="k1", grace=0)
    near.request("forget", kernel="k1")
    wait_until(lambda: is_free(environment, H100))


def test_a_stop_while_it_is_chosen(connect: Connect, environment: dict[str, str]) -> None:
    near = connect(FAKE_NVML_HANG="init")
    number = near.ask("start", kernel="k1", life=1, argv=["/bin/sleep", "9"], devices=ONE, programs=PROGRAMS)
    assert near.request("stop", kernel="k1", grace=0) == {}
    with pytest.raises(RemoteError, match="it was stopped before it had started"):
        near.answer(number)
    assert near.request("list")["kernels"] == []


def test_a_driver_that_hangs_is_the_reason(connect: Connect) -> None:
    near = connect(FAKE_NVML_HANG="init")
    with pytest.raises(RemoteError) as raised:
        start(Far(near))
    assert (
        "there is no GPU that could be leased (nvidia: no answer within 5 s (nvmlInit))" in raised.value.what
    )


def test_what_the_user_gives_us_at_most(connect: Connect) -> None:
    near = connect()
    assert start(Far(near, "k1"), ONE, env={"CUDA_VISIBLE_DEVICES": "0"}) == [H100]


def test_a_start_that_fails_for_another_reason_leases_nothing(
    connect: Connect, environment: dict[str, str]
) -> None:
    near = connect()
    with pytest.raises(RemoteError, match="was not found"):
        near.request("start", kernel="k1", life=1, argv=["no-such-program"], devices=ONE, programs=PROGRAMS)
    assert start(Far(near, "k2")) == [MIG_0]


OTHER = UIDS[0]


@pytest.fixture
def others(environment: dict[str, str]) -> Iterator[NearEnd]:
    """Another user's agent on the same machine, with the system's Python."""
    with open_directory() as place:
        environment["LD_LIBRARY_PATH"] = str(fake_nvml(place))
        environment["FARKERNEL_LEASES"] = str(place / "leases")
        os.close(Leases(environment["FARKERNEL_LEASES"]).open())
        python = place / "python"
        become = f"setpriv --reuid {OTHER} --regid {OTHER} --clear-groups"
        python.write_text(f'#!/bin/sh\nexec {become} {PYTHON} "$@"\n')
        python.chmod(0o755)
        run = place / "run"
        run.mkdir(mode=0o700)
        os.chown(run, OTHER, OTHER)
        near = NearEnd(run, python=str(python))
        near.connect({**environment, "HOME": str(run)})
        bring_programs(near)
        yield near
        near.request("end", if_idle=False)
        near.cut()


def test_two_users_agents_race_for_the_last_one(others: NearEnd, connect: Connect) -> None:
    """(The lock itself: 200 times in test_leases.py.)"""
    ours = connect()
    for turn in range(12):
        asked = {
            near: near.ask(
                "start",
                kernel=f"k{turn}",
                life=1,
                argv=["/bin/sleep", "99"],
                devices=LARGE,
                programs=PROGRAMS,
            )
            for near in ((ours, others) if turn % 2 else (others, ours))
        }
        for near in asked:
            near.step(0)  # out with it, before anybody's answer is waited for
        winners, losers = [], []
        for near, number in asked.items():
            try:
                near.answer(number)
                winners.append(near)
            except RemoteError as error:
                losers.append(error.what)
        (winner,), (said,) = winners, losers
        assert f"leased by {'root' if winner is ours else f'user {OTHER}'}" in said
        winner.request("stop", kernel=f"k{turn}", grace=0)
        winner.request("forget", kernel=f"k{turn}")


# -- OpenCL (PoCL is what is installed) ---------------------------------------------------------------------


def test_a_processor_is_shared_and_the_kernel_is_told_which(connect: Connect) -> None:
    near = connect()
    for name in ("k0", "k1"):
        answer = Far(near, name).start(devices={"opencl": "cpu"}, programs=PROGRAMS)
        (device,) = answer["devices"]
        assert (device["kind"], device["shared"]) == ("opencl", True)
        seen = environment_of(answer["pid"])
        assert (seen["PYOPENCL_CTX"], seen["CUDA_VISIBLE_DEVICES"]) == ("0:0", "")


def test_no_such_opencl_device(connect: Connect) -> None:
    with pytest.raises(RemoteError) as raised:
        Far(connect(), "k0").start(devices={"opencl": "accelerator"}, programs=PROGRAMS)
    assert raised.value.what == (
        "an OpenCL device (accelerator) cannot be had there: there is no such device that could be leased"
    )
    assert raised.value.advice == "See what is there: farkernel resources"


# -- without an agent --------------------------------------------------------------------------------------


def test_what_is_asked_for() -> None:
    assert devices.wanted_of({}) is None
    assert devices.wanted_of({"devices": {"gpus": 2, "gpu_memory": 5}}) == Wanted(2, 5)
    assert devices.wanted_of({"devices": {"gpu_memory": 5}}) == Wanted(1, 5)
    assert devices.wanted_of({"devices": {"opencl": "gpu", "gpu_memory": 5}}) == Wanted(1, 5, "gpu")
    for wrong in ({"gpus": -1}, {"opencl": "tpu"}, {"opencl": "gpu", "gpus": 2}):
        with pytest.raises(BadRequest):
            devices.wanted_of({"devices": wrong})


def test_two_are_had_both_or_not_at_all(tmp_path: Path) -> None:
    leases = Leases(str(tmp_path / "leases"))
    free = [{"uuid": "GPU-1", "label": "GPU 1"}, {"uuid": "GPU-2", "label": "GPU 2"}]
    machine = {"choice": {"free": free, "reasons": ["GPU 0: lost"]}, "problems": []}
    both = devices.lease(machine, Wanted(2, 0), leases, {"kernel": "k1"})
    assert [gpu["uuid"] for gpu in both.gpus] == ["GPU-1", "GPU-2"]
    both.close()
    with pytest.raises(NoGpu) as raised:
        devices.lease(machine, Wanted(3, 1 << 30), leases, {"kernel": "k1"})
    assert raised.value.what == (
        "3 GPUs with 1 GiB cannot be had there: GPU 0: lost; GPU 1: free, but that is not enough; "
        "GPU 2: free, but that is not enough"
    )
    devices.lease(machine, Wanted(2, 0), leases, {}).close()


def test_variables() -> None:
    nvidia = {"uuid": "GPU-1", "vendor": "nvidia"}
    amd = {"uuid": "GPU-2", "vendor": "amd"}
    assert devices.variables([]) == {}
    assert devices.variables([nvidia]) == {"CUDA_VISIBLE_DEVICES": "GPU-1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert devices.variables([amd])["ROCR_VISIBLE_DEVICES"] == "GPU-2"
    assert devices.variables([{**nvidia, "opencl": "1:0"}])["PYOPENCL_CTX"] == "1:0"


def test_what_another_user_said_is_text() -> None:
    said = devices.leased_by({"user": "ada", "kernel": "a\x1b[2J\nb", "since": "x", "mine": False})
    assert said == "leased by ada for the kernel a2Jb"
    assert devices.leased_by(json.loads('{"since": 1e300}')) == "leased by somebody"
