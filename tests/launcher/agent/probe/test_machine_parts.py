"""Memory, disks, host, CUDA: from texts and trees."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.agent.probe import cuda, disks, files, host, memory
from tests.launcher.agent.probe.trees import plant

# -- memory ------------------------------------------------------------------------------------------------


def test_memory() -> None:
    text = "MemTotal:       24682416 kB\nMemFree:        21177316 kB\nMemAvailable:   23962676 kB\nSwapTotal: 1024 kB\nSwapFree: 512 kB\n"
    assert memory.meminfo(text) == {
        "memory": {"total": 24682416 * 1024, "available": 23962676 * 1024},
        "swap": {"total": 1 << 20, "free": 512 * 1024},
    }


def test_memory_before_linux_3_14() -> None:
    text = "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 50 kB\nCached: 200 kB\n"
    assert memory.meminfo(text)["memory"] == {"total": 1000 * 1024, "available": 350 * 1024}


@given(st.text())
def test_any_meminfo(text: str) -> None:
    for value in memory.meminfo(text)["memory"].values():
        assert value is None or value >= 0


# -- disks -------------------------------------------------------------------------------------------------

MOUNTS = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
28 27 0:25 / /run rw,nosuid - tmpfs tmpfs rw
40 27 8:17 / /data\040store rw,relatime shared:20 - xfs /dev/sdb1 rw
41 27 0:50 / /home ro,relatime - nfs4 server:/export/home rw,vers=4.2
42 27 254:0 /srv /srv rw,relatime - ext4 /dev/vda rw
43 27 0:61 / /scratch rw - lustre 10.0.0.1@o2ib:/scratch rw
44 27 7:3 / /snap/core/1 ro - squashfs /dev/loop3 ro
45 27 0:70 / /dev/shm rw - tmpfs tmpfs rw
46 27 259:1 / /boot/efi rw - vfat /dev/nvme0n1p1 rw
"""


def test_which_file_systems_hold_data() -> None:
    mounts = disks.mount_points(MOUNTS)
    chosen = disks.choose(mounts, [])
    assert [(mount.point, mount.kind) for mount in chosen] == [
        ("/", "ext4"),
        ("/home", "nfs4"),
        ("/scratch", "lustre"),
        ("/data store", "xfs"),
    ]
    assert [mount.writable for mount in chosen] == [True, False, True, True]
    assert [disks.is_network(mount.kind) for mount in chosen] == [False, True, True, False]


def test_where_the_user_works_counts_whatever_it_is() -> None:
    chosen = disks.choose(disks.mount_points(MOUNTS), ["/dev/shm/me"])
    assert "/dev/shm" in [mount.point for mount in chosen]


def test_this_machine_s_disks() -> None:
    found = [disk for piece in disks.look("/", dict(os.environ)) for disk in piece.get("disks", [])]
    root = os.statvfs("/")
    (seen,) = [disk for disk in found if disk["path"] == "/"]
    assert seen["total"] == root.f_blocks * root.f_frsize
    assert 0 <= seen["free"] <= seen["total"]


@given(st.text())
def test_any_mountinfo(text: str) -> None:
    disks.choose(disks.mount_points(text), ["/home/me"])


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_escapes(text: str) -> None:
    escaped = "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in text)
    assert disks.unescape(escaped) == text


QUOTA = """Disk quotas for user me (uid 1000):
     Filesystem   space   quota   limit   grace   files   quota   limit   grace
/home 1234* 1000 2000 1699999999 55 0 0 0
/data 10 0 0 0 1 0 0 0
"""


def test_quotas() -> None:
    assert disks.parse_quotas(QUOTA) == [
        {"path": "/home", "used": 1234 << 10, "quota": 1000 << 10, "limit": 2000 << 10, "exceeded": True}
    ]


@given(st.text())
def test_any_quota(text: str) -> None:
    disks.parse_quotas(text)


# -- host --------------------------------------------------------------------------------------------------


