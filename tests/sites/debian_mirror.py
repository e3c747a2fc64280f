"""Where this machine's own Debian comes from: other releases and sources are taken from there, and from nowhere else."""

from __future__ import annotations

import subprocess


class NoMirror(Exception):
    """apt knows none, as far as we can tell."""


def mirror() -> str:
    """The base address, as apt's lists have it.  Raises `NoMirror`."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    if not found:
        raise NoMirror("apt knows no mirror of Debian: apt-get update")
    return found[0].rstrip("/")
