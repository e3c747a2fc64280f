"""Which serial devices are plugged in here, and who holds them."""

from __future__ import annotations

from .contract import BoardPort


def list_ports() -> list[BoardPort]:
    """Serial devices of this machine (from sysfs; nothing is opened), USB ones first."""
    raise NotImplementedError
