"""What a backend and a route must offer; adding one touches one file and one line of the table in ``backends``.

A **route** opens the stdin and stdout of one command on the machine where an allocation lives.  A **backend** makes
allocations of one kind of target, and says by which route each is reached.  Nothing here knows what runs over the
bytes (`launcher.keeper.driver` does).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from ..launcher.configuration import Target
from ..launcher.errors import FarkernelError

Buffer = bytes | bytearray | memoryview


class RouteError(FarkernelError):
    """The command could not be started at the far end."""

    kind = "route"


class AllocationError(FarkernelError):
    """The target will not give us an allocation; trying again as it is would not help."""

    kind = "allocation"


class Receiver(Protocol):
    """Who reads an open stream.  All three are called in the event loop, none may raise."""

    def data_received(self, data: bytes) -> None:
        """Some bytes of the command's stdout."""

    def writable(self) -> None:
        """What was written has gone out: more may be written."""

    def closed(self, said: str) -> None:
        """The command's stdout has ended; ``said`` is the end of its stderr.  Called once."""


class Stream(Protocol):
    """The stdin and stdout of a running command."""

    @property
    def buffered(self) -> int:
        """Bytes written but not yet taken by the system."""

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Send them, in order; what the system does not take now is kept (as references)."""

    def close(self) -> None:
        """End the command's input and stop reading.  May be called again."""


class Route(Protocol):
    """How a command is started where an allocation lives."""

    async def open(self, command: Sequence[str], receiver: Receiver) -> Stream:
        """Start it; raises `RouteError`."""


class Allocation(Protocol):
    """A piece of a target that is ours for now."""

    name: str
    """Names the agent's directory at the far end: the same allocation has the same name for every keeper."""

    async def ready(self, report: Callable[[str], None]) -> Route:
        """Wait until it can run something.  ``report`` takes a sentence for people whenever the state of
        waiting changes.

        Raises `AllocationError` or `RouteError`.  May be called again after it was lost and found.
        """

    async def release(self) -> None:
        """Give it back (a no-op where nothing was allocated)."""


class Backend(Protocol):
    """One kind of target."""

    def key(self, target: Target, kernel: str) -> str:
        """Kernels whose keys are equal share one allocation (and so one link and one agent)."""

    def allocate(
        self, target: Target, kernel: str, environment: Callable[[], Mapping[str, str]]
    ) -> Allocation:
        """The allocation of that key.  Acts only when `Allocation.ready` is awaited.

        ``environment`` gives what the newest client lent us (SSH_AUTH_SOCK and the like), as it is at that moment.
        """
