"""`local:` targets: this machine, by the same agent and link as anywhere else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence

from ..launcher.configuration import Target
from .contract import Receiver, RouteError, User
from .process_stream import ProcessStream


class LocalRoute:
    """Starts the command as a child of the keeper."""

    def __init__(self, user: User) -> None:
        self._user = user

    async def open(self, command: Sequence[str], receiver: Receiver) -> ProcessStream:
        try:
            process = subprocess.Popen(  # noqa: ASYNC220 - posix_spawn of a shell: under a millisecond
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                env={**os.environ, **self._user.environment()},
                start_new_session=True,
            )
        except OSError as error:
            raise RouteError(
                f"cannot start {command[0]} on this machine: {error.strerror}",
                "Is the machine out of processes or memory?",
            ) from error
        return ProcessStream(process, receiver)


class LocalAllocation:
    """This machine: always there, nothing to give back."""

    name = "host"

    def __init__(self, user: User) -> None:
        self._route = LocalRoute(user)

    async def ready(self, report: Callable[[str], None]) -> LocalRoute:
        return self._route

    async def release(self) -> None:
        """Nothing was taken."""


class LocalBackend:
    def key(self, target: Target, kernel: str | None) -> str:
        return "local:"

    def door(self, target: Target, user: User) -> LocalRoute:
        return LocalRoute(user)

    def allocate(self, target: Target, kernel: str | None, user: User) -> LocalAllocation:
        return LocalAllocation(user)


BACKEND = LocalBackend()
