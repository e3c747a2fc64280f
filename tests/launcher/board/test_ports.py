"""Finding boards in sysfs (a tree of the test's own), and holding them."""

from __future__ import annotations

import grp
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from farkernel.launcher.agent import holds
from farkernel.launcher.board import ports
from farkernel.launcher.board.contract import BoardPort
from farkernel.launcher.board.errors import BoardBusy, BoardGone
from farkernel.launcher.board.holding import Hold, current_holder, lock_file
from farkernel.launcher.board.ports import SeveralBoards, list_ports, locate


class Machine:
    """/sys/class/tty and /dev of a machine with serial devices."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.sysfs, self.dev = root / "sys", root / "dev"
        self.sysfs.mkdir()
        self.dev.mkdir()
        patch.setattr(ports, "SYSFS", self.sysfs)
        patch.setattr(ports, "DEVICES", self.dev)
        patch.setattr(ports, "BY_ID", self.dev / "by-id")

    def usb(self, name: str, vendor: str, product: str, serial: str = "", title: str = "") -> None:
        device = self.root / "devices" / f"usb-{name}"
        interface = device / "1-1:1.0" / name
        interface.mkdir(parents=True)
        values = {"idVendor": vendor, "idProduct": product, "serial": serial, "product": title}
        for key, value in values.items():
            if value:
                (device / key).write_text(f"{value}\n")
        self._tty(name, interface)

    def uart(self, name: str, kind: str) -> None:
        device = self.root / "devices" / name
        device.mkdir(parents=True)
        self._tty(name, device)
        (self.sysfs / name / "type").write_text(f"{kind}\n")

    def _tty(self, name: str, device: Path) -> None:
        (self.sysfs / name).mkdir()
        (self.sysfs / name / "device").symlink_to(device)
        (self.dev / name).touch()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_ports_of_a_machine(machine: Machine) -> None:
    machine.uart("ttyAMA0", "32")
    machine.uart("ttyS0", "4")
    machine.uart("ttyS1", "0")  # not there
    machine.usb("ttyUSB0", "1a86", "7523", title="USB Serial")
    machine.usb("ttyACM0", "2e8a", "0005", "e6614103e7 1", "Board in FS mode")
    (machine.sysfs / "tty1").mkdir()
    (machine.dev / "by-id").mkdir()
    (machine.dev / "by-id" / "usb-MicroPython").symlink_to(machine.dev / "ttyACM0")
    found = list_ports()
    assert [os.path.basename(port.device) for port in found] == ["ttyACM0", "ttyUSB0", "ttyAMA0", "ttyS0"]
    assert found[0] == BoardPort(
        device=str(machine.dev / "ttyACM0"),
        description="Board in FS mode",
        vendor=0x2E8A,
        product=5,
        serial="e6614103e7 1",
        by_id=str(machine.dev / "by-id" / "usb-MicroPython"),
        address="serial:///usb/2e8a:0005/e6614103e7_1",
        kind="Raspberry Pi RP2 with MicroPython",
    )
    assert found[1].kind.startswith("CH340")
    assert found[1].address == f"serial://{machine.dev}/ttyUSB0"
    assert found[2].vendor is None


def test_by_vendor_product_and_serial_number(machine: Machine) -> None:
    machine.usb("ttyACM0", "2e8a", "0005", "one")
    machine.usb("ttyACM1", "2e8a", "0005", "two/2")
    machine.usb("ttyUSB0", "10c4", "ea60")
    assert locate("/usb/2e8a:5/one") == str(machine.dev / "ttyACM0")
    assert locate("/usb/2E8A:0005/two_2") == str(machine.dev / "ttyACM1")
    assert locate("/usb/10c4:ea60") == str(machine.dev / "ttyUSB0")
    assert locate("/dev/ttyUSB7") == "/dev/ttyUSB7"
    with pytest.raises(BoardGone, match="no board at serial:///usb/2e8a:0005/three"):
        locate("/usb/2e8a:0005/three")
    with pytest.raises(SeveralBoards) as caught:
        locate("/usb/2e8a:0005")
    assert caught.value.what.startswith("2 boards fit serial:///usb/2e8a:0005: ")
    assert "as in serial:///usb/2e8a:0005/one" in caught.value.advice


def test_no_serial_devices_at_all(machine: Machine) -> None:
    machine.sysfs.rmdir()
    assert list_ports() == []


# -- one owner at a time ---------------------------------------------------------------------------


@pytest.fixture
def device() -> Iterator[str]:
    master, slave = pty.openpty()
    yield os.ttyname(slave)
    os.close(master)
    os.close(slave)


HOLDER = "import sys; from farkernel.launcher.board.holding import Hold; h = Hold.take(sys.argv[1], 'a kernel of Ada'); print('held', flush=True); sys.stdin.read()"


def hold_elsewhere(device: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, device], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_who_holds_it(device: str) -> None:
    process = hold_elsewhere(device)
    try:
        with pytest.raises(BoardBusy) as caught:
            Hold.take(device)
        assert caught.value.what == f"{device} is in use by a kernel of Ada (process {process.pid})"
        assert "One program at a time" in caught.value.advice
        assert current_holder(device) == f"a kernel of Ada (process {process.pid})"
        content = Path(lock_file(device)).read_text()
        assert content == f"{process.pid:10d}\na kernel of Ada\n"
    finally:
        end(process)
    Hold.take(device).release()  # it was killed: its file holds nothing


def test_released_is_free(device: str) -> None:
    hold = Hold.take(device)
    with pytest.raises(BoardBusy):
        Hold.take(device)
    hold.release()
    hold.release()
    assert not Path(lock_file(device)).exists()
    Hold.take(device).release()


def test_a_terminal_program_that_knows_only_the_old_convention(device: str) -> None:
    program = "print('here', flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        Path(lock_file(device)).write_text(f"{process.pid:10d}\n")
        with pytest.raises(BoardBusy, match=rf"in use by python\S* -c print.* \(process {process.pid} of "):
            Hold.take(device)
    finally:
        end(process)
    Hold.take(device).release()


@pytest.mark.parametrize("content", ["", "\n", "no number\n", "99999999999\n", "\0\0\0\0"])
def test_a_stale_or_strange_lock_file(device: str, content: str) -> None:
    Path(lock_file(device)).write_text(content)
    Hold.take(device).release()


def test_a_link_in_its_place_is_not_followed(device: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    lock = Path(lock_file(device))
    lock.symlink_to(victim)
    try:
        with pytest.raises(BoardBusy):
            Hold.take(device)
        assert victim.read_text() == "precious"
    finally:
        lock.unlink()


def test_no_device_no_hold(tmp_path: Path) -> None:
    with pytest.raises(BoardGone):
        Hold.take(str(tmp_path / "ttyUSB0"))


def test_without_a_shared_place(device: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(holds, "_SHARED", str(tmp_path / "none"))
    hold = Hold.take(device)
    assert os.environ["FARKERNEL_RUN_DIR"] in hold.path
    hold.release()


def test_whoever_has_it_open_is_found(device: str) -> None:
    descriptor = os.open(device, os.O_RDONLY | os.O_NOCTTY)
    try:
        assert holds.holder_of(device) == ""  # nobody but ourselves
        with subprocess.Popen(["sleep", "60"], stdin=descriptor) as process:
            found = re.escape(f"sleep 60 (process {process.pid} of ")
            assert re.fullmatch(rf"{found}\w+\)", holds.holder_of(device))
            assert current_holder(device) == holds.holder_of(device)
            process.kill()
    finally:
        os.close(descriptor)
    assert holds.holder_of("/dev/none-of-that-name") == ""


def test_the_group(tmp_path: Path) -> None:
    (tmp_path / "device").touch()
    (tmp_path / "device").chmod(0o660)
    assert holds.group_of(str(tmp_path / "device")) == grp.getgrgid(tmp_path.stat().st_gid).gr_name
    (tmp_path / "own").touch(0o600)
    assert holds.group_of(str(tmp_path / "own")) == ""  # the group would not help
    assert holds.group_of(str(tmp_path / "none")) == ""
