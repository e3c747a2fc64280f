"""Kernels of the same user's other keepers: `ps --all` lists them, and a command given such an id takes it up."""

from __future__ import annotations

from typing import Any

from ..client import KeeperClient
from ..errors import RemoteError
from .output import complain

DEADLINE = 60.0

Row = dict[str, Any]


def kernels_elsewhere(client: KeeperClient) -> list[Row]:
    """What the targets' agents have and our keeper has not; targets that do not answer are named on stderr."""
    answer = client.request("elsewhere", DEADLINE)
    for name, why in sorted((answer.get("unreachable") or {}).items()):
        complain(f"{name} could not be asked: {RemoteError.from_dict(why)}")
    return [row for row in answer.get("kernels") or [] if isinstance(row, dict)]


def take_up(client: KeeperClient, row: Row) -> str:
    """That kernel is our keeper's from now on; returns its id here."""
    answer = client.request("adopt", DEADLINE, target=row.get("target"), kernel=row.get("kernel"))
    return str(answer["kernel"])
