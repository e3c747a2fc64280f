"""Holding a serial device of this machine; lock files and who holds what are `agent.holds`."""

from __future__ import annotations

import os
import sys

from ..agent import holds
from ..agent.holds import current_holder, group_of, holder_of, lock_file, user_name
from ..text import one_line
from .errors import BoardBusy, BoardGone

__all__ = ["Hold", "current_holder", "group_of", "holder_of", "introduce", "lock_file", "own_purpose"]


class Hold(holds.Hold):
    """We hold a device; `release` gives it back."""

    @classmethod
    def take(cls, device: str, purpose: str = "") -> Hold:
        """Raises `BoardBusy`, or `BoardGone` where there is no such device.  ``purpose`` is what others are told."""
        if not os.path.exists(device):
            raise BoardGone(device)
        try:
            taken = super().take(device, purpose or own_purpose())
        except holds.Held as error:
            raise BoardBusy(device, error.holder) from None
        assert isinstance(taken, Hold)
        return taken


def introduce(purpose: str) -> None:
    """What others are told about this process when they want what it holds; else it is its command."""
    _introduced.append(purpose)


_introduced: list[str] = []


def own_purpose() -> str:
    """What others are told: "the notebook lesson.ipynb of alice"."""
    if _introduced:
        return f"{one_line(_introduced[-1])} of {user_name(os.getuid())}"
    command = " ".join(word for word in sys.argv[1:3] if not word.startswith("-"))
    return f"farkernel {one_line(command)}".strip() + f" of {user_name(os.getuid())}"
