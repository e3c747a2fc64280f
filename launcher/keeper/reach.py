"""Whether a target can be reached: a query, which starts nothing there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ...backends import find_backend, steps_to
from ...backends.contract import Stream, User
from ...backends.serial import host_of
from ..configuration import Target
from ..errors import FarkernelError


class _Listener:
    """Waits for the first byte of a command, or its end."""

    def __init__(self) -> None:
        self.heard: asyncio.Future[tuple[bytes, str]] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        if not self.heard.done():
            self.heard.set_result((data, ""))

    def writable(self) -> None:
        """Nothing is written."""

    def closed(self, said: str) -> None:
        if not self.heard.done():
            self.heard.set_result((b"", said))


async def reach(find: Callable[[str], Target], name: str, user: User, deadline: float) -> dict[str, Any]:
    """``{"ok": …}``, with ``what`` and ``advice`` when it is false.  Of a pool's members one is enough."""
    try:
        members = find(name).address.members
    except FarkernelError as error:
        return {"ok": False, "what": error.what, "advice": error.advice}
    if not members:
        return await _reach(find, name, user, deadline)
    found = await asyncio.gather(*(_reach(find, member, user, deadline) for member in members))
    failed = [f"{member}: {row['what']}" for member, row in zip(members, found, strict=True) if not row["ok"]]
    return {
        "ok": len(failed) < len(members),
        "what": f"{len(failed)} of {len(members)} members not: {'; '.join(failed)[:500]}" if failed else "",
        "advice": f"See them by themselves: farkernel list, farkernel doctor {members[0]}" if failed else "",
    }


async def _reach(find: Callable[[str], Target], name: str, user: User, deadline: float) -> dict[str, Any]:
    stream: Stream | None = None
    try:
        target = find(name)
        if target.address.scheme == "serial" and target.address.host is not None:
            target = host_of(target)
        elif target.address.scheme in ("serial", "webrepl"):
            async with asyncio.timeout(deadline):
                for step in await steps_to(target, user):
                    await step.take()
            return {"ok": True, "what": "", "advice": ""}
        route = find_backend(target.address.scheme).door(target, user)
        async with asyncio.timeout(deadline):
            listener = _Listener()
            stream = await route.open(("/bin/sh", "-c", "echo here"), listener)
            data, said = await listener.heard
    except TimeoutError:
        return {
            "ok": False,
            "what": f"no answer within {deadline:g} s",
            "advice": "Is it up, and is the network?",
        }
    except FarkernelError as error:
        return {"ok": False, "what": error.what, "advice": error.advice}
    finally:
        if stream is not None:
            stream.close()
    if not data:
        return {
            "ok": False,
            "what": said or "it ran nothing",
            "advice": "Log in by hand, and see what it says",
        }
    return {"ok": True, "what": "", "advice": ""}
