"""`farkernel board list` and `farkernel resources`: boards at another machine, over SSH, and who holds them there.

The machine's /sys/class/tty is one of the test's own, in a mount namespace of its sshd.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from farkernel.launcher.agent import holds

from ..sites.engine import Engine, wait_until
from ..sites.ssh import Sshd

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]

DEVICE = "/dev/ttyFarkernelTest0"
USB = {
    "idVendor": "10c4",
    "idProduct": "ea60",
    "serial": "00 01",
    "product": "\x1b[31mCP2102",
    "manufacturer": "SL",
}
MOUNTED = 'mount --make-rprivate / && mount --bind "$0" /sys/class/tty && exec "$@"'


@pytest.fixture
def pi(engine: Engine, home: Path) -> Iterator[Sshd]:
    usb = home / "usb/1-1"
    (usb / "1-1:1.0").mkdir(parents=True)
    for name, text in USB.items():
        (usb / name).write_text(text)
    tty = home / "tty"
    (tty / os.path.basename(DEVICE)).mkdir(parents=True)
    (tty / os.path.basename(DEVICE) / "device").symlink_to(usb / "1-1:1.0")
    host = Sshd(home.parent / "sshd")
    host.before = ["unshare", "--mount", "sh", "-c", MOUNTED, str(tty)]
    with host:
        yield host
        engine.close()
        wait_until(lambda: not host.agents(), "the far agent to end", 15)


def farkernel(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "farkernel", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_boards_there(pi: Sshd) -> None:
    config = pi.write_client_config(f"HostKeyAlias [127.0.0.1]:{pi.port}")
    where = f"{pi.user}@127.0.0.1:{pi.port}"
    for name, address in (("lamp", f"serial://{where}{DEVICE}"), ("pi", f"ssh://{where}")):
        assert farkernel("add", name, address, "--set", f"ssh_config={config}").returncode == 0
    lock = Path(holds.lock_file(DEVICE))
    with subprocess.Popen(["sleep", "60"]) as holder:
        lock.write_text(f"{holder.pid:10d}\nthe notebook of Ada\n")
        try:
            listed = farkernel("board", "list", "--json")  # a target's board tells which machine is asked
            shown = farkernel("board", "list")
            named = farkernel("board", "list", "pi", "--json")
            resources = farkernel("resources", "lamp")
        finally:
            lock.unlink()
            holder.kill()
    assert listed.returncode == 0, listed.stderr
    (board,) = [row for row in json.loads(listed.stdout) if row["machine"]]
    held = f"the notebook of Ada (process {holder.pid})"
    assert (board["machine"], board["device"], board["vendor"], board["product"]) == (
        "lamp",
        DEVICE,
        0x10C4,
        0xEA60,
    )
    assert (board["address"], board["holder"]) == (f"serial://{where}/usb/10c4:ea60/00_01", held)
    assert board["kind"].startswith("CP210x")
    assert [row["machine"] for row in json.loads(named.stdout)] == ["pi"]
    assert "CP210x USB-serial chip" in shown.stdout
    assert f"{DEVICE}, SL CP2102, 10c4:ea60" in resources.stdout, resources.stderr
    assert f"in use by {held}" in " ".join(resources.stdout.split())
    assert "\x1b" not in resources.stdout + shown.stdout
    # What cannot be reached is said, and hides nothing else.
    pi.stop()
    farkernel("keeper", "restart")
    away = farkernel("board", "list", "lamp")
    assert away.returncode == 1
    assert away.stderr.startswith("farkernel: lamp: ")
    assert "Traceback" not in away.stderr
