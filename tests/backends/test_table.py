"""The table of backends: every scheme that it names can be loaded, any other is refused in words."""

from __future__ import annotations

import pytest

from farkernel.backends import SCHEMES_THAT_WORK, UnknownBackend, find_backend
from farkernel.launcher.address import SCHEMES


@pytest.mark.parametrize("scheme", sorted(SCHEMES_THAT_WORK))
def test_every_backend_is_there(scheme: str) -> None:
    backend = find_backend(scheme)
    for name in ("key", "door", "allocate"):
        assert callable(getattr(backend, name))
    assert scheme in SCHEMES


def test_another_scheme() -> None:
    with pytest.raises(UnknownBackend, match=r"cannot reach carrier-pigeon: targets.*local:.*ssh:"):
        find_backend("carrier-pigeon")
