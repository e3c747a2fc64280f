"""What the system says about a device: which group owns it, who has it open."""

from __future__ import annotations

import grp
import os
import subprocess
import sys
from pathlib import Path

from farkernel.device_images.serial_device import checked, group_of, holder_of


def test_a_device_by_its_link(tmp_path: Path) -> None:
    (tmp_path / "board").symlink_to("/dev/null")
    assert checked(str(tmp_path / "board")) == str(tmp_path / "board")
    assert checked("rfc2217://pi7.local:4000") == "rfc2217://pi7.local:4000"
    assert checked("rfc2217://[::1]:4000") == "rfc2217://[::1]:4000"


def test_the_group(tmp_path: Path) -> None:
    assert group_of(str(tmp_path)) == grp.getgrgid(tmp_path.stat().st_gid).gr_name
    assert group_of(str(tmp_path / "none")) == ""


def test_the_holder() -> None:
    master, slave = os.openpty()
    device = os.ttyname(slave)
    try:
        assert holder_of(device) == ""  # nobody but ourselves
        command = [
            sys.executable,
            "-c",
            "import sys; open(sys.argv[1]); f = open(sys.argv[1]); print(); sys.stdin.read()",
        ]
        with subprocess.Popen(
            [*command, device], stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            assert holder_of(device).endswith(f", process {process.pid}")
            assert "python" in holder_of(device)
    finally:
        os.close(master)
        os.close(slave)
    assert holder_of("/dev/none-of-that-name") == ""
