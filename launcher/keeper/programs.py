"""Programs that an agent needs for some requests only: brought when it says that it has not got them."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ...backends.archive import Archive, build_engines, build_nvml, build_probe
from ..configuration import Target
from ..errors import FarkernelError

Ask = Callable[..., Awaitable[dict[str, Any]]]

_PROGRAMS: dict[str, Callable[[], Archive]] = {
    "probe": build_probe,
    "nvml": build_nvml,
    "engines": build_engines,
}
PROBE = ("probe", "nvml")
ENGINES = ("engines",)


_building = threading.Lock()


class NeedsTooMuch(FarkernelError):
    """The far end asks for a program again and again, or for one that we have not got."""

    kind = "link"

    def __init__(self, need: str) -> None:
        super().__init__(
            f"the agent asks for the program {need[:40]!r}",
            "Agent and keeper may be of different versions: farkernel keeper restart",
        )


def devices(target: Target) -> dict[str, Any]:
    """What `start` is told of GPUs: where no scheduler gives them out, the agent chooses and leases them."""
    resources = target.resources
    count = resources.gpus if resources.gpus is not None else int(resources.gpu_memory is not None)
    if not (count or resources.opencl) or not target.address.is_host:
        return {}
    opencl = {"opencl": resources.opencl} if resources.opencl else {}
    return {"devices": {"gpus": count, "gpu_memory": resources.gpu_memory or 0, **opencl}}


async def start(ask: Ask, arguments: dict[str, Any]) -> dict[str, Any]:
    """`start` of an agent: if the kernel is to have GPUs it looks at its machine first, and it may start an engine."""
    needed = (PROBE if arguments.get("devices") else ()) + (ENGINES if arguments.get("cluster") else ())
    if needed:
        return await with_programs(ask, "start", needed, **arguments)
    return await ask("start", **arguments)


async def with_programs(ask: Ask, do: str, needed: Sequence[str] = PROBE, **arguments: Any) -> dict[str, Any]:
    """Ask the agent for something that needs these programs there; brings what it says that it has not got.

    What needs NVIDIA's driver is brought only where there is one.
    """
    brought: set[str] = set()
    named = {name: (await _program(name)).sha256 for name in needed}
    while True:
        answer = await ask(do, programs=named, **arguments)
        need = answer.get("need")
        if need is None:
            return answer
        if not isinstance(need, str) or need in brought or need not in needed:
            raise NeedsTooMuch(str(need))
        brought.add(need)
        program = await _program(need)
        await ask("bring", program=program.sha256, content=base64.b64encode(program.content).decode())


async def _program(name: str) -> Archive:
    """Made in a thread the first time: packing takes a while."""
    return await asyncio.to_thread(_built, name)


def _built(name: str) -> Archive:
    """One at a time: what is remembered afterwards is not remembered by those who build it at the same moment."""
    with _building:
        return _PROGRAMS[name]()
