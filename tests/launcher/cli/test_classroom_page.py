"""docs/classroom.md, line by line: its list, its settings and its commands, as a teacher would follow them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from farkernel.launcher.cli import main
from farkernel.launcher.client import keeper_directory
from farkernel.launcher.configuration import load
from farkernel.launcher.fleet.roster_file import read_roster
from tests.device_images.raspberrypi.cards import KEY
from tests.launcher.fake_keeper import FakeKeeper
from tests.sites import pi_image
from tests.sites.pi_image import TRIXIE, make_image

PAGE = (Path(__file__).parents[3] / "docs/classroom.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [text for word, text in fences if word == language]


def commands() -> Iterator[str]:
    """Every line to be typed, without what the page says of it; then those within sentences."""
    for block in blocks(""):
        for line in re.sub(r" \\\n *", " ", block).splitlines():
            yield re.split(r" {3,}", line.strip())[0]
    yield from (
        " ".join(found.split()) for found in re.findall(r"`(farkernel image [^`]*)`", PAGE) if "--" in found
    )


@pytest.fixture
def desk(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a teacher has: the list, the settings, an image, wheels, a key, a card that is mounted."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "class.csv").write_text(blocks("csv")[0])
    settings = [block for block in blocks("toml") if "servers" not in block]
    (tmp_path / "class.toml").write_text("\n".join(settings).replace('"…"', '"correct horse"'))
    (tmp_path / "class.toml").chmod(0o600)
    (home / ".ssh").mkdir()
    (home / ".ssh/id_ed25519.pub").write_text(KEY + "\n")
    make_image(tmp_path / "raspios.img")
    subprocess.run(["xz", "-0", "raspios.img"], check=True)
    (tmp_path / "raspios.img.xz").rename(tmp_path / "raspios-lite-arm64.img.xz")
    for name, data in TRIXIE.items():
        (tmp_path / "bootfs").mkdir(exist_ok=True)
        (tmp_path / "bootfs" / name).write_bytes(data)
    return tmp_path


def test_the_settings_for_servers(tmp_path: Path) -> None:
    (block,) = (block for block in blocks("toml") if "servers" in block)
    (tmp_path / "nodes.csv").write_text("host\nnode1\n")
    (tmp_path / "nodes.toml").write_text(block)
    roster = read_roster(tmp_path / "nodes.toml")
    assert roster.servers == ("hub1", "hub2")
    assert roster.server_command == ("sudo", "-n", "/opt/jupyter/bin/farkernel")


def test_line_by_line(
    desk: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("farkernel.launcher.cli.watching.time.sleep", stop)  # Ctrl-C after the first look
    ran = []
    with FakeKeeper(Path(keeper_directory())) as keeper:
        keeper.handlers["probe"] = lambda _: {"targets": {}}
        for line in commands():
            ran.append(line)
            words = shlex.split(line.replace("/media/you/bootfs", str(desk / "bootfs")))
            if words[0] == "pip":
                download(words, desk)
            elif words[0] == "cat":
                subprocess.run(["sh", "-c", line], check=True)
            else:
                status = main(words[1:])
                said = capsys.readouterr()
                asks = "reset" in words or "--hosts" in words  # a person, or Pis that are not there
                expected = 130 if "--watch" in words else int(asks)
                assert status == expected, (line, said)
                if "reset" in words:
                    assert "nobody said yes. Say yes when asked, or give --yes" in said.err
    assert len(ran) >= 10
    assert list(load().targets) == ["pi01", "pi02", "class"]
    assert [line.split()[0] for line in (home / ".ssh/known_hosts").read_text().splitlines()] == [
        "pi01.local",
        "pi02.local",
    ]
    assert b"pi02" in pi_image.read(desk / "cards/pi02.img", "user-data")
    assert "pi01" in (desk / "bootfs/user-data").read_text()


def download(words: list[str], desk: Path) -> None:
    """As if pip had fetched them: what the page names must be enough for the card."""
    folder = desk / words[words.index("--dest") + 1]
    folder.mkdir()
    for package in words[words.index("--dest") + 2 :]:
        (folder / f"{package}-1-py3-none-any.whl").write_bytes(b"")


def test_the_page_names_every_column_and_setting(desk: Path) -> None:
    from farkernel.launcher.fleet.roster import COLUMNS

    assert [name for name in COLUMNS if f"`{name}`" not in PAGE] == []
    roster = read_roster(desk / "class.toml")
    assert roster.title == "Our Pis"
    assert roster.environment is not None
    assert str(os.path.basename(roster.environment.wheels or "")) == "wheels"
