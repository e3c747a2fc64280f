"""`farkernel image`: as a user runs it, real firmwares' formats, real tools."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from farkernel.device_images.file_system import read_files
from farkernel.launcher.cli import main
from tests.device_images.samples import esp8266_firmware, rp2_firmware

Captured = pytest.CaptureFixture[str]
DEBIAN = "/usr/share/firmware-microbit-micropython/firmware.hex"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lesson").mkdir()
    (tmp_path / "lesson" / "main.py").write_text("print(1)\n")
    (tmp_path / "lesson" / "sensor.py").write_text("x = 1\n")
    (tmp_path / "lesson" / ".hidden").write_text("")
    (tmp_path / "fw.bin").write_bytes(esp8266_firmware())
    return tmp_path


def image(*more: str) -> int:
    return main(["image", "esp8266", "lesson", "--firmware", "fw.bin", "-o", "out.bin", *more])


def test_an_image(place: Path, capsys: Captured) -> None:
    assert image() == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out == (
        "MicroPython 1.25.0 for esp8266 (not in the list of known firmwares; whole by its own MD5).\n"
        "Left out: .hidden.\n"
        "2 files in 8.0 KiB of 3.0 MiB from 0x100000 on.\n"
        "Made out.bin (1.0 MiB). Next: farkernel board flash DEVICE out.bin\n"
    )
    data = (place / "out.bin").read_bytes()
    assert sorted(read_files(data[0x100000:], 0x2FB)) == ["main.py", "sensor.mpy"]
    assert (place / "out.bin").stat().st_mode == (place / "fw.bin").stat().st_mode
    assert sorted(path.name for path in place.iterdir()) == ["fw.bin", "lesson", "out.bin"]


def test_json(place: Path, capsys: Captured) -> None:
    assert image("--json", "--flash-size", "2M", "--no-compile") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["files"] == {"main.py": 9, "sensor.py": 6}
    assert found["region"] == [0x100000, 0xFB000]
    assert (found["chip"], found["version"], found["flash_size"]) == ("esp8266", "1.25.0", 2 << 20)
    assert found["bytes"] == (place / "out.bin").stat().st_size


def test_rp2040(place: Path, capsys: Captured) -> None:
    Path("fw.uf2").write_bytes(rp2_firmware())
    assert main(["image", "rp2040", "lesson", "--firmware", "fw.uf2", "-o", "out.uf2"]) == 0
    assert "copy out.uf2 to the board's drive" in capsys.readouterr().out


def test_microbit_with_debians_firmware(place: Path, capsys: Captured) -> None:
    (place / "lesson" / "sensor.py").unlink()
    assert main(["image", "microbit", "lesson", "-o", "out.hex"]) == 0
    assert capsys.readouterr().out.startswith(
        "MicroPython 1.0.1 for nrf51822 (known: MicroPython for the micro:bit"
    )


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (["--flash-size", "big"], "'big' cannot be understood after --flash-size. Write it like 4M"),
        (["--flash-size", "3M"], "esp8266 knows no flash of 3145728 bytes"),
        (["--flash-size", "512K"], "the flash has only 512K"),
        (["--region", "1M"], "'1M' cannot be understood after --region"),
        (["--region", "x:1M"], "'x' cannot be understood after --region"),
        (["--region", "0x100000:4M"], "the files' place ends at"),
        (["--manifest", "none.toml"], "'none.toml' cannot be read"),
        (["-o", "lesson/out.bin"], "it would lie in the folder that it is made from"),
        (["-o", "fw.bin"], "it is the firmware itself"),
        (["-o", "none/out.bin"], "was not written: No such file or directory"),
        (["--firmware", "none.bin"], "'none.bin' cannot be read: No such file"),
        (["--firmware", "lesson/main.py"], "this is no firmware for a board that we know"),
    ],
)
def test_failures(place: Path, capsys: Captured, more: list[str], what: str) -> None:
    assert image(*more) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert what in err
    assert err.startswith("farkernel: ")
    assert not Path("out.bin").exists()
    assert Path("fw.bin").read_bytes() == esp8266_firmware()


def test_what_was_there_stays_when_it_fails(place: Path) -> None:
    Path("out.bin").write_text("mine")
    (place / "lesson" / "sensor.py").write_text("def (")
    assert image() == 1
    assert Path("out.bin").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "size"),
    [("4M", 4 << 20), ("4MB", 4 << 20), ("4MiB", 4 << 20), ("512k", 512 << 10), ("0x1000", 4096), ("77", 77)],
)
def test_sizes(text: str, size: int) -> None:
    from farkernel.launcher.cli.image import _size

    assert _size("--flash-size", text) == size


def test_check(place: Path, capsys: Captured) -> None:
    assert main(["image", "check", "fw.bin"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("MicroPython 1.25.0 for esp8266 (farkernel image esp8266).\nNot in the list")
    assert "40976 bytes, SHA-256 " in out
    assert main(["image", "check", DEBIAN, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["standing"], found["board"], found["version"]) == ("known", "microbit", "1.0.1")


def test_a_list_of_ones_own(place: Path, capsys: Captured) -> None:
    assert main(["image", "check", "fw.bin", "--entry"]) == 0
    text = capsys.readouterr().out
    assert tomllib.loads(text)["firmware"][0]["size"] == 40976
    Path("ours.toml").write_text(text)
    assert main(["image", "check", "fw.bin", "--manifest", "ours.toml"]) == 0
    assert "Known: MicroPython for esp8266 (measured here)." in capsys.readouterr().out
    Path("fw.bin").write_bytes(esp8266_firmware()[:-1])
    assert main(["image", "check", "fw.bin", "--manifest", "ours.toml"]) == 1
    assert "'fw.bin' has 40975 bytes, and MicroPython for esp8266 1.25.0 has 40976" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["image"], ["image", "atari"], ["image", "esp8266"], ["image", "check"]]
)
def test_wrong_usage(arguments: list[str], capsys: Captured) -> None:
    assert main(arguments) == 2
    assert "farkernel: " in capsys.readouterr().err


def test_help(capsys: Captured) -> None:
    assert main(["image", "--help"]) == 0
    out = capsys.readouterr().out
    assert "esp8266" in out
    assert "microbit" in out
    assert main(["image", "esp32", "--help"]) == 0
    assert "usage: farkernel image esp32" in capsys.readouterr().out