def test_host(tmp_path: Path) -> None:
    root = plant(
        tmp_path,
        {
            "etc/os-release": 'NAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
            "proc/uptime": "12553.60 24000.12\n",
            "proc/loadavg": "1.70 1.75 2.06 3/200 4711\n",
            "sys/class/dmi/id/sys_vendor": "Dell Inc.\n",
            "sys/class/dmi/id/product_name": "PowerEdge R750\n",
            "run/systemd/sessions/1": "UID=1000\nUSER=ada\nCLASS=user\nSTATE=active\n",
            "run/systemd/sessions/2": "UID=1000\nUSER=ada\nCLASS=user\nSTATE=online\n",
            "run/systemd/sessions/3": "USER=ada\nCLASS=manager\nSTATE=active\n",
            "run/systemd/sessions/4": "USER=bob\nCLASS=user\nSTATE=closing\n",
        },
    )
    found = next(iter(host.look(root)))
    assert found["host"]["distribution"] == "Debian GNU/Linux 12 (bookworm)"
    assert found["host"]["model"] == "Dell Inc. PowerEdge R750"
    assert found["host"]["name"] == os.uname().nodename
    assert (found["uptime"], found["load"]) == (12553.6, [1.7, 1.75, 2.06])
    assert found["users"] == [{"name": "ada", "sessions": 2}]


def test_a_board_s_model(tmp_path: Path) -> None:
    root = plant(tmp_path, {"proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0"})
    assert host.model(root) == "Raspberry Pi 4 Model B Rev 1.4"


@pytest.mark.parametrize(
    ("packed", "size"), [("=h2xi32s4s32s256s2h3i16s20x", 384), ("=h2xi32s4s32s256s2h3q16s24x", 400)]
)
def test_who_is_logged_in_by_utmp(tmp_path: Path, packed: str, size: int) -> None:
    """struct utmp of <bits/utmp.h>, with 32-bit and with 64-bit times."""
    record = struct.Struct(packed)
    assert record.size == size

    def one(kind: int, user: bytes) -> bytes:
        return record.pack(kind, 1, b"pts/0", b"0", user, b"there", 0, 0, 1, 2, 3, b"")

    (tmp_path / "run").mkdir()
    (tmp_path / "run/utmp").write_bytes(one(2, b"reboot") + one(7, b"ada") + one(8, b"bob") + one(7, b"ada"))
    assert host.users(str(tmp_path)) == [{"name": "ada", "sessions": 2}]


@given(st.binary(max_size=2000))
def test_any_utmp(data: bytes) -> None:
    host.utmp_users(data)


@given(st.text())
def test_any_text_about_the_host(text: str) -> None:
    host.distribution(text)
    host.uptime(text)
    assert len(host.load(text)) in (0, 3)


# -- CUDA --------------------------------------------------------------------------------------------------


def test_toolkits_and_cudnn(tmp_path: Path) -> None:
    root = plant(
        tmp_path,
        {
            "usr/local/cuda-12.4/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.4.1"}}',
            "usr/local/cuda-10.1/version.txt": "CUDA Version 10.1.243\n",
            "usr/lib/cuda/include/cuda.h": "#define CUDA_VERSION 11080\n",
            "usr/local/cuda-broken/version.json": "[]",
            "usr/include/x86_64-linux-gnu/cudnn_version.h": "#define CUDNN_MAJOR 9\n#define CUDNN_MINOR 1\n#define CUDNN_PATCHLEVEL 0\n",
            "usr/lib/x86_64-linux-gnu/libcudnn.so.8.9.7": "",
            "usr/lib/x86_64-linux-gnu/libcudnn.so.9.1.0": "",
        },
        {"usr/local/cuda": "cuda-12.4"},
    )
    (found,) = cuda.look(root, {"CUDA_HOME": "/usr/local/cuda"})
    assert found["cuda"]["toolkits"] == [
        {"path": "/usr/local/cuda", "version": "12.4.1"},
        {"path": "/usr/local/cuda-10.1", "version": "10.1.243"},
        {"path": "/usr/lib/cuda", "version": "11.8"},
    ]
    assert found["cuda"]["cudnn"] == [
        {"path": "/usr/lib/x86_64-linux-gnu", "version": "8.9.7"},
        {"path": "/usr/include/x86_64-linux-gnu", "version": "9.1.0"},
    ]


@given(st.text())
def test_any_header(text: str) -> None:
    version = cuda.cudnn_version(text)
    assert version is None or version.count(".") == 2


@given(st.text(), st.text())
def test_small_things(text: str, separator: str) -> None:
    files.number(text)
    files.decimal(text)
    files.json_object(text)
    files.pairs(text, separator or ":")
