"""user-data, network-config, meta-data: as a YAML reader and cloud-init itself see them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from farkernel.device_images.raspberrypi import cloud_init, yaml_text
from farkernel.device_images.raspberrypi.card import Card, Release, Wifi, boot_files
from tests.device_images.raspberrypi.cards import HOSTILE, KEY, PRIVATE, hostile, usual

texts = st.text(st.characters(exclude_categories=["Cs"]))
keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=100)
values = st.recursive(
    texts | st.booleans() | st.integers(-(1 << 40), 1 << 40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(keys, values, min_size=1, max_size=4))
def test_any_data_comes_back(data: dict[str, Any]) -> None:
    written = yaml_text.document(data)
    assert written.isascii()
    assert yaml.safe_load(written) == data


@pytest.mark.parametrize("word", ["no", "on", "~", "null", "1e3", "0x10", "1_000", "2001-01-01", "- a", "a: b", "#x", "@a", "%b", "*c", "&d", "!e", "", " ", "=", "<<", "\x85", "\u2028", "\ufeff", "\U0001f600"])  # fmt: skip
def test_words_that_mean_something_to_yaml(word: str) -> None:
    assert yaml.safe_load(yaml_text.document({word: word})) == {word: word}


def loaded(card: Card) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    files = cloud_init.files(card)
    assert files["user-data"].startswith("#cloud-config\n")
    user, network, meta = (
        yaml.safe_load(files[name]) for name in ("user-data", "network-config", "meta-data")
    )
    return user, network, meta


def test_a_usual_card() -> None:
    card = usual()
    user, network, meta = loaded(card)
    assert user["hostname"] == "pi01"
    (account,) = user["users"]
    assert (account["name"], account["gecos"], account["lock_passwd"]) == ("ada", "Ada Lovelace", False)
    assert account["hashed_passwd"] == card.password
    assert account["ssh_authorized_keys"] == [KEY]
    assert account["sudo"] == "ALL=(ALL) NOPASSWD:ALL"
    assert {"gpio", "dialout", "sudo"} <= set(account["groups"])
    assert user["ssh_pwauth"] is False
    assert user["ssh_keys"] == {"ed25519_private": PRIVATE, "ed25519_public": "ssh-ed25519 AAAAC3 pi01"}
    assert (user["locale"], user["timezone"], user["keyboard"]) == (
        "de_DE.UTF-8",
        "Europe/Berlin",
        {"layout": "de"},
    )
    assert ["sh", "/boot/firmware/farkernel/prepare.sh"] in user["runcmd"]
    assert network["network"]["wifis"]["wlan0"] == {
        "dhcp4": True,
        "optional": True,
        "regulatory-domain": "DE",
        # wpa_passphrase(8) says the same
        "access-points": {"School": {"password": card.wifi.key if card.wifi else ""}},
    }
    assert meta["instance-id"].startswith("farkernel-pi01-")
    assert "correct horse" not in str(cloud_init.files(card))


def test_hostile_texts_stay_texts() -> None:
    user, network, _ = loaded(hostile())
    (account,) = user["users"]
    assert account["ssh_authorized_keys"] == [f"{KEY} {HOSTILE}"]
    assert account["lock_passwd"] is True
    assert "sudo" not in account
    assert "sudo" not in account["groups"]
    assert not set(account["gecos"]) & set(':,="\\\n')
    assert network["network"]["wifis"]["wlan0"]["access-points"] == {HOSTILE[:20]: {"hidden": True}}


def test_another_card_is_another_instance() -> None:
    first, again = usual(), usual()
    assert cloud_init.files(first)["meta-data"] == cloud_init.files(again)["meta-data"]
    other = Card(host="pi01", user="ada", wifi=Wifi("Other"))
    assert cloud_init.files(first)["meta-data"] != cloud_init.files(other)["meta-data"]


def test_no_secrets_are_left_after_the_first_start() -> None:
    after = cloud_init.files(usual())["farkernel/user-data.after"]
    assert yaml.safe_load(after) == {"hostname": "pi01", "manage_etc_hosts": True, "preserve_hostname": False}


@pytest.mark.parametrize("card", [usual(), hostile(), Card("pi3", "pi"), Card("pi4", "pi", country="DE")])
def test_cloud_inits_own_schema(card: Card, tmp_path: Path) -> None:
    """`cloud-init schema`, of Debian bookworm."""
    for name in ("user-data", "farkernel/user-data.after"):
        place = tmp_path / Path(name).name
        place.write_text(cloud_init.files(card)[name])
        ended = subprocess.run(
            ["cloud-init", "schema", "--config-file", str(place)], capture_output=True, text=True, check=False
        )
        said = ended.stdout + ended.stderr
        assert ended.returncode == 0, said
        assert "Valid cloud-config" in said
        assert "deprecat" not in said.lower()


def test_the_files_of_each_release() -> None:
    trixie: Mapping[str, bytes] = boot_files(usual(), Release.CLOUD_INIT, "")
    assert set(trixie) == {
        "user-data",
        "network-config",
        "meta-data",
        "farkernel/prepare.sh",
        "farkernel/user-data.after",
    }
    assert set(boot_files(usual(), Release.FIRST_RUN, "a")) == {
        "firstrun.sh",
        "cmdline.txt",
        "farkernel/prepare.sh",
    }
