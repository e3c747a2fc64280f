"""cloud-init's three files on the boot partition (https://cloudinit.readthedocs.io, data source NoCloud)."""

from __future__ import annotations

import hashlib

from . import yaml_text
from .card import FOLDER, GROUPS, Card
from .yaml_text import Value

_HEAD = "#cloud-config\n"
_BOOT = "/boot/firmware"


def files(card: Card) -> dict[str, str]:
    user_data, network = user_data_text(card), network_config_text(card)
    # Another instance: cloud-init does everything again on a card that is written anew.
    instance = hashlib.sha256((user_data + network).encode()).hexdigest()[:16]
    meta_data: dict[str, Value] = {"instance-id": f"farkernel-{card.host}-{instance}", "dsmode": "local"}
    return {
        "user-data": user_data,
        "network-config": network,
        "meta-data": yaml_text.document(meta_data),
        f"{FOLDER}/user-data.after": user_data_afterwards(card),
    }


def user_data_text(card: Card) -> str:
    data: dict[str, Value] = {
        **_lasting(card),
        "ssh_pwauth": bool(card.password) and not card.keys,
        "disable_root": True,
        "users": [_user(card)],
    }
    if card.host_key is not None:
        data["ssh_deletekeys"] = True
        data["ssh_keys"] = {
            "ed25519_private": card.host_key.private,
            "ed25519_public": card.host_key.public,
        }
    for key in ("locale", "timezone"):
        if getattr(card, key):
            data[key] = getattr(card, key)
    if card.keyboard:
        data["keyboard"] = {"layout": card.keyboard}
    data["runcmd"] = _commands(card)
    return _HEAD + yaml_text.document(data)


def user_data_afterwards(card: Card) -> str:
    """What takes the place of user-data after the first start: what cloud-init asks for each time, and no secrets."""
    return _HEAD + yaml_text.document(_lasting(card))


def network_config_text(card: Card) -> str:
    network: dict[str, Value] = {
        "version": 2,
        "ethernets": {"eth0": {"dhcp4": True, "dhcp6": True, "optional": True}},
    }
    if card.wifi is not None:
        point: dict[str, Value] = {}
        if card.wifi.key:
            point["password"] = card.wifi.key
        if card.wifi.hidden:
            point["hidden"] = True
        wlan: dict[str, Value] = {"dhcp4": True, "optional": True}
        if card.country:
            wlan["regulatory-domain"] = card.country
        network["wifis"] = {"wlan0": {**wlan, "access-points": {card.wifi.name: point}}}
    return yaml_text.document({"network": network})


def _lasting(card: Card) -> dict[str, Value]:
    return {"hostname": card.host, "manage_etc_hosts": True, "preserve_hostname": False}


def _user(card: Card) -> dict[str, Value]:
    user: dict[str, Value] = {
        "name": card.user,
        "gecos": card.full_name,
        "groups": [*GROUPS, *(["sudo"] if card.sudo else [])],
        "shell": "/bin/bash",
        "lock_passwd": not card.password,
        "ssh_authorized_keys": list(card.keys),
    }
    if card.password:
        # Not `passwd`, which is not obeyed for a user that the image has already.
        user["hashed_passwd"] = card.password
    if card.sudo:
        user["sudo"] = "ALL=(ALL) NOPASSWD:ALL"
    return {key: value for key, value in user.items() if value not in ("", [])}


def _commands(card: Card) -> list[Value]:
    commands: list[Value] = [["systemctl", "enable", "--now", "ssh"]]
    if card.country and card.wifi is None:
        commands.append(["rfkill", "unblock", "wifi"])
    if card.kernel is not None:
        commands.append(["sh", f"{_BOOT}/{FOLDER}/prepare.sh"])
    # Secrets are for the first start alone; and the boot partition is nobody's but root's.
    commands.append(["cp", f"{_BOOT}/{FOLDER}/user-data.after", f"{_BOOT}/user-data"])
    commands.append(["sh", "-c", f"here={_BOOT}; {hide_boot_partition()}"])
    return commands


def hide_boot_partition() -> str:
    """For a shell that has its path in ``here``.

    From the next start on: FAT knows no owners, and network-config holds the key of the Wi-Fi.
    """
    line = "s|^(\\S+\\s+$here\\s+vfat\\s+)(\\S+)|\\1\\2,umask=0077|"
    return f'grep -q umask=0077 /etc/fstab || sed -i -E "{line}" /etc/fstab'
