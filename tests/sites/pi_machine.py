"""Raspberry Pis without hardware: whole arm64 machines in QEMU that start from a card's image.

The card has what Raspberry Pi OS's has: a FAT partition that cloud-init reads, and a root file system of Debian trixie for
arm64 with cloud-init, netplan and sshd.  Where a Pi's firmware would load its kernel, QEMU does; the first process is a
script of ours in systemd's place, which runs cloud-init's four stages one after the other; and the device tree's model, a
thermal zone and `vcgencmd` say "Raspberry Pi".  No package is configured, so nothing is emulated while it is made.
"""

from __future__ import annotations

import lzma
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from .debian_mirror import mirror
from .micropython_build import cache, locked
from .pi_image import SECTOR, START, TRIXIE, partition_table, write
from .ssh import free_port

_VERSION = 1  # of what is kept in the cache
_PACKAGES = (
    *("base-files", "base-passwd", "bash", "busybox-static", "cloud-init", "coreutils", "dash", "findutils", "grep"),
    *("hostname", "iproute2", "kmod", "libc-bin", "libpam-modules", "libpam-runtime", "login", "mawk", "mount"),
    *("netplan.io", "openssh-server", "passwd", "procps", "python3", "sed", "sudo", "util-linux", "linux-image-arm64"),
)  # fmt: skip
_MODULES = ("virtio_blk", "virtio_net", "ext4", "vfat", "nls_cp437", "nls_ascii", "nls_utf8")
_BOOT_SECTORS = 512 * 2048  # as Raspberry Pi OS has it
_ROOT_SECTORS = 900 * 2048
READY = b"the pi is ready"

_INITRD_INIT = """\
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
for module in $($b cat /modules/order); do $b insmod /modules/$module; done
while [ ! -e /dev/vda2 ]; do $b usleep 10000; done
$b mount -t ext4 /dev/vda2 /root
$b umount /proc
exec $b switch_root /root /sbin/pi-init
"""

_PI_INIT = f"""\
#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for place in /run /tmp /dev/shm; do mount -t tmpfs -o mode=1777 tmp $place; done
mkdir -p /run/sshd /run/pi/thermal/thermal_zone0 /boot/firmware
chmod 755 /run/sshd
printf 'Raspberry Pi 4 Model B Rev 1.5\\0' >/run/pi/model
echo 52100 >/run/pi/thermal/thermal_zone0/temp
mount --bind /run/pi/model /sys/firmware/devicetree/base/model
mount --bind /run/pi/thermal /sys/class/thermal
ip link set lo up
ip link set eth0 up
ip address add 10.0.2.15/24 dev eth0
mount -t vfat -o umask=0022 /dev/vda1 /boot/firmware
for stage in "init --local" "init" "modules --mode=config" "modules --mode=final"; do
    echo "$(cut -d' ' -f1 /proc/uptime) cloud-init $stage" >/dev/ttyAMA0
    cloud-init $stage >>/var/log/stages.log 2>&1
done
grep -E 'WARN|ERROR|Traceback' /var/log/cloud-init.log >/dev/ttyAMA0
/usr/sbin/sshd -f /etc/ssh/sshd_pi
echo "$(cut -d' ' -f1 /proc/uptime) {READY.decode()}" >/dev/ttyAMA0
while :; do sleep 3600 & wait; done
"""

_CLOUD = """\
datasource_list: [NoCloud]
datasource:
  NoCloud:
    seedfrom: file:///boot/firmware/
disable_root: true
cloud_init_modules: [set_hostname, update_hostname, update_etc_hosts, users-groups, ssh]
cloud_config_modules: [runcmd]
cloud_final_modules: [scripts-user]
system_info:
  distro: debian
  network: {renderers: [netplan]}
  paths: {cloud_dir: /var/lib/cloud/, templates_dir: /etc/cloud/templates/}
"""

_SSHD = """\
Port 22
HostKey /etc/ssh/ssh_host_ed25519_key
UsePAM no
PasswordAuthentication no
AcceptEnv none
Subsystem sftp /usr/lib/openssh/sftp-server
"""


