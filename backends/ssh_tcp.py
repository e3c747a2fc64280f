"""A TCP connection to a host by name, whatever addresses it has."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Sequence

from .contract import RouteError
from .ssh_errors import NoWay, TimedOut, from_os_error

TCP_DEADLINE = 10.0
_HEAD_START = 0.3  # for the addresses that the resolver likes better (RFC 8305 §5 says 0.25 s)

_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}


async def connect(host: str, port: int, family: str = "any", deadline: float | None = None) -> socket.socket:
    """The first address that answers; raises `RouteError`."""
    limit = deadline or TCP_DEADLINE
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(limit):
            found = await loop.getaddrinfo(
                host, port, family=_FAMILIES.get(family, socket.AF_UNSPEC), type=socket.SOCK_STREAM
            )
            return await _race(host, port, found)
    except TimeoutError:
        raise TimedOut(host, limit, "connecting") from None
    except (OSError, UnicodeError) as error:
        raise _as_ours(host, port, error) from error


async def _race(
    host: str, port: int, found: Sequence[tuple[int, int, int, str, tuple[object, ...]]]
) -> socket.socket:
    tries: list[asyncio.Task[socket.socket]] = []
    errors: list[BaseException] = []
    winner: asyncio.Task[socket.socket] | None = None
    addresses = iter(found)
    try:
        while winner is None:
            address = next(addresses, None)
            if address is not None:
                tries.append(asyncio.create_task(_one(address)))
            waiting = [each for each in tries if not each.done()]
            if not waiting:
                if address is None:
                    raise _as_ours(host, port, errors[0] if errors else OSError("it has no address"))
                continue
            done, _ = await asyncio.wait(
                waiting,
                timeout=_HEAD_START if address is not None else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            errors += [error for each in done if (error := each.exception()) is not None]
            winner = next((each for each in done if each.exception() is None), None)
        return winner.result()
    finally:
        for each in tries:
            if each is not winner:
                each.cancel()
                each.add_done_callback(_close_late)


async def _one(address: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
    family, kind, protocol, _, where = address
    with _closed_unless_open(socket.socket(family, kind, protocol)) as plug:
        plug.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plug, where)
        return plug


@contextlib.contextmanager
def _closed_unless_open(plug: socket.socket) -> Iterator[socket.socket]:
    try:
        yield plug
    except BaseException:
        plug.close()
        raise


def _close_late(task: asyncio.Task[socket.socket]) -> None:
    """Two addresses answered at the same moment: one is enough."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def _as_ours(host: str, port: int, error: BaseException) -> RouteError:
    if isinstance(error, RouteError):
        return error
    return from_os_error(host, port, error) if isinstance(error, OSError) else NoWay(host, str(error))
