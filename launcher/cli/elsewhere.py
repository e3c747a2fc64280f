"""Kernels and jobs of the same user's other keepers: `ps --all` lists them; a command given such an id takes a kernel
up, and `release` cancels a job.
"""

from __future__ import annotations

from typing import Any

from ..client import KeeperClient
from ..errors import RemoteError
from .output import complain

DEADLINE = 60.0

Row = dict[str, Any]


def elsewhere(client: KeeperClient) -> dict[str, list[Row]]:
    """`kernels` that the targets' agents have and our keeper has not, `allocations`: jobs that others submitted.

    Targets that do not answer are named on stderr.
    """
    answer = client.request("elsewhere", DEADLINE)
    for name, why in sorted((answer.get("unreachable") or {}).items()):
        complain(f"{name} could not be asked: {RemoteError.from_dict(why)}")
    return {
        what: [row for row in answer.get(what) or [] if isinstance(row, dict)]
        for what in ("kernels", "allocations")
    }


def take_up(client: KeeperClient, row: Row) -> str:
    """That kernel is our keeper's from now on; returns its id here."""
    answer = client.request("adopt", DEADLINE, target=row.get("target"), kernel=row.get("kernel"))
    return str(answer["kernel"])


def cancel(client: KeeperClient, row: Row) -> None:
    """That job of another keeper ends, and what runs in it."""
    client.request("cancel", DEADLINE, target=row.get("target"), job=row.get("name"))
