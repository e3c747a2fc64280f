"""`farkernel image raspberrypi`: as a teacher runs it; the images are looked into with mtools."""

from __future__ import annotations

import json
import lzma
import os
import stat
from pathlib import Path

import asyncssh
import pytest
import yaml

from farkernel.launcher.cli import main
from tests.device_images.raspberrypi.cards import KEY
from tests.sites import pi_image
from tests.sites.pi_image import BOOKWORM, TRIXIE, make_image

Captured = pytest.CaptureFixture[str]

ROSTER = f"""
[fleet]
name = "class"
hosts = "class.csv"
user = "pi"
domain = "local"
[environment]
packages = ["ipykernel", "numpy"]
wheels = "wheels"
[card]
keys = ["{KEY}"]
wifi = "School"
wifi_password = "correct horse"
country = "DE"
"""
WHEELS = (
    "ipykernel-7.1.0-py3-none-any.whl",
    "numpy-2.3.5-cp313-cp313-manylinux_2_28_aarch64.whl",
    "pip-25.3-py3-none-any.whl",
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "class.toml").write_text(ROSTER)
    (tmp_path / "class.toml").chmod(0o600)
    (tmp_path / "class.csv").write_text(
        "host,student,password\npi01,Ada Lovelace,battery staple\npi02,Grace Hopper,\n"
    )
    (tmp_path / "wheels").mkdir()
    for name in WHEELS:
        (tmp_path / "wheels" / name).write_bytes(name.encode())
    return tmp_path


def image(*arguments: str) -> int:
    return main(["image", "raspberrypi", "--roster", "class.toml", *arguments])


def settings() -> Path:
    return Path(os.environ["XDG_CONFIG_HOME"]) / "farkernel" / "fleets"


def test_an_image_for_each_host(place: Path, capsys: Captured) -> None:
    source = make_image(place / "raspios.img")
    before = source.read_bytes()
    (place / "raspios.img.xz").write_bytes(lzma.compress(before, preset=0))
    assert image("--image", "raspios.img.xz", "--out", "cards") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[0].startswith("cards/pi01.img: pi01 for Ada Lovelace, 8 files, ")
    assert out.splitlines()[-2:] == [
        "Next: write them to cards with Raspberry Pi Imager or dd.",
        f"So that SSH knows these Pis: cat {settings()}/class.known_hosts >> ~/.ssh/known_hosts",
    ]
    assert sorted(path.name for path in (place / "cards").iterdir()) == ["pi01.img", "pi02.img"]
    for host in ("pi01", "pi02"):
        made = place / "cards" / f"{host}.img"
        assert made.stat().st_size == len(before)
        user = yaml.safe_load(pi_image.read(made, "user-data"))
        assert user["hostname"] == host
        assert user["users"][0]["ssh_authorized_keys"] == [KEY]
        assert ("hashed_passwd" in user["users"][0]) is (host == "pi01")
        everything = b"".join(pi_image.read(made, path) for path in pi_image.tree(made))
        assert b"correct horse" not in everything
        assert b"battery staple" not in everything
        assert {f"farkernel/wheels/{name}" for name in WHEELS} < pi_image.tree(made)
    # The card's own key is the one that SSH is told of.
    lines = (settings() / "class.known_hosts").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["pi01.local", "pi02.local"]
    key = asyncssh.import_private_key(
        yaml.safe_load(pi_image.read(place / "cards/pi02.img", "user-data"))["ssh_keys"]["ed25519_private"]
    )
    assert key.export_public_key("openssh").decode().split()[:2] == lines[1].split()[1:]
    assert stat.S_IMODE((settings() / "class-host-keys" / "pi02").stat().st_mode) == 0o600


def test_a_card_that_is_made_again_is_the_same_host(place: Path, capsys: Captured) -> None:
    make_image(place / "raspios.img")
    assert image("--image", "raspios.img", "--out", "cards", "--host", "PI02") == 0
    first = (settings() / "class.known_hosts").read_text()
    assert image("--image", "raspios.img", "--out", "cards", "--json", "--host", "pi02") == 0
    assert (settings() / "class.known_hosts").read_text() == first
    found = json.loads(capsys.readouterr().out.partition("known_hosts\n")[2])
    assert [(row["host"], row["release"]) for row in found["cards"]] == [("pi02", "trixie")]
    assert [path.name for path in (place / "cards").iterdir()] == ["pi02.img"]


