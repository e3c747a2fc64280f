"""/proc/cpuinfo of several architectures (captured ones, shortened), affinity, limits of control groups, use."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.agent.probe import cgroups, processors
from tests.launcher.agent.probe.trees import plant

# Captured in a virtual machine with two CPUs.
EPYC = "".join(
    f"processor\t: {n}\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nphysical id\t: 0\nsiblings\t: 2\n"
    f"core id\t\t: {n}\ncpu cores\t: 2\n\n"
    for n in range(2)
)
# Two sockets with two cores of two threads each, as Intel's servers write it.
XEON = "".join(
    f"processor\t: {n}\nmodel name\t: Intel(R) Xeon(R) Gold 6248 CPU @ 2.50GHz\n"
    f"physical id\t: {n % 2}\ncore id\t\t: {n // 2 % 2}\n\n"
    for n in range(8)
)
# The form of a Raspberry Pi 4 (arm64): numbers for the core, the board's facts at the end.
PI = (
    "".join(
        f"processor\t: {n}\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n"
        "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n"
        for n in range(4)
    )
    + "Hardware\t: BCM2835\nRevision\t: d03114\nSerial\t\t: 10000000deadbeef\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n"
)
# Captured on a Raspberry Pi 3 with a 32-bit kernel (github.com/nelisys/docs, raspberry-pi/raspbian-pi-3.md).
PI_3 = (
    "".join(
        f"processor\t: {n}\nmodel name\t: ARMv7 Processor rev 4 (v7l)\nBogoMIPS\t: 38.40\nFeatures\t: half thumb\n"
        "CPU implementer\t: 0x41\nCPU architecture: 7\nCPU variant\t: 0x0\nCPU part\t: 0xd03\nCPU revision\t: 4\n\n"
        for n in range(4)
    )
    + "Hardware\t: BCM2835\nRevision\t: a32082\nModel\t\t: Raspberry Pi 3 Model B Rev 1.2\n"
)
POWER = "processor\t: 0\ncpu\t\t: POWER9, altivec supported\nclock\t\t: 2300.0MHz\n\nprocessor\t: 4\ncpu\t\t: POWER9\n"
RISC = "processor\t: 0\nhart\t\t: 1\nisa\t\t: rv64imafdc\nuarch\t\t: sifive,u74-mc\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (EPYC, ("AMD EPYC", 1, 2, 2)),
        (XEON, ("Intel(R) Xeon(R) Gold 6248 CPU @ 2.50GHz", 2, 4, 8)),
        (PI, ("Cortex-A72", None, None, 4)),
        (PI_3, ("Cortex-A53", None, None, 4)),
        (POWER, ("POWER9, altivec supported", None, None, 2)),
        (RISC, ("sifive,u74-mc", None, None, 1)),
        ("", (None, None, None, None)),
    ],
)
def test_what_the_processors_are(text: str, expected: tuple[object, ...]) -> None:
    found = processors.describe(text)
    assert (found["model"], found["sockets"], found["cores"], found["threads"]) == expected


def test_big_and_little_cores() -> None:
    text = "processor: 0\nCPU part: 0xd05\n\nprocessor: 1\nCPU part: 0xd0b\n\nprocessor: 2\nCPU part: 0xfff\n"
    assert processors.describe(text)["model"] == "Arm 0xfff, Cortex-A55, Cortex-A76"


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    processors.describe(text)
    processors.times(text)
    processors.count(text)


@given(st.sets(st.integers(0, 200), min_size=1))
def test_lists_of_cpus(chosen: set[int]) -> None:
    assert processors.count(ranges(sorted(chosen))) == len(chosen)


def ranges(numbers: list[int]) -> str:
    """As the system writes it: 0-3,8."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


@pytest.mark.parametrize("text", ["", "x", "3-1", "1,,2", "-1"])
def test_what_is_no_list_of_cpus(text: str) -> None:
    assert processors.count(text) is None


@given(
    st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40)),
    st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40)),
)
def test_use_is_a_part_of_one(before: tuple[int, int], after: tuple[int, int]) -> None:
    use = processors.use(before, after)
    assert use is None or 0.0 <= use <= 1.0