class Parts(NamedTuple):
    """What is made once and kept."""

    image: Path  # of a card, as it is downloaded
    kernel: Path
    initrd: Path
    wheels: Path


def parts() -> Parts:
    """Made if they are not there yet: a minute, half of it downloads."""
    place = cache() / f"pi-arm64-{_VERSION}"
    cache().mkdir(parents=True, exist_ok=True)
    with locked(cache() / "pi-arm64.lock"):
        if not place.exists():
            fresh = place.with_name(f"{place.name}-making")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            _make(fresh)
            fresh.rename(place)
    return Parts(place / "raspios.img", place / "vmlinuz", place / "initrd", place / "wheels")


def _make(place: Path) -> None:
    root = place / "root"
    command = ["mmdebstrap", "--mode=root", "--variant=extract", "--architectures=arm64"]
    command += [
        '--aptopt=APT::Install-Recommends "false"',
        f"--include={','.join(_PACKAGES)}",
        "trixie",
        str(root),
        mirror(),
    ]
    subprocess.run(command, check=True, capture_output=True, cwd="/")
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    shutil.copy(kernel, place / "vmlinuz")
    (place / "initrd").write_bytes(_initrd(root))
    _furnish(root)
    _make_image(place / "raspios.img", root)
    shutil.rmtree(root)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--only-binary=:all:",
        "--python-version",
        "3.13",
    ]
    platforms = ["manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"]
    pip += [word for platform in platforms for word in ("--platform", platform)]
    subprocess.run(
        [*pip, "--dest", str(place / "wheels"), "pip", "ipykernel"], check=True, capture_output=True
    )


