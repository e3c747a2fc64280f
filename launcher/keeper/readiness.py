"""What a keeper does while it has nothing to do: the first start over SSH does not wait for a library then."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from ... import backends
from ..configuration import Configuration
from ..errors import FarkernelError


async def get_ready(load: Callable[[], Configuration]) -> None:
    """For the targets that are configured now; what is wrong with them is said to whoever uses them."""
    with contextlib.suppress(FarkernelError):
        targets = load().targets.values()
        await asyncio.to_thread(backends.get_ready, targets)
