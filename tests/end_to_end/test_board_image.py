"""From a folder to a board: `farkernel image`, `farkernel board flash` with the real esptool, and what the board then has."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from farkernel.device_images.file_system import read_files
from farkernel.launcher.board.serial_line import SerialLine
from farkernel.launcher.board.session import Board
from farkernel.launcher.cli import main
from tests.device_images.samples import BANNER_1M, esp8266_firmware, noise
from tests.sites.boards import FLASH_SIZE, mps2
from tests.sites.esp8266_rom import Esp8266Rom, on_pty

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

MIB = 1 << 20


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "lesson"
    (place / "lib").mkdir(parents=True)
    (place / "main.py").write_text("import sensor\nprint('main', sensor.read())\n")
    (place / "lib" / "sensor.py").write_text("def read():\n    return 41\n")
    (place / "data.bin").write_bytes(noise(20_000))
    return place


@pytest.mark.parametrize(
    ("size", "name", "banner", "start"),
    [
        (MIB, "1M", BANNER_1M, 0x99000),
        (2 * MIB, "2M", b"MicroPython v1.25.0 on 2025-04-15; x", 0x100000),
        (4 * MIB, "4M", b"MicroPython v1.22.2 on 2024-02-22; x", 0x100000),
    ],
)
def test_what_the_folder_holds_is_on_the_board(
    folder: Path, size: int, name: str, banner: bytes, start: int
) -> None:
    Path("fw.bin").write_bytes(esp8266_firmware(banner=banner))
    rom = Esp8266Rom(flash_size=size)
    rom.flash[:] = noise(size, 3)  # a board that was in use: nothing of it may be taken for ours
    command = ["image", "esp8266", "lesson", "--firmware", "fw.bin", "-o", "out.bin", "--flash-size", name]
    assert main(command) == 0
    with on_pty(rom) as port:
        assert main(["board", "flash", port, "out.bin"]) == 0
    found = read_files(bytes(rom.flash[start:]), (size - 20 * 1024 - start) // 4096)
    assert sorted(found) == ["data.bin", "lib/sensor.mpy", "main.py"]
    assert found["data.bin"] == noise(20_000)
    assert found["lib/sensor.mpy"][:2] == b"M\x06"


def test_from_a_folder_to_a_board_that_runs_it_and_back(folder: Path) -> None:
    """The whole way: image → esptool → boot ROM → flash → MicroPython starts on it → imports the `.mpy` → writes → read back."""
    Path("fw.bin").write_bytes(esp8266_firmware(banner=b"MicroPython v1.25.0 on 2025-04-15; x"))
    assert main(["image", "esp8266", "lesson", "--firmware", "fw.bin", "-o", "out.bin"]) == 0
    rom = Esp8266Rom(flash_size=4 * MIB)
    with on_pty(rom) as port:
        assert main(["board", "flash", port, "out.bin"]) == 0
    (folder.parent / "flash").write_bytes(bytes(rom.flash).ljust(FLASH_SIZE, b"\xff"))
    with mps2(folder.parent) as board:
        device = str(board.device)
        seen = asyncio.run(run_lesson(device))
        assert main(["board", "get", device, "/result.txt", "result.txt"]) == 0
    assert seen == b"main 41\r\nmpy True\r\n"
    assert Path("result.txt").read_text() == "41 measured\n"
    # What the board wrote is in its flash, and none of what we wrote there was harmed.
    flash = (folder.parent / "flash").read_bytes()[: 4 * MIB]
    found = read_files(flash[0x100000:], (3 * MIB - 20 * 1024) // 4096)
    assert found["result.txt"] == b"41 measured\n"
    assert found["data.bin"] == noise(20_000)
    assert found["lib/sensor.mpy"][:2] == b"M\x06"


async def run_lesson(device: str) -> bytes:
    """What it printed: its main.py, and whether the module comes from the compiled file."""
    board = Board(SerialLine(device))
    await board.connect()
    output = bytearray()
    code = (
        "exec(open('main.py').read())\nimport os, sensor\n"
        "print('mpy', 'sensor.mpy' in os.listdir('lib') and 'sensor.py' not in os.listdir('lib'))\n"
        "with open('result.txt', 'w') as file: file.write('%d measured\\n' % sensor.read())\n"
    )
    traceback = await board.execute(code, output.extend)
    await board.close()
    assert not traceback, traceback.decode()
    return bytes(output)


def test_the_wrong_size_is_seen_before_anything_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("fw.bin").write_bytes(esp8266_firmware())
    assert main(["image", "esp8266", "lesson", "--firmware", "fw.bin", "-o", "out.bin"]) == 0
    rom = Esp8266Rom(flash_size=2 * MIB)
    with on_pty(rom) as port:
        assert main(["board", "flash", port, "out.bin"]) == 1
    assert "has 2M of flash, and the file is for 4M. Nothing was written." in capsys.readouterr().err
    assert rom.blocks == 0
