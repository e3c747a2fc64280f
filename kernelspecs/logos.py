"""The logos of menu entries: a mark of where the kernel runs (made by `draw_logos`)."""

from __future__ import annotations

import os

DIRECTORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "logo_files")
NAMES = ("logo-32x32.png", "logo-64x64.png", "logo-svg.svg")

_KINDS = {
    "local": "local",
    "ssh": "host",
    "slurm": "cluster",
    "pbs": "cluster",
    "torque": "cluster",
    "sge": "cluster",
    "lsf": "cluster",
    "htcondor": "cluster",
    "pool": "pool",
    "serial": "board",
    "webrepl": "board",
}


def kind_of(address: str) -> str:
    """Which mark stands for a target's address; a host's for schemes that outside backends bring."""
    return _KINDS.get(address.partition(":")[0], "host")


def files(kind: str) -> dict[str, bytes]:
    """The logo files for an entry's directory, by name."""
    found = {}
    for name in NAMES:
        with open(os.path.join(DIRECTORY, f"{kind}-{name}"), "rb") as file:
            found[name] = file.read()
    return found
