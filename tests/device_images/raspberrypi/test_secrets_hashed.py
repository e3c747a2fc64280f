"""Hashes of passwords: as openssl and the standards have them."""

from __future__ import annotations

import subprocess

from hypothesis import given, settings
from hypothesis import strategies as st

from farkernel.device_images.raspberrypi.secrets_hashed import password_hash, wifi_key


@settings(max_examples=15)
@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=150).filter(
        lambda text: len(text.encode()) < 250
    ),
    st.text("./0123456789ABCxyz", min_size=1, max_size=16),
)
def test_openssl_says_the_same(password: str, salt: str) -> None:
    command = ["openssl", "passwd", "-6", "-salt", salt, "-stdin"]
    said = subprocess.run(command, input=password.encode(), capture_output=True, check=True).stdout.decode()
    assert password_hash(password, salt) == said.strip()


def test_salts_differ_and_hashes_stay() -> None:
    first, second = password_hash("x"), password_hash("x")
    assert first != second
    assert password_hash(first) == first
    assert password_hash("$6$no hash$") != "$6$no hash$"


def test_wifi_keys() -> None:
    # IEEE 802.11-2020, J.4.2, test vectors
    assert wifi_key("password", "IEEE") == "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"
    assert (
        wifi_key("ThisIsAPassword", "ThisIsASSID")
        == "0dc0d6eb90555ed6419756b9a15ec3e3209b63df707dd508d14581f8982721af"
    )
    key = "AB" * 32
    assert wifi_key(key, "any") == key.lower()
