"""A command at the far end whose stdin and stdout are a unix socket here: what `farkernel sync` copies through.

It goes over the link like a forwarded port: no second login, nothing lost by a cut, no faster than the slower end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...backends.serial import host_of
from ..configuration import Target
from ..errors import FarkernelError
from .far_agent import FarAgent
from .forwards import Connection
from .server import BadRequest, ClientConnection, Handler
from .visits import NoAnswer, Owner, Visitor

_PATIENCE = 60.0


def handlers(owner: Owner, find: Callable[[str], Target], directory: Path) -> dict[str, Handler]:
    """The request `bridge`: ``target`` (a name or an address; of a board: the machine that it is plugged into),
    ``argv`` → ``bridge``, ``path``: a socket for one connection.

    What becomes of the command is told by one event {"event": "bridge", "bridge", "status", "said"}, or with "error"
    instead of the last two when it could not be started.
    """

    async def bridge(client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        argv = request.get("argv")
        if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
            raise BadRequest("argv must be a list of strings")
        target = find(str(request.get("target")))
        if target.address.scheme == "serial":
            target = host_of(target)
        await owner.inquire(target)
        opened = Bridge(owner, target, argv, directory, client.event)
        client.on_close["bridge", opened.name] = opened.close
        await opened.open()
        return {"bridge": opened.name, "path": str(opened.path)}

    return {"bridge": bridge}


class Bridge:
    """One command and the connection to it; see `forwards.Way`."""

    do = "run"

    def __init__(
        self,
        owner: Owner,
        target: Target,
        argv: list[str],
        directory: Path,
        tell: Callable[[dict[str, Any]], None],
    ) -> None:
        self.name = secrets.token_hex(8)
        self.path = directory / f"bridge-{self.name}"
        self.wanted: dict[str, Any] = {"argv": argv}
        self.connections: set[Connection] = set()
        self._target = target
        self._tell = tell
        self._held = owner.allocation_for(target, None)
        self._visitor = Visitor(self._held)
        self._server: asyncio.Server | None = None
        self._inside = False

    def __repr__(self) -> str:
        return f"<Bridge {self.name} to {self._target.name}: {self.wanted['argv'][0]}>"

    async def open(self) -> None:
        """Listen.  The allocation is held from now on, until the client goes away."""
        self._held.enter(self._visitor, self._visitor.waiting)
        self._inside = True
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._connection, self.path)
        os.chmod(self.path, 0o600)

    def _connection(self) -> Connection:
        # Not here and now: the server still has to hand the connection over.
        asyncio.get_running_loop().call_soon(self._stop_listening)
        return Connection(self)

    def _stop_listening(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)

    def close(self) -> None:
        self._stop_listening()
        for connection in list(self.connections):
            connection.abort()
        self._leave()

    def _leave(self) -> None:
        if self._inside:
            self._inside = False
            self._held.leave(self._visitor, self._visitor.waiting)
            self._visitor.lost.cancel()

    async def agent(self) -> FarAgent:
        """Raises why there will be none, or `NoAnswer`."""
        asking = asyncio.ensure_future(self._held.agent.request("list"))
        waits: list[asyncio.Future[Any]] = [asking, self._visitor.lost]
        await asyncio.wait(waits, timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        try:
            if self._visitor.lost.done():
                self._visitor.lost.result()
            if not asking.done():
                raise NoAnswer(self._target.name, _PATIENCE, self._held.why)
            asking.result()
            return self._held.agent
        finally:
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError, FarkernelError):
                await asking

    def connected(self, agent: FarAgent, channel: int) -> None:
        agent.when_ran(channel, self._ran)

    def _ran(self, event: dict[str, Any]) -> None:
        status, said = event.get("status"), str(event.get("said") or "")
        self._tell({"event": "bridge", "bridge": self.name, "status": status, "said": said})

    def failed(self, error: FarkernelError) -> None:
        self._tell({"event": "bridge", "bridge": self.name, "error": error.as_dict()})
