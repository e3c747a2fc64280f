"""`farkernel output`: what a kernel printed, read out of its agent's journal into a file for the client.

A journal may have hundreds of MB, too much for one line of the keeper's protocol; client and keeper are the
same user on the same machine, so the answer names a file, which the client removes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from ..agent.channels import Priority
from ..agent.zmtp import Buffer, decode_message
from ..errors import FarkernelError
from ..local_end.cells import read_cells
from ..messages import Message, MessageError
from .far_agent import FarAgent, SessionLost
from .kernel import Kernel
from .server import BadRequest, ClientConnection, Handler
from .wire import unpack_message

_KEPT = 3600.0  # a file whose client did not come for it
_TRIES = 5
_PATIENCE = 15.0  # for a link that is not there
# What makes up a cell's outputs, and the request that began it.
_TOLD = frozenset(
    (
        *("stream", "display_data", "execute_result", "error", "update_display_data"),
        *("clear_output", "execute_input"),
    )
)


class OutOfReach(FarkernelError):
    """The agent has the answer, and there is no link to it now."""

    kind = "out-of-reach"

    def __init__(self, kernel: str, why: str) -> None:
        super().__init__(
            f"kernel {kernel[:8]} cannot be reached now{': ' + why if why else ''}",
            "Try again when the link is back: farkernel ps",
        )


class JournalNotWritten(FarkernelError):
    kind = "disk"

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"cannot write {path}: {error.strerror or error}", "Make room there, then try again")


def handlers(find: Callable[[dict[str, Any]], Kernel], directory: Path) -> dict[str, Handler]:
    """The request `output`: ``kernel``, ``since`` (seconds since 1970, or null) → ``path`` and what is in it."""

    async def output(client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        since = request.get("since")
        if since is not None and (isinstance(since, bool) or not isinstance(since, int | float)):
            raise BadRequest("since must be a number of seconds")
        return await write_output(find(request), since, directory / "journals")

    return {"output": output}


async def write_output(kernel: Kernel, since: float | None, directory: Path) -> dict[str, Any]:
    """Write cells and messages into a new file: JSON lines, the last says `end`."""
    agent = await agent_of(kernel)
    path = directory / f"{kernel.id[:8]}-{secrets.token_hex(8)}"
    try:
        with _create(path) as file:
            for cell in read_cells(kernel.directory / "cells"):
                _write(file, {"cell": cell})
            reading = Reading(agent, kernel.far, file, since)
            await reading.run()
            _write(file, {"end": True})
        return {"path": str(path), **reading.about}
    except BaseException as error:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise JournalNotWritten(path, error) from None
        raise


async def agent_of(kernel: Kernel, patience: float = _PATIENCE) -> FarAgent:
    """The agent that has the kernel, awaited for a while (a keeper may just have been started); or `OutOfReach`."""
    changed = asyncio.Event()

    def watcher(_: Kernel) -> None:
        changed.set()

    kernel.watchers.add(watcher)
    try:
        async with asyncio.timeout(patience):
            while (held := kernel.allocation) is None or not held.up:
                changed.clear()
                await changed.wait()
            return held.agent
    except TimeoutError:
        held = kernel.allocation
        raise OutOfReach(kernel.id, held.why if held is not None else "") from None
    finally:
        kernel.watchers.discard(watcher)


def _create(path: Path) -> IO[str]:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    forget_old(path.parent)
    return open(path, "x", encoding="ascii", opener=_private)


def forget_old(directory: Path) -> None:
    for path in directory.iterdir():
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - _KEPT:
                path.unlink()


class Reading:
    """One way through a journal, from the first message that is wanted to the last that there was when it began."""

    def __init__(self, agent: FarAgent, kernel: str, file: IO[str], since: float | None) -> None:
        self.about: dict[str, Any] = {"messages": 0}
        self._agent = agent
        self._kernel = kernel
        self._file = file
        self._since = since
        self._next = 1
        self._channel = 0
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        for attempt in range(_TRIES):
            try:
                await self._run()
                return
            except SessionLost:  # the agent was started again in the middle: go on from where we are
                if attempt == _TRIES - 1:
                    raise

    async def _run(self) -> None:
        self._over = over = asyncio.get_running_loop().create_future()
        self._channel = self._agent.open_channel(Priority.OUTPUT, self._received, lost=self._lost)
        since = None if self._since is None else int(self._since * 1e6)
        asking = asyncio.ensure_future(
            self._agent.request(
                "journal",
                kernel=self._kernel,
                name="iopub",
                first=self._next,
                channel=self._channel,
                since=since,
            )
        )
        try:
            answer = await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(self._opened_in_vain)
            raise
        except FarkernelError:
            self._agent.forget_channels([self._channel])
            raise
        self.about.setdefault("first", answer.get("first"))
        self.about.setdefault("oldest", answer.get("oldest"))
        self.about["last"] = answer.get("last")
        self.about["bound"] = answer.get("bound")
        try:
            await over
        except (asyncio.CancelledError, OSError):
            self._give_up()
            raise

    def _received(self, data: Buffer) -> None:
        if not data:
            self._agent.half_close(self._channel)
            if not self._over.done():
                self._over.set_result(None)
            return
        if not self._over.done():
            try:
                self._take(data)
            except OSError as error:
                self._over.set_exception(error)
        self._agent.consumed(self._channel, len(data))
        self._agent.driver.pump()

    def _lost(self) -> None:
        if not self._over.done():
            self._over.set_exception(SessionLost())
            self._over.exception()  # seen, also when the request itself failed first

    def _opened_in_vain(self, asking: asyncio.Future[dict[str, Any]]) -> None:
        """The client went away while the agent was asked."""
        if asking.cancelled() or asking.exception() is not None:
            self._agent.forget_channels([self._channel])
        else:
            self._give_up()

    def _give_up(self) -> None:
        """Nobody wants the rest: what is on its way is read and thrown away."""
        self._over.cancel()
        channel, agent = self._channel, self._agent
        agent.ignore_rest(channel)
        with contextlib.suppress(FarkernelError):
            agent.half_close(channel)

    def _take(self, data: Buffer) -> None:
        try:
            number, when, body = unpack_message(data)
            self._next = number + 1
            message = Message.split(decode_message(body))
            if message.msg_type not in _TOLD:
                return
            line = {
                "number": number,
                "time": when,
                "msg_type": message.msg_type,
                "parent": str(message.parent.get("msg_id", "")),
                "content": message.content,
                "buffers": len(message.buffers),
            }
        except (ValueError, MessageError):
            return  # the kernel sent what is no message; the local end has said so in the log
        self.about["messages"] += 1
        _write(self._file, line)


def _write(file: IO[str], line: dict[str, Any]) -> None:
    file.write(json.dumps(line, separators=(",", ":")))
    file.write("\n")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
