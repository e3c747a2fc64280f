"""From a roster to cards: what each Pi shall become (`device_images.raspberrypi`)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...device_images.raspberrypi.card import Card, HostKey, Kernel, Wifi
from ...device_images.raspberrypi.secrets_hashed import password_hash, wifi_key
from ..configuration import Problem
from .roster import Host, Roster, RosterError

_KEY = re.compile(r"(?:ssh-|ecdsa-|sk-)[a-z0-9@.-]+ [A-Za-z0-9+/=]{16,}(?: [^\r\n]*)?")


def cards(roster: Roster, names: Sequence[str], host_keys: Path) -> list[tuple[Host, Card]]:
    """Those with these names, or all; ``host_keys``: a directory where each host's key is kept.  Raises RosterError."""
    problems: list[Problem] = []
    keys = tuple(_keys(roster, problems))
    chosen = [host for host in roster.hosts if not names or host.name in names]
    known = {host.name for host in roster.hosts}
    for name in names:
        if name not in known:
            problems.append(
                Problem(roster.file, None, f"there is no host {name!r} in it", "See its column `host`")
            )
    for host in chosen:
        problems += _problems(roster, host, keys)
    if problems:
        raise RosterError(problems)
    return [(host, _card(roster, host, keys, host_keys)) for host in chosen]


def known_hosts(made: Sequence[tuple[Host, Card]]) -> str:
    """Lines for ~/.ssh/known_hosts."""
    lines = []
    for host, card in made:
        if card.host_key is not None:
            place = f"[{host.address}]:{host.port}" if host.port not in (None, 22) else host.address
            lines.append(f"{place} {' '.join(card.host_key.public.split()[:2])}\n")
    return "".join(lines)


def _problems(roster: Roster, host: Host, keys: Sequence[str]) -> Iterator[Problem]:
    if "." in host.name:
        what = f"{host.name!r} is no name that a machine can give itself"
        yield Problem(
            roster.file, host.line, what, "Take one without dots, and `domain` or `address` for the rest"
        )
    if not host.user:
        what = f"{host.name!r} has no user"
        yield Problem(
            roster.file, host.line, what, 'Add a column `user`, or user = "pi" below [fleet] in a TOML roster'
        )
    if not keys and not (host.password or roster.card.password):
        what = f"nobody could log in to {host.name!r}"
        yield Problem(roster.file, host.line, what, "Make an SSH key (ssh-keygen), or give a password")


def _card(roster: Roster, host: Host, keys: tuple[str, ...], host_keys: Path) -> Card:
    about, environment = roster.card, roster.environment
    password = host.password or about.password
    wifi = None
    if about.wifi:
        key = wifi_key(about.wifi_password, about.wifi) if about.wifi_password else ""
        wifi = Wifi(about.wifi, key, about.wifi_hidden)
    kernel = None
    if environment is not None:
        kernel = Kernel(environment.name, environment.packages, roster.title or environment.name)
    return Card(
        host=host.name,
        user=str(host.user),
        password=password_hash(password) if password else "",
        keys=keys,
        host_key=_host_key(host_keys, host.name),
        student=host.student,
        wifi=wifi,
        country=about.country,
        locale=about.locale,
        timezone=about.timezone,
        keyboard=about.keyboard,
        sudo=about.sudo,
        kernel=kernel,
    )


def _keys(roster: Roster, problems: list[Problem]) -> Iterator[str]:
    """Public keys: named in the roster, or those that this user has."""
    given = roster.card.keys
    home = Path(os.path.expanduser("~/.ssh"))
    for text in given or [str(path) for path in sorted(home.glob("id_*.pub"))]:
        if _KEY.fullmatch(text):
            yield text
            continue
        path = Path(roster.file).parent / Path(text).expanduser()
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            problems.append(
                Problem(roster.file, None, f"the key {path} cannot be read: {error}", "Name a .pub file")
            )
            continue
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found or not all(_KEY.fullmatch(line) for line in found):
            what = f"{path} holds no public keys"
            problems.append(
                Problem(roster.file, None, what, "Name the file that ends with .pub; never the other one")
            )
            continue
        yield from found


def _host_key(directory: Path, name: str) -> HostKey:
    """Kept here, so that a card that is made again is still the same host to everybody who knows it."""
    import asyncssh

    place = directory / name
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not place.exists():
        made = asyncssh.generate_private_key("ssh-ed25519", comment=name)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(made.export_private_key("openssh"))
    key = asyncssh.read_private_key(place)
    return HostKey(place.read_text("ascii"), key.export_public_key("openssh").decode("ascii").strip())
