"""A process that publishes numbered messages as fast as it is allowed to, for tests that kill it.

Arguments: ip of the ipc endpoints, position file, last number, seconds to wait for the subscribers of the former one.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from farkernel.launcher.local_end.contract import ConnectionInfo
from farkernel.launcher.local_end.positions import PositionFile
from farkernel.launcher.local_end.sockets import open_sockets

PAYLOAD = b"x" * 300


def connection(ip: str) -> ConnectionInfo:
    ports = {"shell_port": 1, "iopub_port": 2, "stdin_port": 3, "control_port": 4, "hb_port": 5}
    return ConnectionInfo.from_dict({"transport": "ipc", "ip": ip, **ports})


def frames(number: int) -> list[bytes]:
    """Every thousandth message is a large one."""
    payload = PAYLOAD * 3000 if number % 1000 == 0 else PAYLOAD
    return [b"stream", b"%d" % number, payload]


async def flood(ip: str, path: Path, last: int, patience: float) -> None:
    positions = PositionFile(path)
    returning = positions.waiting
    number = positions.last_written() or 0
    sockets = await open_sockets(connection(ip), positions)
    iopub = sockets.iopub
    come = asyncio.Event()
    drained = asyncio.Event()
    iopub.on_drained = drained.set
    iopub.on_subscribe = lambda _subscriber, _topic: come.set() if iopub.subscribers >= returning else None
    async with asyncio.timeout(patience):
        await come.wait()
    while number < last:
        for _ in range(100):
            number += 1
            iopub.publish(frames(number), number)
        drained.clear()
        if iopub.full:
            await drained.wait()
        await asyncio.sleep(0)
    await asyncio.Event().wait()


if __name__ == "__main__":
    signal.alarm(120)  # should the test itself be killed
    asyncio.run(flood(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