def _furnish(root: Path) -> None:
    for name in (
        "usr/lib/modules",
        "usr/share/doc",
        "usr/share/locale",
        "usr/share/man",
        "boot",
        "var/cache/apt",
        "var/lib/apt",
    ):
        shutil.rmtree(root / name)
    for name in ("boot/firmware", "root", "home", "var/log", "etc/cloud/cloud.cfg.d"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("passwd", "group"):
        shutil.copy(root / f"usr/share/base-passwd/{name}.master", root / "etc" / name)
    with open(root / "etc/passwd", "a", encoding="ascii") as file:
        file.write("sshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n")
    accounts = [line.split(":")[0] for line in (root / "etc/passwd").read_text().splitlines()]
    (root / "etc/shadow").write_text("".join(f"{name}:*:19000:0:99999:7:::\n" for name in accounts))
    (root / "etc/shadow").chmod(0o600)
    (root / "etc/gshadow").write_text("")
    # What ca-certificates does when it is configured; requests, and so cloud-init, does not start without it.
    certificates = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    (root / "etc/ssl/certs").mkdir(parents=True, exist_ok=True)
    (root / "etc/ssl/certs/ca-certificates.crt").write_bytes(
        b"".join(path.read_bytes() for path in certificates)
    )
    for name in ("auth", "account", "password", "session", "session-noninteractive"):
        kind = name.split("-")[0]
        (root / f"etc/pam.d/common-{name}").write_text(f"{kind} required pam_permit.so\n")
    (root / "etc/fstab").write_text("/dev/vda1  /boot/firmware  vfat  defaults  0  2\n")
    (root / "etc/cloud/cloud.cfg").write_text(_CLOUD)
    (root / "etc/ssh/sshd_pi").write_text(_SSHD)
    for name, text in (("sbin/pi-init", _PI_INIT), ("usr/bin/vcgencmd", "#!/bin/sh\necho throttled=0x0\n")):
        (root / name).write_text(text)
        (root / name).chmod(0o755)


def _make_image(place: Path, root: Path) -> None:
    """A partition table, the FAT partition of Raspberry Pi OS, and the root."""
    with open(place, "wb") as image:
        image.truncate((START + _BOOT_SECTORS + _ROOT_SECTORS) * SECTOR)
    start = (START + _BOOT_SECTORS) * SECTOR
    extended = ["mke2fs", "-q", "-t", "ext4", "-E", f"offset={start},lazy_itable_init=1", "-d", str(root)]
    subprocess.run([*extended, str(place), f"{_ROOT_SECTORS // 2}k"], check=True, capture_output=True)
    # What lies before its offset mke2fs discards.
    with open(place, "r+b") as image:
        image.write(partition_table(_BOOT_SECTORS, _ROOT_SECTORS))
    fat = [
        "mkfs.vfat",
        "-F",
        "32",
        "-n",
        "bootfs",
        "--offset",
        str(START),
        str(place),
        str(_BOOT_SECTORS // 2),
    ]
    subprocess.run(fat, check=True, capture_output=True)
    for name, data in TRIXIE.items():
        write(place, name, data)


def _initrd(root: Path) -> bytes:
    files = {
        "bin/busybox": (0o755, (root / "usr/bin/busybox").read_bytes()),
        "init": (0o755, _INITRD_INIT.encode()),
    }
    order: list[str] = []
    found = {
        path.name.split(".")[0].replace("-", "_"): path for path in (root / "usr/lib/modules").rglob("*.ko*")
    }

    def add(name: str) -> None:
        path = found.get(name)
        if path is None or f"{name}.ko" in order:
            return
        data = lzma.decompress(path.read_bytes())
        needs = re.search(rb"\0depends=([^\0]*)\0", data)
        for other in needs[1].decode().split(",") if needs else ():
            add(other.replace("-", "_"))
        order.append(f"{name}.ko")
        files[f"modules/{name}.ko"] = (0o644, data)

    for name in (*_MODULES, "crc32c_generic", "crc32c"):
        add(name)
    files["modules/order"] = (0o644, "\n".join(order).encode())
    return _cpio(["bin", "dev", "modules", "proc", "root"], files)


def _cpio(folders: list[str], files: dict[str, tuple[int, bytes]]) -> bytes:
    """The "newc" format that Linux unpacks (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    out = b""
    rows = [(name, 0o040755, b"") for name in folders]
    rows += [(name, 0o100000 | mode, data) for name, (mode, data) in files.items()]
    for number, (name, mode, data) in enumerate([*rows, ("TRAILER!!!", 0, b"")], 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += head.ljust(-(-len(head) // 4) * 4, b"\0") + data.ljust(-(-len(data) // 4) * 4, b"\0")
    return out


class PiMachine:
    """One Pi; what is written there is lost when it is switched off."""

    def __init__(self, card: Path, place: Path, port: int | None = None) -> None:
        self.card = card
        self.port = port or free_port()
        self.console = place / f"{card.stem}.console"
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<PiMachine {self.card.name} port {self.port}>"

    def start(self) -> None:
        """Switch it on; it needs minutes until `ready`."""
        made = parts()
        # It gives way to the near end: what that has to do is not emulated, and has deadlines.
        command = ["nice", "-n", "10", "qemu-system-aarch64"]
        command += ["-M", "virt", "-cpu", "cortex-a53", "-smp", "1", "-m", "512"]
        command += ["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot", "-snapshot"]
        command += [
            "-kernel",
            str(made.kernel),
            "-initrd",
            str(made.initrd),
            "-append",
            "console=ttyAMA0 quiet panic=-1",
        ]
        command += [
            "-drive",
            f"file={self.card},if=virtio,format=raw",
            "-device",
            "virtio-net-pci,netdev=n,romfile=",
        ]
        command += ["-netdev", f"user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22"]
        with open(self.console, "wb") as console:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=console
            )

    def ready(self) -> bool:
        text = self.console.read_bytes()
        if self._process is not None and self._process.poll() is not None:
            raise AssertionError(f"{self!r} has ended: {text[-3000:].decode('utf-8', 'replace')}")
        return READY in text

    def wait(self, deadline: float) -> None:
        end = time.monotonic() + deadline
        while not self.ready():
            if time.monotonic() > end:
                raise AssertionError(
                    f"{self!r} is not ready after {deadline:.0f} s: {self.console.read_text('utf-8', 'replace')[-3000:]}"
                )
            time.sleep(0.5)

    def power_off(self) -> None:
        """As when somebody pulls the plug."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
