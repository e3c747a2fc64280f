"""A kernel that another keeper started, as its agent tells of it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Adopted:
    """What an agent knows of a kernel, for a keeper that has never heard of it."""

    kernel: str
    life: int
    key: str
    interrupt: str
    label: dict[str, Any]
    received: dict[str, int]
    started: float

    @classmethod
    def from_answer(cls, answer: dict[str, Any]) -> Adopted:
        """Raises `KeyError`, `TypeError`, `ValueError` when the answer makes no sense."""
        label = answer.get("label")
        received = dict(answer.get("received") or {})
        return cls(
            kernel=str(answer["kernel"]),
            life=int(answer["life"]),
            key=str(answer["key"]),
            interrupt=str(answer.get("interrupt") or "signal"),
            label=label if isinstance(label, dict) else {},
            received={str(name): int(number) for name, number in received.items()},
            started=float(answer.get("started") or 0.0),
        )

    def said(self, name: str) -> str:
        """A word of the label, which another machine wrote."""
        return str(self.label.get(name) or "")[:1000]

    def origin(self) -> str:
        """Where it comes from, as a clause."""
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.started)) if self.started else "earlier"
        host = self.said("host")
        return f"started {when}{' from ' + host if host else ''}"


def left_behind(rows: Iterable[Any], entry: str, notebook: str) -> str | None:
    """The kernel that the same notebook had by the same menu entry, and that no keeper has now; its name there."""
    found = [
        row
        for row in rows
        if isinstance(row, dict)
        and isinstance(row.get("label"), dict)
        and (row["label"].get("entry"), row["label"].get("notebook")) == (entry, notebook)
        and row.get("state") == "live"
        and row.get("attended") is False
    ]
    newest = max(found, key=lambda row: float(row.get("started") or 0), default=None)
    return None if newest is None else str(newest["kernel"])
