"""`farkernel board flash`: the real esptool on a board in its boot ROM, and everything that is said on the way."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from farkernel.device_images.flashing import Step
from farkernel.launcher.cli import main
from farkernel.launcher.cli.board_flash import Display
from tests.device_images.samples import esp8266_firmware, rp2_firmware
from tests.sites.esp8266_rom import Esp8266Rom, Faults, on_pty

Captured = pytest.CaptureFixture[str]
FIRMWARE = esp8266_firmware(0x20000)

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "fw.bin"
    path.write_bytes(FIRMWARE)
    return str(path)


@pytest.mark.servers
def test_a_device(file: str, capsys: Captured) -> None:
    rom = Esp8266Rom()
    with on_pty(rom) as port:
        assert main(["board", "flash", port, file]) == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(
        rf"128 KiB are on the esp8266 at {port} \(5c:cf:7f:56:78:12\), compared after writing, in \d+ s; the board starts\.\n",
        out,
    )
    assert err.splitlines()[0] == "looking for the board"
    assert "writing to esp8266, 5c:cf:7f:56:78:12 0 %" in err
    assert "writing 100 %" in err
    assert err.splitlines()[-1] == "comparing what was written"
    assert rom.flash[4 : len(FIRMWARE)] == FIRMWARE[4:]


@pytest.mark.servers
def test_a_target_as_json(file: str, capsys: Captured) -> None:
    with on_pty(Esp8266Rom()) as port:
        assert main(["add", "pupil7", f"serial://{port}"]) == 0
        capsys.readouterr()
        assert main(["board", "flash", "pupil7", file, "--json", "--baud", "115200"]) == 0
        assert main(["board", "flash", f"serial://{port}", file]) == 0
    found = json.loads(capsys.readouterr().out.partition("\n}")[0] + "}")
    assert (found["port"], found["chip"], found["verified"], found["bytes"]) == (
        port,
        "esp8266",
        True,
        len(FIRMWARE),
    )


@pytest.mark.servers
@pytest.mark.parametrize(
    ("faults", "words"),
    [
        (Faults(refuse_block=1), "refused to write"),
        (
            Faults(wrong_md5=True),
            "is not what was sent. What is on the board now is incomplete: flash it again",
        ),
    ],
)
def test_failures(file: str, capsys: Captured, faults: Faults, words: str) -> None:
    with on_pty(Esp8266Rom(faults=faults)) as port:
        assert main(["board", "flash", port, file]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("farkernel: ")
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("nowhere", "there is no target 'nowhere' in the configuration"),
        ("lab", "'lab' (local:) is not a board on a cable. Name a device like /dev/ttyUSB0"),
        ("net", "'net' (webrepl://lamp) is not a board on a cable. Name a device like /dev/ttyUSB0"),
        ("serial:///usb/ffff:ffff", "no board at serial:///usb/ffff:ffff"),
        ("serial:/dev/ttyUSB0", "'//' is missing after the colon"),
        ("/dev/ttyNONE9", "no board at /dev/ttyNONE9"),
    ],
)
def test_where_no_board_is(file: str, capsys: Captured, where: str, words: str) -> None:
    main(["add", "lab", "local:"])
    main(["add", "net", "webrepl://lamp"])
    assert main(["board", "flash", where, file]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["/dev/null", "none.bin"], "'none.bin' cannot be read"),
        (["/dev/null", "/etc/passwd"], "esptool cannot flash this file"),
        (["/dev/null", "FILE", "--baud", "7"], "7 is no speed for a serial line"),
    ],
)
def test_wrong_files_and_speeds(file: str, capsys: Captured, arguments: list[str], words: str) -> None:
    assert main(["board", "flash", *(file if word == "FILE" else word for word in arguments)]) == 1
    assert words in capsys.readouterr().err


def test_a_bad_copy_of_a_known_firmware(tmp_path: Path, capsys: Captured) -> None:
    place = tmp_path / "firmware-microbit-micropython"
    place.mkdir()
    (place / "firmware.hex").write_text(":00000001FF\n")
    assert main(["board", "flash", str(tmp_path), str(place / "firmware.hex")]) == 1
    assert (
        "has 12 bytes, and MicroPython for the micro:bit, Debian 12 1.0.1 has 670788"
        in capsys.readouterr().err
    )


def test_a_drive(tmp_path: Path, capsys: Captured) -> None:
    drive = tmp_path / "RPI-RP2"
    drive.mkdir()
    (drive / "INFO_UF2.TXT").write_text("UF2 Bootloader v3.0\n")
    (tmp_path / "fw.uf2").write_bytes(rp2_firmware())
    assert main(["board", "flash", str(drive), str(tmp_path / "fw.uf2")]) == 0
    assert capsys.readouterr().out.startswith("16.0 KiB were copied to the board's drive")
    assert main(["board", "flash", str(drive), str(tmp_path / "fw.uf2"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == "firmware.uf2"


@pytest.mark.parametrize(
    "arguments", [["board"], ["board", "paint"], ["board", "flash"], ["board", "flash", "/dev/null"]]
)
def test_wrong_usage(arguments: list[str], capsys: Captured) -> None:
    assert main(arguments) == 2
    assert "farkernel: " in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_is_one_line() -> None:
    stream = Terminal()
    display = Display(stream)
    for percent in range(0, 101, 5):
        display.show(Step("writing", percent))
    display.clear()
    assert "\n" not in stream.getvalue()
    assert "\rwriting 55 %\x1b[K" in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_progress_elsewhere_is_a_line_for_each_tenth() -> None:
    stream = io.StringIO()
    display = Display(stream)
    display.show(Step("looking for the board"))
    for percent in range(0, 101, 3):
        display.show(Step("writing", percent))
    display.clear()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "looking for the board"
    assert len(lines) == 11
    assert display.writing
