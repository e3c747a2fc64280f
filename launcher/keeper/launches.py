"""Kernels that front ends start, start again, or come back to; and those that are taken over from other keepers."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from pathlib import Path
from typing import Any, Protocol

from ..configuration import Target
from ..errors import FarkernelError
from ..local_end.client_links import own_connection
from .adopted import Adopted
from .facts import Facts, KernelState
from .kernel import Kernel
from .kernel_requests import follow
from .server import BadRequest, ClientConnection, Handler
from .store import checked_name


class Owner(Protocol):
    """What a launch needs of the keeper."""

    @property
    def directory(self) -> Path: ...
    @property
    def kernels(self) -> dict[str, Kernel]: ...
    def make(self, facts: Facts, target: Target) -> Kernel: ...
    def unmake(self, kernel: str) -> None: ...
    def forget_ended(self, kernel: str) -> None: ...
    def save(self, facts: Facts) -> None: ...
    def resolve(self, settings: dict[str, Any], entry: str) -> Target: ...
    def target_of(self, facts: Facts) -> Target: ...


class Launches:
    """Of one keeper; one launch of a kernel at a time."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._launching: dict[str, asyncio.Lock] = {}

    def handlers(self) -> dict[str, Handler]:
        return {"launch": self._launch}

    async def _launch(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        asked = request.get("kernel")
        name = checked_name(asked) if asked else str(uuid.uuid4())
        async with self._launching.setdefault(name, asyncio.Lock()):
            try:
                return await self._launch_one(client, request, name)
            finally:
                self._launching.pop(name, None)

    async def _launch_one(
        self, client: ClientConnection, request: dict[str, Any], name: str
    ) -> dict[str, Any]:
        settings = request.get("settings") or {}
        if not isinstance(settings, dict):
            raise BadRequest("settings must be an object")
        entry = str(request.get("entry") or settings.get("target") or settings.get("address") or "")
        kernel = self._owner.kernels.get(name) or self._left_behind(entry, str(request.get("notebook") or ""))
        resumed = kernel is not None and kernel.state is not KernelState.ENDED and not request.get("restart")
        if kernel is None:
            kernel = await self._new(name, entry, settings, request)
        else:
            kernel.attendance.came(client)
            await self._again(kernel, request, resumed)
        follow(client, kernel)
        facts = kernel.facts
        return {"kernel": kernel.id, "connection": facts.connection, "life": facts.life, "resumed": resumed}

    async def _new(self, name: str, entry: str, settings: dict[str, Any], request: dict[str, Any]) -> Kernel:
        target = self._owner.resolve(settings, entry)
        given = request.get("connection")
        key = secrets.token_hex(32)
        connection = (
            dict(given)
            if isinstance(given, dict) and given.get("shell_port")
            else own_connection(self._owner.directory, name, key)
        )
        facts = Facts(
            kernel=name,
            entry=entry,
            settings=settings,
            connection=connection,
            far_key=secrets.token_hex(32),
            given=bool(given),
            cwd=str(request.get("cwd") or ""),
            env={str(key): str(value) for key, value in (request.get("env") or {}).items()},
            notebook=str(request.get("notebook") or ""),
            front=str(request.get("front") or "provisioner"),
            session=uuid.uuid4().hex,
            target=target.name,
        )
        self._owner.save(facts)
        kernel = self._owner.make(facts, target)
        try:
            await kernel.open()
        except FarkernelError:
            self._owner.unmake(name)
            raise
        kernel.begin()
        return kernel

    async def _again(self, kernel: Kernel, request: dict[str, Any], resumed: bool) -> None:
        """The kernel is there already: a restart, a start after it died, or a front end that comes back to it."""
        done = isinstance(request.get("life"), int) and kernel.facts.life >= request["life"]
        if resumed or (done and kernel.state is not KernelState.ENDED):  # asked again: the answer was lost
            kernel.local.refresh_endpoints()
            return
        if kernel.state is not KernelState.ENDED:
            await kernel.acts.stop(now=True, text="restarted")
        if isinstance(request.get("env"), dict):
            kernel.facts.env = {str(key): str(value) for key, value in request["env"].items()}
        target = self._owner.target_of(kernel.facts)
        kernel.local.refresh_endpoints()
        kernel.begin_again(target)

    def _left_behind(self, entry: str, notebook: str) -> Kernel | None:
        """A kernel that the same notebook had by the same menu entry, and that no front end holds now."""
        if not notebook:
            return None
        for kernel in self._owner.kernels.values():
            facts = kernel.facts
            same = facts.entry == entry and facts.notebook == notebook and not facts.given
            if same and not kernel.attendance.fronts and kernel.state is not KernelState.ENDED:
                return kernel
        return None

    async def adopt(self, target: Target, about: Adopted) -> Kernel:
        """A kernel that another keeper started is ours from now on, until somebody takes it back."""
        name = checked_name(about.kernel)
        if name in self._owner.kernels:
            kernel = self._owner.kernels[name]
            if kernel.state is KernelState.ENDED:
                kernel.come_back(about)
            return kernel
        self._owner.forget_ended(name)
        settings = about.label.get("settings")
        facts = Facts(
            kernel=name,
            entry=about.said("entry"),
            settings={**(settings if isinstance(settings, dict) else {}), "target": target.name},
            connection=own_connection(self._owner.directory, name, secrets.token_hex(32)),
            far_key=about.key,
            notebook=about.said("notebook"),
            session=uuid.uuid4().hex,
            target=target.name,
            started=True,
        )
        facts.settings.pop("address", None)
        self._owner.save(facts)
        kernel = self._owner.make(facts, self._owner.target_of(facts))
        await kernel.open()
        kernel.adopt(about)
        kernel.begin()
        kernel.attendance.left(None)
        return kernel
