"""What one card shall make of a Pi, and the files on its boot partition for that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

#: What Raspberry Pi OS gives its first user (userconf-pi); those that are not there are made by cloud-init.
GROUPS = (
    *("adm", "dialout", "cdrom", "audio", "users", "video", "games", "plugdev"),
    *("input", "render", "netdev", "gpio", "i2c", "spi"),
)
FOLDER = "farkernel"  # of ours, on the boot partition


class Release(Enum):
    """How a Raspberry Pi OS takes its first orders."""

    CLOUD_INIT = "trixie"  # since November 2025: user-data, network-config, meta-data
    FIRST_RUN = "bookworm"  # firstrun.sh, by way of cmdline.txt


@dataclass(frozen=True)
class Wifi:
    name: str
    key: str = field(default="", repr=False)  # 64 hex digits; empty: the network is open
    hidden: bool = False


@dataclass(frozen=True)
class HostKey:
    """By which SSH knows this host again: made here, so that the first login needs no trust."""

    private: str = field(repr=False)
    public: str


@dataclass(frozen=True)
class Kernel:
    """An environment for kernels, and its kernelspec for every user."""

    name: str
    packages: tuple[str, ...]
    display_name: str

    @property
    def directory(self) -> str:
        return f"/opt/farkernel/{self.name}"


@dataclass(frozen=True)
class Card:
    host: str
    user: str
    password: str = field(default="", repr=False)  # a hash; empty: none can be typed
    keys: tuple[str, ...] = ()  # lines of authorized_keys
    host_key: HostKey | None = None
    student: str = ""
    wifi: Wifi | None = None
    country: str = ""
    locale: str = ""
    timezone: str = ""
    keyboard: str = ""
    sudo: bool = True
    kernel: Kernel | None = None

    @property
    def full_name(self) -> str:
        """For the fifth field of /etc/passwd, which cannot hold everything."""
        return re.sub(r"[:,=\\\"&\s]+", " ", self.student).strip()[:60]


def boot_files(card: Card, release: Release, cmdline: str) -> Mapping[str, bytes]:
    """All files but the wheels, by their path on the boot partition; ``cmdline`` is cmdline.txt as it is there."""
    from . import cloud_init, first_run
    from .prepare import prepare_script

    files: dict[str, str] = {}
    if card.kernel is not None:
        files[f"{FOLDER}/prepare.sh"] = prepare_script(card.kernel)
    if release is Release.CLOUD_INIT:
        files |= cloud_init.files(card)
    else:
        files["firstrun.sh"] = first_run.script(card)
        files["cmdline.txt"] = first_run.command_line(cmdline, card.country)
    return {path: text.encode("utf-8") for path, text in files.items()}
