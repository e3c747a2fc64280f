"""A pool is no place of its own, and says so."""

from __future__ import annotations

from typing import cast

import pytest

from farkernel.backends import find_backend
from farkernel.backends.contract import User
from farkernel.backends.pool import NotOnePlace
from farkernel.launcher.address import parse_address
from farkernel.launcher.configuration import Target

POOL = Target("lab", parse_address("pool:pi1,pi2"))


def test_its_members_must_be_asked() -> None:
    backend, nobody = find_backend("pool"), cast(User, None)
    for ask in (
        lambda: backend.key(POOL, None),
        lambda: backend.door(POOL, nobody),
        lambda: backend.allocate(POOL, "k", nobody),
    ):
        with pytest.raises(NotOnePlace) as caught:
            ask()
        assert caught.value.what == "lab (pool:pi1,pi2) is a pool, and no machine of its own"
        assert caught.value.advice == "Ask for one of its members: pi1, pi2"
