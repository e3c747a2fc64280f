"""AMD, Intel, Jetson, Raspberry Pi, boards: from trees as their drivers make them (sources beside each)."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.agent.probe import graphics, jetson, raspberrypi, serials
from tests.launcher.agent.probe.trees import plant

# -- AMD and Intel (docs.kernel.org/gpu/amdgpu: driver-misc, thermal) ----------------------------------------

CARDS = {
    "sys/devices/pci0000:00/0000:03:00.0/vendor": "0x1002\n",
    "sys/devices/pci0000:00/0000:03:00.0/device": "0x740f\n",
    "sys/devices/pci0000:00/0000:03:00.0/unique_id": "18f68e602b8a790f\n",
    "sys/devices/pci0000:00/0000:03:00.0/mem_info_vram_total": "68702699520\n",
    "sys/devices/pci0000:00/0000:03:00.0/mem_info_vram_used": "10960896\n",
    "sys/devices/pci0000:00/0000:03:00.0/gpu_busy_percent": "42\n",
    "sys/devices/pci0000:00/0000:03:00.0/hwmon/hwmon4/temp1_input": "36000\n",
    "sys/devices/pci0000:00/0000:03:00.0/hwmon/hwmon4/power1_average": "41000000\n",
    "sys/devices/pci0000:00/0000:00:02.0/vendor": "0x8086\n",
    "sys/devices/pci0000:00/0000:00:02.0/device": "0x9a49\n",
    "sys/devices/pci0000:00/0000:01:00.0/vendor": "0x10de\n",
    "sys/devices/pci0000:00/0000:01:00.0/device": "0x2330\n",
    "usr/share/misc/pci.ids": "# a comment\n1002  Advanced Micro Devices, Inc. [AMD/ATI]\n\t740c  Aldebaran/MI200\n"
    "\t740f  Aldebaran/MI200 [Instinct MI210]\n\t\t1002 0c34  board\n10de  NVIDIA Corporation\n\t740f  wrong\n",
}
LINKS = {
    "sys/class/drm/card0/device": "../../../devices/pci0000:00/0000:00:02.0",
    "sys/class/drm/card1/device": "../../../devices/pci0000:00/0000:03:00.0",
    "sys/class/drm/card1-DP-1/device": "../card1",
    "sys/class/drm/card2/device": "../../../devices/pci0000:00/0000:01:00.0",
    "sys/class/drm/renderD128/device": "../../../devices/pci0000:00/0000:03:00.0",
}


def test_amd_and_intel(tmp_path: Path) -> None:
    intel, amd = graphics.cards(plant(tmp_path, CARDS, LINKS))
    assert amd == {
        "vendor": "amd",
        "kind": "gpu",
        "name": "AMD Instinct MI210",
        "uuid": "GPU-18f68e602b8a790f",
        "pci": "0000:03:00.0",
        "index": 1,
        "memory_total": 68702699520,
        "memory_used": 10960896,
        "use": 0.42,
        "temperature": 36.0,
        "power": 41.0,
        "processes": None,
    }
    assert (intel["vendor"], intel["name"], intel["uuid"], intel["memory_total"]) == (
        "intel",
        "Intel GPU 9a49",
        None,
        None,
    )


def test_a_captured_one(tmp_path: Path) -> None:
    """Values of github.com/prometheus/procfs, sysfs/class_drm_amdgpu_test.go (its fixture is a captured tree)."""
    captured = {
        "vendor": "0x1002",
        "device": "0x67df",
        "gpu_busy_percent": "4",
        "mem_info_vram_total": "8573157376",
        "mem_info_vram_used": "1490378752",
        "mem_info_vram_vendor": "samsung",
        "unique_id": "0123456789abcdef",
    }
    root = plant(
        tmp_path, {f"sys/class/drm/card0/device/{name}": f"{text}\n" for name, text in captured.items()}
    )
    (card,) = graphics.cards(root)
    assert (card["use"], card["memory_total"], card["memory_used"]) == (0.04, 8573157376, 1490378752)
    assert (card["uuid"], card["name"]) == ("GPU-0123456789abcdef", "AMD GPU 67df")


@given(st.text(), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_any_list_of_ids(text: str, vendor: int, product: int) -> None:
    graphics.find_pci_name(text, vendor, product)
    graphics.unique(text)


# -- Jetson (the first line of /etc/nv_tegra_release as NVIDIA's forums quote it) --------------------------------


def test_jetson(tmp_path: Path) -> None:
    root = plant(
        tmp_path,
        {
            "proc/device-tree/model": "NVIDIA Orin NX Developer Kit\0",
            "etc/nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, "
            "DATE: Tue Aug  1 19:57:35 UTC 2023\n",
            "sys/devices/platform/17000000.ga10b/load": "375\n",
            "sys/class/thermal/thermal_zone0/type": "CPU-therm\n",
            "sys/class/thermal/thermal_zone0/temp": "40000\n",
            "sys/class/thermal/thermal_zone1/type": "GPU-therm\n",
            "sys/class/thermal/thermal_zone1/temp": "45500\n",
        },
    )
    (found,) = jetson.look(root)
    assert found["jetson"] == {"model": "NVIDIA Orin NX Developer Kit", "l4t": "35.4.1"}
    assert (found["gpus"][0]["use"], found["gpus"][0]["temperature"]) == (0.375, 45.5)


def test_no_jetson(tmp_path: Path) -> None:
    assert list(jetson.look(plant(tmp_path, {"proc/device-tree/model": "Raspberry Pi 5"}))) == []


@given(st.text())
def test_any_release(text: str) -> None:
    jetson.l4t(text)


# -- Raspberry Pi (docs of vcgencmd; <linux/gpio.h>) -------------------------------------------------------------

PI = {
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "proc/cpuinfo": "processor\t: 0\n\nRevision\t: d03114\n",
    "sys/class/thermal/thermal_zone0/temp": "52095\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
    "sys/bus/gpio/devices/gpiochip0/uevent": "",
    "sys/bus/gpio/devices/gpiochip1/uevent": "",
    "sys/class/video4linux/v4l-subdev0/name": "imx708_wide\n",
    "sys/class/video4linux/v4l-subdev1/name": "dw9807 10-000c\n",
    "sys/class/video4linux/video0/name": "unicam-image\n",
    "sys/class/video4linux/video1/name": "HD Webcam\n",
    "sys/class/video4linux/video2/name": "HD Webcam\n",
    "sys/devices/platform/usb1/1-1/1-1:1.0/x": "",
}
PI_LINKS = {
    "sys/class/video4linux/video1/device": "../../../devices/platform/usb1/1-1/1-1:1.0",
    "sys/class/video4linux/video2/device": "../../../devices/platform/usb1/1-1/1-1:1.0",
}


def test_raspberry_pi(tmp_path: Path) -> None:
    first, _, second = raspberrypi.look(plant(tmp_path, PI, PI_LINKS))
    assert first["raspberrypi"] == {
        "model": "Raspberry Pi 4 Model B Rev 1.4",
        "revision": "d03114",
        "temperature": 52.095,
        "gpio": [
            {"name": "gpiochip0", "label": None, "lines": None},
            {"name": "gpiochip1", "label": None, "lines": None},
        ],
        "cameras": [{"name": "imx708_wide", "kind": "csi"}, {"name": "HD Webcam", "kind": "usb"}],
    }
    assert second["raspberrypi"] == {
        "throttled": ["under-voltage", "throttled"],
        "throttled_before": ["under-voltage", "throttled"],
    }


def test_no_raspberry_pi(tmp_path: Path) -> None:
    assert list(raspberrypi.look(str(tmp_path))) == []


def test_a_gpio_chip_s_answer() -> None:
    data = struct.pack("=32s32sI", b"gpiochip0", b"pinctrl-bcm2711", 58)
    assert raspberrypi.chip_info("gpiochip0", data) == {
        "name": "gpiochip0",
        "label": "pinctrl-bcm2711",
        "lines": 58,
    }


@pytest.mark.parametrize(
    ("text", "word"), [("throttled=0x50005\n", 0x50005), ("throttled=0x0", 0), ("error=1", None), ("", None)]
)
def test_the_firmware_s_word(text: str, word: int | None) -> None:
    assert raspberrypi.throttled_word(text) == word


@given(st.integers(0, 1 << 32))
def test_any_word(word: int) -> None:
    found = raspberrypi.throttled(word)
    assert ("throttled" in found["throttled"]) == bool(word & 4)
    assert ("throttled" in found["throttled_before"]) == bool(word & 1 << 18)


# -- boards (the tree that usbserial and cdc_acm make) -----------------------------------------------------------

USB = {
    "sys/devices/pci0/usb1/1-2/idVendor": "10c4\n",
    "sys/devices/pci0/usb1/1-2/idProduct": "EA60\n",
    "sys/devices/pci0/usb1/1-2/serial": "0001\n",
    "sys/devices/pci0/usb1/1-2/manufacturer": "Silicon Labs\n",
    "sys/devices/pci0/usb1/1-2/product": "CP2102 USB to UART Bridge Controller\n",
    "sys/devices/pci0/usb1/1-2/1-2:1.0/ttyUSB0/port_number": "0\n",
    "sys/devices/pci0/usb1/1-3/idVendor": "2e8a\n",
    "sys/devices/pci0/usb1/1-3/idProduct": "0005\n",
    "sys/devices/pci0/usb1/1-3/1-3:1.0/uevent": "",
    "sys/devices/platform/serial8250/tty/ttyS0/uevent": "",
    "sys/class/tty/console/active": "tty0\n",
    "dev/ttyUSB0": "",
}
USB_LINKS = {
    "sys/class/tty/ttyUSB0/device": "../../../devices/pci0/usb1/1-2/1-2:1.0/ttyUSB0",
    "sys/class/tty/ttyACM0/device": "../../../devices/pci0/usb1/1-3/1-3:1.0",
    "sys/class/tty/ttyS0/device": "../../../devices/platform/serial8250",
    "sys/devices/pci0/usb1/1-2/1-2:1.0/ttyUSB0/driver": "../../../../../../bus/usb-serial/drivers/cp210x",
    "dev/serial/by-id/usb-Silicon_Labs_CP2102_0001-if00-port0": "../../ttyUSB0",
}


def test_boards(tmp_path: Path) -> None:
    acm, usb = serials.ports(plant(tmp_path, USB, USB_LINKS))
    assert usb == {
        "device": "/dev/ttyUSB0",
        "by_id": "/dev/serial/by-id/usb-Silicon_Labs_CP2102_0001-if00-port0",
        "vid": "10c4",
        "pid": "ea60",
        "serial": "0001",
        "manufacturer": "Silicon Labs",
        "product": "CP2102 USB to UART Bridge Controller",
        "driver": "cp210x",
        "usable": True,
        "holder": None,
    }
    assert (acm["device"], acm["vid"], acm["pid"], acm["by_id"], acm["usable"]) == (
        "/dev/ttyACM0",
        "2e8a",
        "0005",
        None,
        False,
    )


def test_no_boards(tmp_path: Path) -> None:
    assert list(serials.look(str(tmp_path))) == [{"boards": []}]
