"""firstrun.sh and prepare.sh, run as root in this machine's Debian under a layer: what they make of it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from farkernel.device_images.raspberrypi.boot import MountedBoot
from farkernel.device_images.raspberrypi.card import Card, Kernel, Release
from farkernel.device_images.raspberrypi.furnishing import furnish
from tests.device_images.raspberrypi.cards import HOSTILE, KEY, PRIVATE, hostile, usual
from tests.sites.overlay_root import OverlayRoot
from tests.sites.pi_image import BOOKWORM, CMDLINE
from tests.sites.wheels import little_wheel, pip_wheel

FSTAB = "PARTUUID=4c4e106f-01  /boot/firmware  vfat    defaults          0       2\n"
HOSTS = "127.0.0.1\tlocalhost\n127.0.1.1\traspberrypi\n"
LESSON = Kernel("class", ("ipykernel",), HOSTILE)

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def root(tmp_path: Path) -> OverlayRoot:
    root = OverlayRoot(tmp_path / "pi", {"/etc/fstab": FSTAB, "/etc/hosts": HOSTS})
    for name, data in BOOKWORM.items():
        (root.boot / name).write_bytes(data)
    return root


@pytest.fixture
def wheels(tmp_path: Path) -> list[Path]:
    """An ipykernel of one line, and pip's own: the tests fetch nothing."""
    return [little_wheel(tmp_path, "ipykernel", "ipykernel_launcher.py", "print('a kernel')\n"), pip_wheel()]


def put(root: OverlayRoot, card: Card, wheels: list[Path]) -> None:
    assert furnish(MountedBoot(root.boot), card, wheels, None).release is Release.FIRST_RUN


def record(root: OverlayRoot, name: str, database: str = "/etc/passwd") -> list[str]:
    return next(line.split(":") for line in root.read(database).splitlines() if line.startswith(f"{name}:"))


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_a_usual_card(root: OverlayRoot, shell: str) -> None:
    card = replace(usual(), kernel=None)
    put(root, card, [])
    ended = root.run(shell, "/boot/firmware/firstrun.sh")
    assert ended.returncode == 0, ended.stderr + root.read("/var/log/farkernel-firstrun.log")
    assert root.read("/etc/hostname") == "pi01\n"
    assert root.read("/etc/hosts") == "127.0.0.1\tlocalhost\n127.0.1.1\tpi01\n"
    account = record(root, "ada")
    assert (account[4], account[5], account[6]) == ("Ada Lovelace", "/home/ada", "/bin/bash")
    assert record(root, "ada", "/etc/shadow")[1] == card.password
    assert "ada" in record(root, "dialout", "/etc/group")[3].split(",")
    keys = root.after / "home/ada/.ssh/authorized_keys"
    assert keys.read_text() == f"{KEY}\n"
    assert (keys.stat().st_uid, root.mode("/home/ada/.ssh/authorized_keys")) == (int(account[2]), 0o600)
    assert root.mode("/home/ada/.ssh") == 0o700
    assert root.read("/etc/ssh/sshd_config.d/10-farkernel.conf") == "PasswordAuthentication no\n"
    assert root.read("/etc/ssh/ssh_host_ed25519_key") == PRIVATE
    assert root.mode("/etc/ssh/ssh_host_ed25519_key") == 0o600
    assert root.read("/etc/sudoers.d/010_farkernel") == "ada ALL=(ALL) NOPASSWD:ALL\n"
    assert root.mode("/etc/sudoers.d/010_farkernel") == 0o440
    connection = root.read("/etc/NetworkManager/system-connections/farkernel.nmconnection")
    assert root.mode("/etc/NetworkManager/system-connections/farkernel.nmconnection") == 0o600
    assert f"ssid={''.join(f'{octet};' for octet in b'School')}\n" in connection
    assert card.wifi is not None
    assert f"psk={card.wifi.key}\n" in connection
    assert root.read("/etc/default/locale") == "LANG=de_DE.UTF-8\n"
    assert 'XKBLAYOUT="de"\n' in root.read("/etc/default/keyboard")
    assert root.read("/etc/fstab") == FSTAB.replace("defaults", "defaults,umask=0077")
    # What was for the first start alone is gone, and the next one is an ordinary one.
    assert not (root.boot / "firstrun.sh").exists()
    assert (root.boot / "cmdline.txt").read_text() == CMDLINE.strip() + " cfg80211.ieee80211_regdom=DE\n"


