"""`pool:` targets: a name for several others.

One of them is picked for each kernel before anything is asked of a backend (`launcher.keeper.pools`).  So a pool has no
allocation of its own, and its kernels share their member's with all others.
"""

from __future__ import annotations

from typing import NoReturn

from ..launcher.configuration import Target
from ..launcher.errors import FarkernelError
from .contract import User


class NotOnePlace(FarkernelError):
    """Something was asked of a pool that only one of its members can answer."""

    kind = "pool"

    def __init__(self, target: Target) -> None:
        super().__init__(
            f"{target.name} ({target.address}) is a pool, and no machine of its own",
            f"Ask for one of its members: {', '.join(target.address.members)}",
        )


class PoolBackend:
    def key(self, target: Target, kernel: str | None) -> NoReturn:
        raise NotOnePlace(target)

    def door(self, target: Target, user: User) -> NoReturn:
        raise NotOnePlace(target)

    def allocate(self, target: Target, kernel: str | None, user: User) -> NoReturn:
        raise NotOnePlace(target)


BACKEND = PoolBackend()
