"""A TCP connection to a host by name, whatever addresses it has."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Iterator, Sequence

from .contract import RouteError
from .ssh_errors import CONNECTING, NoWay, TimedOut, from_os_error

TCP_DEADLINE = 10.0
# The system asks again after 1, 3, 7, 15 s: far too late when a network is back.  A fresh try every second finds it.
_AGAIN_AFTER, _MOST_TRIES = 1.0, 4
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
        raise TimedOut(host, limit, CONNECTING) from None
    except (OSError, UnicodeError) as error:
        raise _as_ours(host, port, error) from error


Address = tuple[int, int, int, str, tuple[object, ...]]


async def _race(host: str, port: int, found: Sequence[Address]) -> socket.socket:
    tries: list[asyncio.Task[socket.socket]] = []
    errors: list[BaseException] = []
    winner: asyncio.Task[socket.socket] | None = None
    addresses = itertools.cycle(found)
    try:
        while winner is None:
            if len(errors) >= len(found):  # all of them have said no
                raise _as_ours(host, port, errors[0] if errors else OSError("it has no address"))
            tries.append(asyncio.create_task(_one(next(addresses))))
            first_round = len(tries) < len(found)
            done, _ = await asyncio.wait(
                [each for each in tries[-_MOST_TRIES - len(found) :] if not each.done()],
                timeout=_HEAD_START if first_round else _AGAIN_AFTER,
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


async def _one(address: Address) -> socket.socket:
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