def test_use() -> None:
    before = processors.times("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 2 3 4\n")
    after = processors.times("cpu  175 0 50 820 55 0 0 0 0 0\n")
    assert (before, after) == ((850, 1000), (875, 1100))
    assert processors.use(before, after) == 0.75
    assert processors.use(before, before) is None
    assert processors.times("cpu 1 2\n") is None


def test_a_whole_tree(tmp_path: Path) -> None:
    root = plant(
        tmp_path,
        {
            "proc/cpuinfo": XEON,
            "proc/self/status": "Name:\tpython3\nCpus_allowed:\t0f\nCpus_allowed_list:\t0-3\n",
            "proc/self/cgroup": "0::/user.slice\n",
            "proc/self/mountinfo": "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            "sys/fs/cgroup/user.slice/cpu.max": "150000 100000\n",
            "sys/devices/system/cpu/online": "0-7\n",
            "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "3900000\n",
        },
    )
    ((name, cpu),) = next(iter(processors.look(root))).items()
    assert name == "cpu"
    assert (cpu["threads"], cpu["usable"], cpu["limit"], cpu["frequency"]) == (8, 4, 1.5, 3900.0)


def test_nothing_there_is_no_error(tmp_path: Path) -> None:
    cpu = next(iter(processors.look(str(tmp_path))))["cpu"]
    assert set(cpu.values()) == {None}


# -- control groups ----------------------------------------------------------------------------------------

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""


def test_version_1_the_smallest_limit_upwards_counts(tmp_path: Path) -> None:
    root = plant(
        tmp_path,
        {
            "proc/self/mountinfo": HYBRID,
            "proc/self/cgroup": "4:memory:/slurm/uid_7/job_42/step_0\n2:cpu,cpuacct:/slurm/uid_7\n0::/\n",
            "sys/fs/cgroup/memory/slurm/uid_7/job_42/step_0/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/slurm/uid_7/job_42/memory.limit_in_bytes": "4294967296\n",
            "sys/fs/cgroup/memory/slurm/uid_7/job_42/memory.usage_in_bytes": "3000\n",
            "sys/fs/cgroup/memory/slurm/uid_7/job_42/memory.stat": "cache 900\ntotal_inactive_file 1000\n",
            "sys/fs/cgroup/memory/slurm/memory.limit_in_bytes": "8589934592\n",
            "sys/fs/cgroup/cpu/slurm/uid_7/cpu.cfs_quota_us": "400000\n",
            "sys/fs/cgroup/cpu/slurm/uid_7/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        },
    )
    assert cgroups.limits(root) == {"cpus": 4.0, "memory": 4 << 30, "memory_used": 2000}


def test_version_2_in_a_container_that_sees_a_part_of_the_tree(tmp_path: Path) -> None:
    root = plant(
        tmp_path,
        {
            "proc/self/mountinfo": "30 25 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
            "proc/self/cgroup": "0::/docker/abc\n",
            "sys/fs/cgroup/memory.max": "1073741824\n",
            "sys/fs/cgroup/memory.current": "52428800\n",
            "sys/fs/cgroup/cpu.max": "50000 100000\n",
        },
    )
    assert cgroups.limits(root) == {"cpus": 0.5, "memory": 1 << 30, "memory_used": 50 << 20}


def test_no_limits(tmp_path: Path) -> None:
    root = plant(
        tmp_path,
        {
            "proc/self/mountinfo": "30 25 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
            "proc/self/cgroup": "0::/a\n",
            "sys/fs/cgroup/a/memory.max": "max\n",
            "sys/fs/cgroup/a/cpu.max": "max 100000\n",
        },
    )
    assert cgroups.limits(root) == {"cpus": None, "memory": None, "memory_used": None}


@given(st.text(), st.text())
def test_any_mounts_and_groups(mounts: str, groups: str) -> None:
    found = cgroups.mount_points(mounts), cgroups.memberships(groups)
    for controller in {"", "cpu", *found[1]}:
        assert len(list(cgroups.directories(found[0], found[1], controller))) < 1000


@given(st.text())
def test_cpu_max(text: str) -> None:
    share = cgroups.cpu_max(text)
    assert share is None or share > 0


def test_a_group_cannot_lead_out_of_its_mount() -> None:
    mounts = cgroups.mount_points("30 25 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n")
    found = list(cgroups.directories(mounts, {"": "/../../etc"}, ""))
    assert found == ["/sys/fs/cgroup/etc", "/sys/fs/cgroup"]