def check_the_kernel(root: OverlayRoot) -> None:
    """For every user, and without a network."""
    spec = json.loads(root.read("/usr/local/share/jupyter/kernels/class/kernel.json"))
    assert spec["display_name"] == HOSTILE
    assert spec["argv"][0] == "/opt/farkernel/class/bin/python"
    assert spec["argv"][1:] == ["-m", "ipykernel_launcher", "-f", "{connection_file}"]
    assert root.mode("/usr/local/share/jupyter/kernels/class/kernel.json") == 0o644
    python = root.after / "opt/farkernel/class/bin/python"
    (site,) = (root.after / "opt/farkernel/class/lib").glob("python3*/site-packages")
    assert python.is_symlink()
    ran = subprocess.run(
        ["/usr/bin/python3", "-m", "ipykernel_launcher"], cwd=site, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "a kernel\n"


def test_the_environment_is_made_and_only_once(root: OverlayRoot, wheels: list[Path]) -> None:
    """firstrun.sh starts it; and what went wrong is said, and mended by the next try."""
    put(root, replace(usual(), kernel=LESSON), wheels[1:])
    place = "/boot/firmware/farkernel"
    later = root.boot / "later"
    later.mkdir()
    (later / wheels[0].name).write_bytes(wheels[0].read_bytes())
    steps = f"sh /boot/firmware/firstrun.sh; mv /boot/firmware/later/* {place}/wheels/"
    ended = root.run("sh", "-c", f"{steps}; sh {place}/prepare.sh; echo $?; sh {place}/prepare.sh; echo $?")
    log = root.read("/var/log/farkernel-prepare.log")
    assert ended.stdout.split() == ["0", "0"], log
    assert "No matching distribution found for ipykernel" in log
    assert log.count("/opt/farkernel/class is ready") == 1
    check_the_kernel(root)


def test_hostile_texts_run_nothing(root: OverlayRoot) -> None:
    put(root, replace(hostile(), kernel=None), [])
    ended = root.run("dash", "/boot/firmware/firstrun.sh")
    assert ended.returncode == 0, ended.stderr
    assert not (root.after / "pwned").exists()
    assert root.read("/home/bob/.ssh/authorized_keys") == f"{KEY} {HOSTILE}\n"
    assert record(root, "bob", "/etc/shadow")[1] == "*"
    assert not (root.after / "etc/sudoers.d/010_farkernel").exists()
    connection = root.read("/etc/NetworkManager/system-connections/farkernel.nmconnection")
    assert f"ssid={''.join(f'{octet};' for octet in HOSTILE[:20].encode())}\nhidden=true\n" in connection
    assert "psk" not in connection


RECORDER = (
    '#!/bin/sh\nfor word in "$@"; do printf "<%s>" "$word"; done >>/var/log/asked\necho >>/var/log/asked\n'
)


def test_the_images_own_tools_are_used(tmp_path: Path) -> None:
    root = OverlayRoot(
        tmp_path / "pi",
        {
            "/usr/lib/raspberrypi-sys-mods/imager_custom": RECORDER,
            "/usr/lib/userconf-pi/userconf": RECORDER,
            "/etc/fstab": FSTAB,
        },
    )
    for name, data in BOOKWORM.items():
        (root.boot / name).write_bytes(data)
    card = replace(usual(), kernel=None)
    put(root, card, [])
    assert root.run("dash", "/boot/firmware/firstrun.sh").returncode == 0
    assert card.wifi is not None
    assert root.read("/var/log/asked").splitlines() == [
        "<set_hostname><pi01>",
        f"<ada><{card.password}>",
        f"<set_wlan><School><{card.wifi.key}><DE>",
    ]
