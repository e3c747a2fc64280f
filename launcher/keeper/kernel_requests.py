"""What is asked of kernels that are there (docs/architecture.md §7), and what front ends that watch them are told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from ..errors import FarkernelError
from . import spares
from .allocations import Allocations, HeldAllocation
from .facts import Facts, KernelState
from .far_agent import AgentGone
from .kernel import Kernel
from .server import BadRequest, ClientConnection, Handler

_LARGEST_LOG = 4 * 1024 * 1024


class NoSuchKernel(FarkernelError):
    """An id that this keeper does not know."""

    kind = "no-such-kernel"

    def __init__(self, kernel: str) -> None:
        super().__init__(f"there is no kernel {kernel[:80]}", "See: farkernel ps")


class NoSuchAllocation(FarkernelError):
    kind = "no-such-allocation"

    def __init__(self, allocation: str) -> None:
        super().__init__(f"there is no allocation {allocation[:80]}", "See: farkernel ps")


class KernelRequests:
    """Of one keeper: its kernels, those that have ended and are remembered, and its allocations; all three are only
    looked at.
    """

    def __init__(
        self, kernels: Mapping[str, Kernel], ended: Mapping[str, Facts], allocations: Allocations
    ) -> None:
        self._kernels = kernels
        self._ended = ended
        self._allocations = allocations

    def handlers(self) -> dict[str, Handler]:
        return {
            "watch": self._watch,
            "interrupt": self._interrupt,
            "signal": self._signal,
            "shutdown": self._shutdown,
            "stop": self._stop,
            "cleanup": self._cleanup,
            "detach": self._detach,
            "list": self._list,
            "release": self._release,
            "logs": self._logs,
        }

    def kernel(self, request: dict[str, Any]) -> Kernel:
        """The one that a request names; raises `NoSuchKernel`."""
        name = str(request.get("kernel"))
        if name not in self._kernels:
            raise NoSuchKernel(name)
        return self._kernels[name]

    async def _watch(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        name = str(request.get("kernel"))
        kernel = self._kernels.get(name)
        if kernel is None:
            if name not in self._ended:
                raise NoSuchKernel(name)
            client.event(_kernel_event(self._ended[name], True, ""))
            return {}

        def watcher(kernel: Kernel) -> None:
            held = kernel.allocation
            client.event(_kernel_event(kernel.facts, held is None or held.up, held.why if held else ""))

        kernel.watchers.add(watcher)
        former = client.on_close.pop(("watch", kernel.id), None)
        if former is not None:
            former()
        client.on_close["watch", kernel.id] = lambda: kernel.watchers.discard(watcher)
        if request.get("front", True):
            follow(client, kernel)
        watcher(kernel)
        return {}

    async def _interrupt(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        await self.kernel(request).acts.interrupt()
        return {}

    async def _signal(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        signum = request.get("signum")
        if not isinstance(signum, int) or not 0 <= signum < 65:
            raise BadRequest(f"{str(signum)[:20]!r} is not a signal's number")
        await self.kernel(request).acts.signal(signum)
        return {}

    async def _shutdown(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        self.kernel(request).acts.shutdown(bool(request.get("restart")))
        return {}

    async def _stop(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        kernel = self._kernels.get(str(request.get("kernel")))
        if kernel is None and str(request.get("kernel")) in self._ended:
            return {}
        await self.kernel(request).acts.stop(now=bool(request.get("now")))
        return {}

    async def _cleanup(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        kernel = self._kernels.get(str(request.get("kernel")))
        if kernel is not None and not request.get("restart"):
            if kernel.state is not KernelState.ENDED:
                await kernel.acts.stop(now=True)
            await kernel.close(forget=True)
        return {}

    async def _detach(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        kernel = self.kernel(request)
        kernel.detach()
        kernel.attendance.left(client)
        return {}

    async def _list(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        usage = (
            await self._usage()
        )  # first: a kernel that ends meanwhile is in one of the two lists, and not in both
        rows = [
            {
                **kernel.facts.row(),
                "fronts": len(kernel.attendance.fronts),
                "usage": usage.get(kernel.id),
                "why": kernel.local.waits_for,
            }
            for kernel in self._kernels.values()
        ]
        if request.get("all", True):
            rows += [{**facts.row(), "fronts": 0, "usage": None} for facts in self._ended.values()]
        return {"kernels": rows, "allocations": [held.as_dict() for held in self._allocations.held.values()]}

    async def _usage(self) -> dict[str, Any]:
        """Memory and CPU by kernel, of the agents that answer at once."""

        async def ask(held: HeldAllocation) -> dict[str, Any]:
            async with asyncio.timeout(2):
                return await held.agent.request("usage")

        found: dict[str, Any] = {}
        up = [held for held in self._allocations.held.values() if held.up]
        for answer in await asyncio.gather(*map(ask, up), return_exceptions=True):
            if isinstance(answer, dict):
                found.update(answer.get("kernels", answer))
        return found

    async def _release(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        name = str(request.get("allocation"))
        held = self._allocations.held.get(name)
        if held is None:
            raise NoSuchAllocation(name)
        with contextlib.suppress(AgentGone):  # somebody else gave it back meanwhile
            for kernel in list(self._kernels.values()):
                if kernel.allocation is held:
                    await kernel.acts.stop(now=False, text="its allocation was released")
            if held.up:
                await spares.end_all(held.agent)
        held.give_back()
        await held.close()
        return {}

    async def _logs(self, client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        size = request.get("size") or 65536
        if not isinstance(size, int) or not 0 < size <= _LARGEST_LOG:
            raise BadRequest(f"a log of {str(size)[:20]} bytes cannot be asked for")
        name = str(request.get("kernel"))
        if name not in self._kernels and name in self._ended:
            return {"log": str((self._ended[name].reason or {}).get("tail", ""))}
        return {"log": await self.kernel(request).acts.read_log(size)}


def follow(client: ClientConnection, kernel: Kernel) -> None:
    """That client is a front end of the kernel until it goes away or says `detach`."""
    kernel.attendance.came(client)
    client.on_close["front", kernel.id] = lambda: kernel.attendance.left(client)


def _kernel_event(facts: Facts, link_up: bool, why: str) -> dict[str, Any]:
    """What a front end that watches is told."""
    return {
        "event": "kernel",
        "kernel": facts.kernel,
        "life": facts.life,
        "state": facts.state,
        "reason": facts.reason,
        "exit": exit_status(facts.reason) if facts.state == KernelState.ENDED.value else None,
        "link": "up" if link_up else "down",
        "why": why,
    }


def exit_status(reason: dict[str, Any] | None) -> int:
    """As a shell would see it: the status, or minus the signal's number; 0 for a stop that was asked for."""
    reason = reason or {}
    if reason.get("kind") in ("stopped", "keep", "idle"):
        return 0
    if isinstance(reason.get("signum"), int) and reason["signum"]:
        return -int(reason["signum"])
    if isinstance(reason.get("status"), int):
        return int(reason["status"])
    return 1
