"""`farkernel board list|ls|put|get|rm|mkdir|reset|repl` on boards in QEMU, as a person types them."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.board import ports
from farkernel.launcher.cli import main
from farkernel.launcher.cli.board_files import UnfitName, fit_name
from farkernel.launcher.cli.board_repl import ScreenFilter
from tests.sites.boards import VirtualBoard, microbit, mps2

Captured = pytest.CaptureFixture[str]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def new(tmp_path: Path) -> Iterator[VirtualBoard]:
    with mps2(tmp_path) as board:
        yield board


@pytest.fixture
def board(capsys: Captured) -> Command:
    def run(*words: object) -> tuple[int, str, str]:
        status = main(["board", *map(str, words)])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.mark.servers
def test_files(new: VirtualBoard, board: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hello.txt").write_bytes(bytes(range(256)))
    assert board("put", new.device, "hello.txt") == (0, "hello.txt is on the board: 256 B.\n", "")
    assert board("ls", new.device)[1] == "BYTES  NAME\n   23  boot.py\n  256  hello.txt\n"
    assert board("mkdir", new.device, "a/b", "-p")[0] == 0
    assert board("put", new.device, "hello.txt", "a/b/")[0] == 0
    listed = json.loads(board("ls", new.device, "a", "--json")[1])
    assert listed == [{"name": "b", "directory": True, "size": 0, "modified": None}]
    assert board("get", new.device, "a", "copy") == (0, "copy is here: 256 B.\n", "")
    assert (tmp_path / "copy" / "b" / "hello.txt").read_bytes() == bytes(range(256))
    status, out, err = board("rm", new.device, "a")
    assert (status, out) == (1, "")
    assert "'a' is a directory. With -r it goes, and all that is in it" in err
    assert board("rm", "-r", new.device, "a", "hello.txt")[0] == 0
    assert board("ls", new.device)[1] == "BYTES  NAME\n   23  boot.py\n"
    assert "there is no 'nothing' on the board" in board("get", new.device, "nothing")[2]
    assert "there is no file or folder 'nothing' here" in board("put", new.device, "nothing")[2]


@pytest.mark.servers
def test_a_folder_and_a_reset(new: VirtualBoard, board: Command, tmp_path: Path) -> None:
    folder = tmp_path / "lesson"
    folder.mkdir()
    (folder / "a.py").write_text("x = 1\n")
    put = ("put", new.device, folder, "/lib", "--delete")
    assert board(*put)[1] == "1 files sent (6 B), 0 were there already.\n"
    assert board(*put)[1] == "0 files sent (0 B), 1 were there already.\n"
    assert board("reset", new.device)[1] == "The board has a fresh interpreter.\n"
    assert board("reset", new.device, "--hard")[1].startswith(
        "The board has started again: MicroPython v1.25.0"
    )
    assert "cannot start its bootloader by itself" in board("reset", new.device, "--bootloader")[2]


@pytest.mark.servers
def test_the_repl(tmp_path: Path) -> None:
    """In a terminal of its own, by a person's keys."""
    with microbit(tmp_path) as site:
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "farkernel", "board", "repl", str(site.device)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        try:
            seen = until(master, b">>> ")
            assert b"Ctrl-]" in seen
            os.write(master, b"6 * 7\r")
            assert b"42" in until(master, b"\n>>> ")
            os.write(master, b"\x1d")
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()
            os.close(master)


def until(master: int, words: bytes) -> bytes:
    seen = b""
    end = time.monotonic() + 20
    while words not in seen:
        assert select.select([master], [], [], max(end - time.monotonic(), 0))[0], seen
        seen += os.read(master, 4096)
    return seen


def test_the_repl_is_for_people(board: Command, tmp_path: Path) -> None:
    assert "needs a terminal" in board("repl", "/dev/ttyNONE")[2]


def test_list(board: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "devices" / "1-1"
    (device / "1-1:1.0").mkdir(parents=True)
    (tmp_path / "tty" / "ttyACM0").mkdir(parents=True)
    (tmp_path / "tty" / "ttyACM0" / "device").symlink_to(device / "1-1:1.0")
    for name, text in {
        "idVendor": "2e8a",
        "idProduct": "0005",
        "serial": "e66",
        "product": "\x1b[31mPico",
    }.items():
        (device / name).write_text(text)
    monkeypatch.setattr(ports, "SYSFS", tmp_path / "tty")
    _, out, _ = board("list")
    assert out.splitlines()[1].split() == [
        "/dev/ttyACM0", "2e8a:0005", "e66", "Raspberry", "Pi", "RP2", "with", "MicroPython", "serial:///usb/2e8a:0005/e66",
    ]  # fmt: skip
    row = json.loads(board("list", "--json")[1])[0]
    assert (row["device"], row["vendor"], row["holder"]) == ("/dev/ttyACM0", 0x2E8A, "")
    assert "no board at /dev/ttyACM0" in board("ls", "auto")[2]
    monkeypatch.setattr(ports, "SYSFS", tmp_path / "none")
    assert board("list")[1].startswith("No board is plugged in here")
    assert board("list", "--json")[1] == "[]\n"
    assert "there is no target 'nowhere'" in board("list", "nowhere")[2]
    assert "no board at USB" in board("ls", "auto")[2]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("/dev/ttyNONE9", "no board at /dev/ttyNONE9"),
        ("serial:///usb/ffff:ffff", "no board at serial:///usb/ffff:ffff"),
        ("local:", "is not a board that can be reached from here"),
        ("lessons", "there is no target 'lessons'"),
    ],
)
def test_where_no_board_is(board: Command, where: str, words: str) -> None:
    status, out, err = board("ls", where)
    assert (status, out) == (1, "")
    assert words in err


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\0b", "a\x1b[31m", "a\nb"])
def test_a_boards_names_stay_in_their_folder(name: str) -> None:
    with pytest.raises(UnfitName):
        fit_name(name)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (b"plain \xc3\xa9\r\n", b"plain \xc3\xa9\r\n"),
        (b"\x1b[K\x1b[3D\x08x", b"\x1b[K\x1b[3D\x08x"),
        (b"\x1b]0;title\x07after", b"after"),
        (b"\x1b]0;title\x1b\\after", b"after"),
        (b"\x1bP1$q\x1b\\x\x1b[6n\x1b[c\x1b[?1049hy\x1bcz", b"xyz"),
        (b"\xc2\x9b31m", b"31m"),
        (b"\x00\x0e\x05a\x7f", b"a"),
        (b"\x1b]" + b"?" * 300, b"]" + b"?" * 300),
    ],
)
def test_only_harmless_sequences_reach_the_screen(sent: bytes, shown: bytes) -> None:
    assert ScreenFilter().feed(sent) == shown
    one_by_one = ScreenFilter()
    assert b"".join(one_by_one.feed(sent[place : place + 1]) for place in range(len(sent))) == shown


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_the_filter_never_lets_others_through(pieces: list[bytes]) -> None:
    screen = ScreenFilter()
    shown = b"".join(screen.feed(piece) for piece in pieces)
    for part in shown.split(b"\x1b")[1:]:
        assert part[:1] == b"["
