"""ssh_config read by asyncssh, for machines that have no ssh program to ask."""

from __future__ import annotations

import getpass
import os

from asyncssh.config import SSHClientConfig

from .ssh_config import ConfigError, Place, home_directory

# The usual names of keys (ssh_config(5), IdentityFile).
_KEYS = ("id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk")


def look_up_without_ssh(place: Place) -> dict[str, list[str]]:
    """The keywords of ssh_config that apply, in lower case, each with its values; raises `ConfigError`."""
    home = home_directory()
    files = [place.config] if place.config else [str(home / ".ssh/config"), "/etc/ssh/ssh_config"]
    readable = [path for path in files if os.access(path, os.R_OK)]
    try:
        config = SSHClientConfig.load(
            None,
            list(readable),
            False,
            False,
            False,
            getpass.getuser(),
            place.user if place.user is not None else (),  # () is asyncssh's word for "not given"
            place.host,
            place.port if place.port is not None else (),
        )
    except (ValueError, OSError) as error:
        raise ConfigError(str(place), str(error)) from error
    found = {name.lower(): _texts(value) for name, value in config.get_options(False).items()}
    ssh = home / ".ssh"
    found.setdefault("identityfile", [str(ssh / name) for name in _KEYS])
    found.setdefault("userknownhostsfile", [f"{ssh / 'known_hosts'} {ssh / 'known_hosts2'}"])
    found.setdefault("globalknownhostsfile", ["/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"])
    for keyword in ("userknownhostsfile", "globalknownhostsfile"):
        found[keyword] = [" ".join(found[keyword])]
    return found


def _texts(value: object) -> list[str]:
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    if isinstance(value, list | tuple):
        return [str(each) for each in value]
    return [str(value)]