def test_onto_a_mounted_card(place: Path, capsys: Captured) -> None:
    boot = place / "boot"
    boot.mkdir()
    for name, data in TRIXIE.items():
        (boot / name).write_bytes(data)
    assert image("--onto", "boot", "--host", "pi01") == 0
    assert capsys.readouterr().out.splitlines()[1] == "Next: unmount the card, and start the Pi with it."
    assert yaml.safe_load((boot / "user-data").read_text())["hostname"] == "pi01"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "neither or both of --image and --onto are given. Take --image FILE --out DIRECTORY, or --onto"),
        (["--image", "x"], "--image is given, and no --out. Say where"),
        (["--onto", "boot"], "a mounted card is for one host. Say which: --host HOST"),
        (["--image", "none.img", "--out", "o"], "none.img is no image of a card: No such file or directory. Raspberry Pi OS is at"),
        (["--image", "class.toml", "--out", "o"], "class.toml is no image of a card: it has no partition table"),
        (["--image", "x", "--out", "o", "--host", "pi9"], "class.toml: there is no host 'pi9' in it"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(place: Path, capsys: Captured, arguments: list[str], expected: str) -> None:
    assert image(*arguments) == 1
    assert expected in capsys.readouterr().err
    assert not list(place.glob("o/*"))


def test_wheels_are_looked_at(place: Path, capsys: Captured) -> None:
    make_image(place / "old.img", BOOKWORM)
    (place / "wheels" / WHEELS[0]).unlink()
    (place / "wheels" / "rich-1-cp313-cp313-win_amd64.whl").touch()
    assert image("--image", "old.img", "--out", "o") == 1
    assert capsys.readouterr().err == (
        "farkernel: wheels cannot make the environment: there is no wheel of ipykernel; "
        f"{WHEELS[1]} is for another Python, and the card has 3.11; rich-1-cp313-cp313-win_amd64.whl is for another kind "
        "of machine. Fetch them: pip download --only-binary=:all: --platform manylinux_2_28_aarch64 --platform "
        "manylinux2014_aarch64 --python-version 3.11 --dest wheels pip ipykernel numpy\n"
    )
    assert list((place / "o").iterdir()) == []


def test_a_roster_that_makes_no_cards(place: Path, capsys: Captured) -> None:
    (place / "class.toml").write_text('[card]\nkeys = ["none.pub", "class.csv"]\n[[hosts]]\nhost = "a.b"\n')
    assert image("--image", "x", "--out", "o") == 1
    err = capsys.readouterr().err
    assert "the roster has 5 errors" in err
    assert "the key none.pub cannot be read" in err
    assert "class.csv holds no public keys. Name the file that ends with .pub; never the other one" in err
    assert "'a.b' is no name that a machine can give itself" in err
    assert "'a.b' has no user. Add a column `user`" in err
    assert "nobody could log in to 'a.b'" in err


def test_passwords_that_others_can_read_are_told(place: Path, capsys: Captured) -> None:
    make_image(place / "raspios.img")
    (place / "class.toml").chmod(0o644)
    assert image("--image", "raspios.img", "--out", "cards", "--host", "pi02") == 0
    assert capsys.readouterr().err == (
        "farkernel: Others can read class.toml, and it holds passwords: chmod 600 class.toml\n"
    )


def test_the_users_own_keys_unless_others_are_named(place: Path, home: Path, capsys: Captured) -> None:
    make_image(place / "raspios.img")
    (place / "class.toml").write_text('[fleet]\nuser = "pi"\n[[hosts]]\nhost = "pi01"\n')
    assert image("--image", "raspios.img", "--out", "cards") == 1
    assert (
        "nobody could log in to 'pi01'. Make an SSH key (ssh-keygen), or give a password"
        in capsys.readouterr().err
    )
    (home / ".ssh").mkdir()
    (home / ".ssh/id_ed25519.pub").write_text(KEY + "\n")
    assert image("--image", "raspios.img", "--out", "cards") == 0
    assert capsys.readouterr().out.startswith("Note: the roster has no [environment]")
    user = yaml.safe_load(pi_image.read(place / "cards/pi01.img", "user-data"))
    assert user["users"][0]["ssh_authorized_keys"] == [KEY]
