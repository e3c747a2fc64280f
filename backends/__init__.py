"""Kinds of targets, one file each."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import cast

from ..launcher.configuration import Target
from ..launcher.errors import FarkernelError
from .contract import Backend, Examined, Step, User

# scheme of the address → module that defines BACKEND.  Imported when first used: a keeper that only knows `local:`
# loads no SSH library.
_MODULES = {"local": ".local", "ssh": ".ssh"}
SCHEMES_THAT_WORK = frozenset(_MODULES)


class UnknownBackend(FarkernelError):
    """The address asks for a kind of target that this version has not got."""

    kind = "configuration"

    def __init__(self, scheme: str) -> None:
        super().__init__(
            f"this version of Farkernel cannot reach {scheme}: targets",
            f"Use an address that begins with one of: {', '.join(sorted(name + ':' for name in _MODULES))}",
        )


def find_backend(scheme: str) -> Backend:
    """The backend for addresses of that scheme; raises `UnknownBackend`."""
    if scheme not in _MODULES:
        raise UnknownBackend(scheme)
    module = importlib.import_module(_MODULES[scheme], __package__)
    return cast(Backend, module.BACKEND)


def steps_to(target: Target, user: User) -> Sequence[Step]:
    """What the target's backend offers to `farkernel doctor`; many offer nothing."""
    backend = find_backend(target.address.scheme)
    return cast(Examined, backend).steps(target, user) if hasattr(backend, "steps") else ()
