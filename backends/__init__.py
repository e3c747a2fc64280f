"""Kinds of targets, one file each."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

from ..launcher.configuration import Target
from ..launcher.errors import FarkernelError
from .contract import Backend, BringsKernel, Examined, Indebted, Step, User

# scheme of the address → module that defines BACKEND.  Imported when first used: a keeper that only knows `local:`
# loads no SSH library.
_BATCH = ("slurm", "pbs", "torque", "sge", "lsf", "htcondor", "oar")
_MODULES = {
    "local": ".local",
    "ssh": ".ssh",
    "serial": ".serial",
    "webrepl": ".serial",
    "pool": ".pool",
    **dict.fromkeys(_BATCH, ".batch.backend"),
}
SCHEMES_THAT_WORK = frozenset(_MODULES)


class UnknownBackend(FarkernelError):
    """The address asks for a kind of target that this version has not got."""

    kind = "configuration"

    def __init__(self, scheme: str) -> None:
        super().__init__(
            f"this version of Farkernel cannot reach {scheme}: targets",
            f"Use an address that begins with one of: {', '.join(sorted(name + ':' for name in _MODULES))}",
        )


class IndebtedBackend(Backend, Indebted, Protocol):
    """Both at once."""


def indebted_backends() -> list[IndebtedBackend]:
    """Those that have written down something which is still to be given back, perhaps."""
    from .batch.journal import journal_directory

    if not any(journal_directory().glob("[!.]*.json")):
        return []
    return [cast(IndebtedBackend, find_backend("slurm"))]


def find_backend(scheme: str) -> Backend:
    """The backend for addresses of that scheme; raises `UnknownBackend`."""
    if scheme not in _MODULES:
        raise UnknownBackend(scheme)
    module = importlib.import_module(_MODULES[scheme], __package__)
    return cast(Backend, module.BACKEND)


def get_ready(targets: Iterable[Target]) -> None:
    """What the first start on such targets needs and takes its time: in a thread of a keeper that has nothing to do."""
    by_ssh = [each for each in targets if each.address.host is not None and each.address.scheme != "webrepl"]
    if by_ssh:
        from .ssh import get_ready as get_ssh_ready

        get_ssh_ready({each.ssh for each in by_ssh})


def kernel_of(target: Target) -> dict[str, Any]:
    """Which kernel a target means, as the agent's `start` and `look` want it: argv, python or kernelspec."""
    backend = find_backend(target.address.scheme)
    if isinstance(backend, BringsKernel):
        return {"argv": backend.kernel_argv(target)}
    return {"python": target.python} if target.python else {"kernelspec": target.kernel or "python3"}


async def steps_to(target: Target, user: User) -> Sequence[Step]:
    """What the target's backend offers to `farkernel doctor`; many offer nothing."""
    backend = find_backend(target.address.scheme)
    return await backend.steps(target, user) if isinstance(backend, Examined) else ()
