"""Which OpenCL device a kernel could have: of the kind asked for; one lease with the GPU that it is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.agent.leases import Leases
from farkernel.launcher.agent.probe import opencl, opencl_choice

GIB = 1 << 30
CUDA_UUID = "00000000-aaaa-bbbb-cccc-0123456789ab"


def device(name: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": [kind], "memory": 16 * GIB, "available": True, **more}


def platform(*devices: dict[str, Any], where: str = "host", name: str = "P") -> dict[str, Any]:
    return {"where": where, "name": name, "devices": list(devices)}


def card(index: int, **more: Any) -> dict[str, Any]:
    return {
        "uuid": f"GPU-{index}",
        "name": "H100",
        "vendor": "nvidia",
        "kind": "gpu",
        "index": index,
        "pci": f"00000000:{index:02x}:00.0",
        "memory_total": 80 * GIB,
        "processes": [],
        **more,
    }


def choose(
    platforms: list[dict[str, Any]],
    gpus: list[dict[str, Any]],
    kind: str = "any",
    memory: int = 0,
    **more: Any,
) -> tuple[list[dict[str, Any]], list[str]]:
    found = opencl_choice.choose(
        platforms, gpus, {"opencl": kind, "count": 1, "memory": memory * GIB, **more}
    )
    return found["free"], found["reasons"]


def names(found: list[dict[str, Any]]) -> list[str]:
    return [one["uuid"] for one in found]


PROCESSOR, BOARD = device("EPYC", "cpu"), device("Arria 10", "accelerator")


def test_the_kind_that_is_asked_for_or_the_best() -> None:
    platforms = [platform(PROCESSOR), platform(device("H100", "gpu", pci="0000:01:00.0"), BOARD)]
    free, reasons = choose(platforms, [card(1)])
    assert ([one["label"] for one in free], reasons) == (
        ["OpenCL H100", "OpenCL Arria 10", "OpenCL EPYC"],
        [],
    )
    assert [(one["opencl"], one["shared"]) for one in free] == [("1:0", False), ("1:1", False), ("0:0", True)]
    for kind, label in (("cpu", "OpenCL EPYC"), ("accelerator", "OpenCL Arria 10"), ("gpu", "OpenCL H100")):
        assert [one["label"] for one in choose(platforms, [card(1)], kind)[0]] == [label]
    assert choose(platforms, [card(1)], "custom") == ([], [])


def test_a_gpu_is_one_lease_however_it_is_asked_for() -> None:
    by_pci = device("NVIDIA H100 80GB", "gpu", pci="0000:02:00.0")
    by_uuid = device("x", "gpu", uuid=CUDA_UUID)
    by_name = device("A770", "gpu")
    gpus = [card(1), card(2), card(3, uuid="GPU-" + CUDA_UUID), card(4, name="A770")]
    for one, expected in ((by_pci, "GPU-2"), (by_uuid, "GPU-" + CUDA_UUID), (by_name, "GPU-4")):
        (found,), _ = choose([platform(PROCESSOR, one)], gpus, "gpu")
        # The variables leave the kernel this one alone: it is the first there.
        assert (found["uuid"], found["vendor"], found["opencl"]) == (expected, "nvidia", "0:0")


def test_two_of_one_name_are_not_told_apart_by_it() -> None:
    (found,), _ = choose([platform(device("H100", "gpu"))], [card(1), card(2)], "gpu")
    assert (found["kind"], found["vendor"], found["opencl"]) == ("opencl", None, "0:0")
    assert found["uuid"].startswith("OpenCL-")


def test_a_card_without_a_uuid_is_leased_by_its_place() -> None:
    intel = card(0, uuid=None, vendor="intel", name="Intel Arc", pci="0000:03:00.0")
    (found,), _ = choose([platform(BOARD, device("Arc", "gpu", pci="0000:03:00.0"))], [intel], "gpu")
    assert (found["uuid"], found["opencl"], found["name"]) == ("PCI-0000:03:00.0", "0:1", "Arc")


@pytest.mark.parametrize(
    ("more", "gpu", "said"),
    [
        ({"available": False}, {}, "it is not available"),
        ({"memory": 2 * GIB}, {}, "it has 2 GiB"),
        ({"memory": None}, {}, "its memory is not known"),
        (
            {"pci": "0000:01:00.0"},
            {"processes": [{"pid": 7, "user": "ada", "name": "x"}]},
            "in use by ada (x, pid 7)",
        ),
        ({"pci": "0000:01:00.0"}, {"mig": True}, "parted by MIG"),
    ],
)
def test_why_not(more: dict[str, Any], gpu: dict[str, Any], said: str) -> None:
    free, reasons = choose([platform(device("G", "gpu", **more))], [card(1, **gpu)], "gpu", memory=4)
    assert (free, reasons) == ([], [f"OpenCL G: {said}"])


def test_the_kernel_s_environment_counts_and_not_the_host() -> None:
    platforms = [
        platform(PROCESSOR),
        platform(BOARD, where="/venv/bin/python"),
        platform(PROCESSOR, where="/venv/bin/python"),
    ]
    free, _ = choose(platforms, [])
    assert [(one["name"], one["opencl"]) for one in free] == [("Arria 10", "0:0"), ("EPYC", "1:0")]


def test_the_former_one_comes_first_and_others_give_us_what_they_like() -> None:
    gpus = [platform(*(device("H100", "gpu", pci=f"0000:0{n}:00.0") for n in (1, 2, 3)))]
    cards = [card(1), card(2), card(3)]
    assert names(choose(gpus, cards, "gpu", former=["GPU-3"])[0]) == ["GPU-3", "GPU-1", "GPU-2"]
    assert names(choose(gpus, cards, "gpu", visible="2,GPU-1")[0]) == ["GPU-1", "GPU-2"]


def test_every_user_gives_a_device_the_same_name_and_each_has_its_own() -> None:
    twins = [platform(BOARD, BOARD), platform(BOARD, name="Q")]
    (one, two, three), _ = choose(twins, [])
    assert len({one["uuid"], two["uuid"], three["uuid"]}) == 3
    assert names(choose(twins, [])[0]) == names([one, two, three])


TEXT = st.none() | st.text(max_size=5)
DEVICES = st.fixed_dictionaries(
    {},
    optional={
        "name": TEXT,
        "type": st.lists(st.sampled_from(["gpu", "cpu", "default", "accelerator", "x"]), max_size=2),
        "memory": st.none() | st.integers(0, 1 << 40),
        "available": st.none() | st.booleans(),
        "uuid": st.none() | st.just(CUDA_UUID),
        "pci": st.none() | st.just("0000:01:00.0"),
    },
)
PLATFORMS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "where": st.sampled_from(["host", "/p"]),
            "name": TEXT,
            "devices": st.lists(DEVICES, max_size=3),
        },
    ),
    max_size=3,
)
KINDS = st.sampled_from(["any", *opencl_choice.KINDS])


@given(PLATFORMS, KINDS, st.integers(0, 1 << 40))
def test_whatever_they_say_can_be_leased(platforms: list[dict[str, Any]], kind: str, memory: int) -> None:
    found = opencl_choice.choose(platforms, [card(1)], {"opencl": kind, "count": 1, "memory": memory})
    for one in found["free"]:
        Leases("/nowhere")._path(one["uuid"])  # raises for what is no name
        assert one["opencl"].replace(":", "").isdigit()


# -- who it is ------------------------------------------------------------------------------------------------


def asked(answers: dict[int, bytes]) -> opencl.Ask:
    def ask(code: int, kind: str) -> Any:
        return opencl.read_answer(answers[code], kind) if code in answers else None

    return ask


@pytest.mark.parametrize(
    ("extension", "answers", "expected"),
    [
        (
            "cl_khr_pci_bus_info",
            {0x410F: b"\1\0\0\0" b"\x3b\0\0\0" b"\2\0\0\0" b"\1\0\0\0"},
            "0001:3b:02.1",
        ),
        ("cl_nv_device_attribute_query", {0x4008: b"\x3b\0\0\0", 0x4009: b"\x09\0\0\0"}, "0000:3b:01.1"),
        (
            "cl_nv_device_attribute_query",
            {0x4008: b"\x3b\0\0\0", 0x4009: b"\0\0\0\0", 0x400A: b"\2\0\0\0"},
            "0002:3b:00.0",
        ),
        ("cl_amd_device_attribute_query", {0x4037: b"\1\0\0\0" + bytes(17) + b"\x03\x00\x01"}, "0000:03:00.1"),
        ("cl_amd_device_attribute_query", {0x4037: b"\0\0\0\0" + bytes(20)}, None),
        ("cl_khr_pci_bus_info", {0x410F: b"short"}, None),
        ("cl_nv_device_attribute_query", {0x4008: b"\x3b\0\0\0"}, None),
        ("something_else", {0x410F: bytes(16)}, None),
    ],
)  # fmt: skip
def test_where_it_is_plugged_in(extension: str, answers: dict[int, bytes], expected: str | None) -> None:
    assert opencl.pci([extension], asked(answers)) == expected


def test_what_identifies_it() -> None:
    extensions = b"cl_khr_fp64 cl_khr_device_uuid\0"
    whole = bytes.fromhex(CUDA_UUID.replace("-", ""))
    assert opencl.device(asked({0x1030: extensions, 0x106A: whole}))["uuid"] == CUDA_UUID
    assert opencl.device(asked({0x1030: extensions, 0x106A: bytes(16)}))["uuid"] is None
    assert opencl.device(asked({0x1030: b"cl_khr_fp64\0", 0x106A: whole}))["uuid"] is None
