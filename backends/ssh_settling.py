"""Streams that were closed a moment ago: for the host they may still count against MaxSessions."""

from __future__ import annotations

import asyncio
import time

_FOR = 5.0
_STEP = 0.1


class Settling:
    """For clients that are not told when the far end has noticed."""

    def __init__(self) -> None:
        self._closed_at: list[float] = []

    def note(self) -> None:
        """A stream has been closed."""
        self._closed_at.append(time.monotonic())

    async def wait(self) -> bool:
        """A short while, if any was closed lately; see `SshConnection.settle`."""
        recent = time.monotonic() - _FOR
        self._closed_at = [moment for moment in self._closed_at if moment > recent]
        if self._closed_at:
            await asyncio.sleep(_STEP)
        return bool(self._closed_at)
