"""The keeper's client for coroutines: nothing here blocks the loop that it runs on.

The socket belongs to the `KeeperClient`'s thread, so one connection serves all kernels of a notebook server,
and also loops that run for the length of one call only (jupyter_client's blocking managers).
"""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress
from typing import Any

from .client import KeeperClient
from .client_protocol import Answer, KeeperSilent

_clients: dict[tuple[int, str | None], KeeperClient] = {}
_clients_lock = threading.Lock()


def shared_client(directory: str | None = None) -> KeeperClient:
    """The one client of this process (after a fork the child gets its own)."""
    key = (os.getpid(), directory)
    with _clients_lock:
        client = _clients.get(key)
        if client is None:
            client = _clients[key] = KeeperClient(directory)
        return client


async def request(client: KeeperClient, do: str, timeout: float = 30.0, **arguments: Any) -> dict[str, Any]:
    """Like `KeeperClient.request`; when it is cancelled, nobody waits for the answer any more."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Answer] = loop.create_future()

    def settle(answer: Answer) -> None:
        if not future.done():
            future.set_result(answer)

    def done(answer: Answer) -> None:
        # The loop may be over before the answer comes.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, answer)

    number = client.submit(do, arguments, done)
    try:
        answer = await asyncio.wait_for(future, timeout)
    except TimeoutError:
        raise KeeperSilent(do, timeout) from None
    finally:
        client.forget(number)
    return answer.result()
