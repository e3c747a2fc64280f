"""What a backend and a route must offer; adding one touches one file and one line of the table in ``backends``.

A **route** opens the stdin and stdout of one command on the machine where an allocation lives.  A **backend** makes
allocations of one kind of target, and says by which route each is reached.  Nothing here knows what runs over the
bytes (`launcher.keeper.driver` does).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ..launcher.configuration import Target
from ..launcher.discovery.cluster import Cluster, MyJob
from ..launcher.errors import FarkernelError
from ..launcher.text import one_line

Buffer = bytes | bytearray | memoryview


class RouteError(FarkernelError):
    """The command could not be started at the far end.

    ``needs_user``: trying again by itself would not help (a refused login, an unknown host key), and may harm
    (accounts are locked after some failures); somebody must do what ``advice`` says first.

    ``unreached``: nothing of the try got to anybody: trying again soon troubles no one, and finds the host as soon as
    it is back.
    """

    kind = "route"

    def __init__(self, what: str, advice: str, needs_user: bool = False, unreached: bool = False) -> None:
        super().__init__(what, advice)
        self.needs_user = needs_user
        self.unreached = unreached


class AllocationError(FarkernelError):
    """The target will not give us an allocation; trying again as it is would not help."""

    kind = "allocation"


@dataclass(frozen=True)
class Question:
    """Something that only the user can answer: a password, a code, whether a host's key is right, how many GPUs.

    ``text`` comes from the far end more often than not: whoever shows it makes it printable (`launcher.text`).
    """

    host: str
    """The host part of the address of the target for which this is asked, also when a jump host asks."""
    text: str
    """Its last line stands before what is typed, the lines above explain."""
    hidden: bool = True
    """What is typed shall not be seen."""
    terminal: bool = False
    """Only for somebody who came to be asked (``farkernel login``), never for a notebook's cell."""
    kernel: str = ""
    """Only for the cells of this kernel."""


LOGIN = "farkernel login with the target's name"
"""What to type, where nobody knows which target it is about; whoever does names it (`ssh.naming`)."""


class NotAnswered(FarkernelError):
    """Nobody is there who could answer, or they would rather not."""

    kind = "not-answered"

    def __init__(self, question: Question) -> None:
        text = one_line(question.text)[:200].rstrip(": ")
        super().__init__(
            f'{question.host} asks "{text}", and nobody is here to answer',
            f"Log in once for all kernels: {LOGIN}",
        )


class User(Protocol):
    """The person whose keeper this is, as far as routes need them."""

    def environment(self) -> Mapping[str, str]:
        """What the newest front end lent us (SSH_AUTH_SOCK and the like), as it is at this moment."""

    async def ask(self, question: Question) -> str:
        """Wait for the answer; raises `NotAnswered`.  Cancel it when it need not be answered any more."""


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

    def close(self, dead: bool = False) -> None:
        """End the command's input and stop reading.  May be called again.

        ``dead``: nothing has been heard from the far end for too long; whatever carries this stream (an SSH
        connection) must not carry another one.
        """


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


@runtime_checkable
class Costly(Protocol):
    """What an allocation may offer besides, if it costs something while it is held, and ends by itself: a batch job."""

    def give_up(self) -> None:
        """It is about to be released: that is written down now, so that it is not forgotten if we are killed."""

    def facts(self) -> Mapping[str, Any]:
        """For listings: ``job``, ``where``, ``since``, ``ends`` (seconds since 1970, or None)."""

    async def explain(self) -> Mapping[str, Any] | None:
        """Something in it has died: the reason (``kind``, ``text``), if that is because of the allocation.

        With ``over`` it is over; with ``emptied`` it goes on, with another agent.
        """

    async def look(self) -> float | None:
        """When it will end, as it is known now (that may have been changed)."""

    def when_emptied(self, tell: Callable[[Mapping[str, Any]], None]) -> None:
        """``tell`` is called with the reason when all that ran in it has ended while it goes on, with another agent."""


@dataclass(frozen=True)
class Step:
    """One step of `farkernel doctor` on the way to a target: says what it found, or raises what is wrong."""

    name: str
    take: Callable[[], Awaitable[str]]


@runtime_checkable
class Examined(Protocol):
    """What a backend may offer besides: the steps from here to its door, each by itself, in order."""

    async def steps(self, target: Target, user: User) -> Sequence[Step]: ...


@runtime_checkable
class Surveyed(Protocol):
    """What a backend may offer besides, if its targets are parts of something larger that many share: a cluster."""

    async def survey(self, target: Target, user: User) -> Cluster:
        """What there is and what is free, as of some seconds ago; raises a `FarkernelError`."""


@runtime_checkable
class Queueing(Protocol):
    """What a backend may offer besides, if what the user's other keepers allocated can be seen from here: jobs."""

    async def strays(self, target: Target, user: User) -> Sequence[MyJob]:
        """Jobs of keepers, in that target's cluster, of which the keeper here knows nothing; none where it cannot tell
        that.  Raises a `FarkernelError`.
        """

    async def cancel(self, target: Target, user: User, job: str) -> None:
        """End a job; raises when it is not certain that it was taken."""


class Backend(Protocol):
    """One kind of target.  One that can say more about the way there is `Examined`, too."""

    def key(self, target: Target, kernel: str | None) -> str:
        """Kernels whose keys are equal share one allocation (and so one link and one agent).

        ``kernel`` None: for looking around, where nothing may be submitted; on a queue that is the login host.
        Called in the event loop: it must not block (`Inquiring`).
        """

    def door(self, target: Target, user: User) -> Route:
        """The route to where the target is entered: the host itself, or the login host of a queue.

        Nothing is allocated by using it.
        """

    def allocate(self, target: Target, kernel: str | None, user: User) -> Allocation:
        """The allocation of that key.  Acts only when `Allocation.ready` is awaited."""


@runtime_checkable
class Inquiring(Protocol):
    """What a backend may offer besides, if its keys rest on something that takes its time to find out (ssh_config)."""

    async def inquire(self, target: Target) -> None:
        """Find it out, so that `Backend.key`, which never waits, knows it from now on.

        Raises nothing: what is wrong is said when the route is opened.
        """


@runtime_checkable
class Indebted(Protocol):
    """What a backend may offer besides, if giving back takes its time and must not be forgotten."""

    def take_up(self, user: User, wanted: Collection[str]) -> None:
        """A keeper has started.  Whatever was allocated under keys that are not among these is given back."""

    def holds(self, user: User, key: str) -> bool:
        """Whether there is (or may be) an allocation under that key."""

    async def settle(self, user: User) -> None:
        """The keeper ends: a moment for what is still to be given back; the rest is left to the next one."""


@runtime_checkable
class BringsKernel(Protocol):
    """A backend whose targets run a kernel of ours, whatever `kernel` and `python` say."""

    def kernel_argv(self, target: Target) -> list[str]:
        """The kernel's command, with ``{connection_file}`` in it."""
