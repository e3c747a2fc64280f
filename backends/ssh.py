"""`ssh://` targets: any machine with sshd and a Python."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

from ..launcher.configuration import Target
from .contract import LOGIN, Receiver, RouteError, Step, Stream, User
from .ssh_choice import choose_client
from .ssh_config import ConfigError, HostSettings, Place, read_settings, usual_algorithms
from .ssh_connections import SshClient, Who, shared_connections
from .ssh_errors import NoClient

# Constants, so that nothing has to be quoted for a login shell that nobody knows (bash, tcsh, fish, zsh agree).
SHELL = "exec /bin/sh -s"
# Any other command comes as the first line of stdin; `read` takes that line and not a byte more (POSIX, read).
ANY = "exec /bin/sh -c 'IFS= read -r line; eval \"$line\"'"

_CLIENTS = {
    "asyncssh": (".ssh_asyncssh", "AsyncsshClient"),
    "program": (".ssh_program", "ProgramClient"),
    "paramiko": (".ssh_paramiko", "ParamikoClient"),
}


@functools.cache
def find_client(name: str) -> SshClient:
    """Raises `NoClient` where its library is missing."""
    module, attribute = _CLIENTS[name]
    try:
        return cast(SshClient, getattr(importlib.import_module(module, __package__), attribute)())
    except ImportError as error:
        raise NoClient(name, f"{error.name} is not installed") from error


def place_of(target: Target) -> Place:
    """Where the target's address leads, as ssh_config is asked for it: for `ssh:` and for schedulers' login hosts."""
    address = target.address
    return Place(address.host or "localhost", address.user, address.port, target.ssh_config)


def get_ready(wanted: Iterable[str]) -> None:
    """Import these clients, which takes a quarter of a second, and ask ssh what can be asked before a host is named."""
    for name in wanted:
        with contextlib.suppress(NoClient):  # said by whoever opens a route
            find_client("asyncssh" if name == "auto" else name)
    usual_algorithms()


@contextlib.contextmanager
def naming(target: Target) -> Iterator[None]:
    """What to do about an error can be typed as it stands.  A target that is in no file has no name (`_free_name`)."""
    try:
        yield
    except RouteError as error:
        if not target.name.startswith(f"{target.address.scheme}---"):
            error.advice = error.advice.replace(LOGIN, f"farkernel login {target.name}")
        raise


class SshRoute:
    """Commands on the host of a target's address."""

    def __init__(self, target: Target, user: User) -> None:
        self._target = target
        self._place = place_of(target)
        self._wanted = target.ssh
        self._who = Who(user, self._place.host)

    def __repr__(self) -> str:
        return f"<SshRoute to {self._place}>"

    async def open(self, command: Sequence[str], receiver: Receiver) -> Stream:
        line = b"" if tuple(command) == ("/bin/sh", "-s") else first_line(command)
        with naming(self._target):
            settings = await asyncio.to_thread(read_settings, self._place)
            client = find_client(await choose_client(self._wanted, settings, self._who.user.environment()))
            stream = await shared_connections().open(
                client, settings, self._who, ANY if line else SHELL, receiver
            )
        if line:
            stream.write([line])
        return stream


def first_line(command: Sequence[str]) -> bytes:
    """The line that `ANY` runs: each word quoted; line ends in them are put together at the far end."""
    words = " ".join(shlex.quote(word) for word in command)
    if "\n" not in words:
        return f"exec {words}\n".encode()
    words = words.replace("\n", "'\"$n\"'")
    return f"n=$(printf '\\nx'); n=${{n%x}}; exec {words}\n".encode()


class SshAllocation:
    """The host: always there, nothing to give back."""

    name = "host"

    def __init__(self, target: Target, user: User) -> None:
        self._route = SshRoute(target, user)

    async def ready(self, report: Callable[[str], None]) -> SshRoute:
        return self._route

    async def release(self) -> None:
        """Nothing was taken."""


class SshBackend:
    def __init__(self) -> None:
        self._described: dict[Place, str] = {}

    async def inquire(self, target: Target) -> None:
        """In a thread: a `Match exec` in ssh_config may take seconds, and nothing else shall wait for it."""
        place = place_of(target)
        with contextlib.suppress(ConfigError):  # said again, with its words, when the route is opened
            self._described[place] = _described(await asyncio.to_thread(read_settings, place))

    def key(self, target: Target, kernel: str | None) -> str:
        """Two names of one host in ssh_config are one allocation: its agent serves one link."""
        place = place_of(target)
        return f"ssh:{self._described.get(place, place)}"

    def door(self, target: Target, user: User) -> SshRoute:
        return SshRoute(target, user)

    async def steps(self, target: Target, user: User) -> Sequence[Step]:
        from .ssh_steps import steps  # needs asyncssh

        def named(step: Step) -> Step:
            async def take() -> str:
                with naming(target):
                    return await step.take()

            return Step(step.name, take)

        return [named(step) for step in await steps(place_of(target), user, target.ssh)]

    def allocate(self, target: Target, kernel: str, user: User) -> SshAllocation:
        return SshAllocation(target, user)


def _described(settings: HostSettings) -> str:
    return f"{settings} via {_described(settings.via)}" if settings.via is not None else str(settings)


BACKEND = SshBackend()
