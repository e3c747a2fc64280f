"""Cards for tests: a usual one, and one with hostile texts."""

from __future__ import annotations

from farkernel.device_images.raspberrypi.card import Card, HostKey, Kernel, Wifi
from farkernel.device_images.raspberrypi.secrets_hashed import password_hash, wifi_key

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGdHpfCnLKcrdjbnrr8UOE5FnmXKWfJ5FyAWFDuNMLlq teacher@desk"
PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAA\n-----END OPENSSH PRIVATE KEY-----\n"
HOSTILE = "Zoë \"Bobby'); $(touch /pwned) `id` \\ : # - {x} [y] %s\u2028\U0001f600 no"


def usual() -> Card:
    return Card(
        host="pi01",
        user="ada",
        password=password_hash("correct horse", "saltsalt"),
        keys=(KEY,),
        host_key=HostKey(PRIVATE, "ssh-ed25519 AAAAC3 pi01"),
        student="Ada Lovelace",
        wifi=Wifi("School", wifi_key("correct horse", "School")),
        country="DE",
        locale="de_DE.UTF-8",
        timezone="Europe/Berlin",
        keyboard="de",
        kernel=Kernel("class", ("ipykernel", "numpy>=2"), "Our Pis"),
    )


def hostile() -> Card:
    return Card(
        host="pi02",
        user="bob",
        keys=(f"{KEY} {HOSTILE}",),
        student=HOSTILE,
        wifi=Wifi(HOSTILE[:20], "", hidden=True),
        kernel=Kernel("class", ("ipykernel",), HOSTILE),
        sudo=False,
    )
