"""To the door of a job, through the login host: a relay there carries bytes, and understands none of them."""

from __future__ import annotations

import asyncio
import secrets
import shlex
from collections.abc import Sequence

from ...launcher.agent.errands.doorway import ports
from ...launcher.text import one_line
from ..boot import PYTHONS
from ..contract import Receiver, Route, RouteError, Stream
from .command_route import Closed, Threshold
from .door_keys import DoorKeys
from .door_session import DoorRefused, DoorStream

_DEADLINE = 45.0

# Python 2 runs it too.  The first port that takes the connection is named after the mark; then come its bytes.
_RELAY = """\
import os, socket, sys
mark, host = sys.argv[1:3]
for port in sys.argv[3:]:
    try:
        there = socket.create_connection((host, int(port)), 10)
        break
    except (socket.error, socket.timeout) as error:
        said = error
else:
    sys.exit("%s: %s" % (host, said))
there.settimeout(None)
there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
there.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
os.write(1, ("%s %s\\n" % (mark, port)).encode())
if os.fork():
    os.close(1)
    try:
        data = os.read(0, 65536)
        while data:
            there.sendall(data)
            data = os.read(0, 65536)
        there.shutdown(socket.SHUT_WR)
    except (OSError, socket.error):
        pass
    os._exit(0)
os.close(0)
try:
    data = there.recv(65536)
    while data:
        while data:
            data = data[os.write(1, data):]
        data = there.recv(65536)
except (OSError, socket.error):
    pass
"""
_SCRIPT = """\
for python in {pythons}; do
  command -v "$python" >/dev/null 2>&1 || continue
  exec "$python" -c {relay} {mark} {host} {ports}
done
echo no Python is found there >&2
exit 1
"""


class DoorRoute:
    """Opens the shell behind the door; what is asked for is always ``/bin/sh -s`` (CommandRoute does the rest).

    ``known``: the ports that the job wrote down; where it could not, those are tried that its certificate names.
    """

    def __init__(self, relay: Route, keys: DoorKeys, node: str, known: Sequence[int], place: str) -> None:
        self._relay = relay
        self._keys = keys
        self._node = node
        self._ports = list(known) or ports(keys.job_certificate)
        self._place = place

    def __repr__(self) -> str:
        return f"<DoorRoute to {self._node}, ports {self._ports}>"

    async def open(self, command: Sequence[str], receiver: Receiver) -> Stream:
        left = list(self._ports)
        while True:
            stream = DoorStream(self._keys, receiver)
            outer, port = await self._connect(left, stream)
            try:
                await stream.greet(outer, self._place)
                return stream
            except DoorRefused:
                # Somebody else has the port; the job's door took the next one that was free.
                left = left[left.index(port) + 1 :]
                if not left:
                    raise

    async def _connect(self, numbers: Sequence[int], receiver: Receiver) -> tuple[Stream, int]:
        mark = secrets.token_hex(16)
        threshold = Threshold(mark.encode(), receiver)
        stream = await self._relay.open(("/bin/sh", "-s"), threshold)
        try:
            stream.write([_script(mark, self._node, numbers).encode()])
            async with asyncio.timeout(_DEADLINE):
                port = int(await threshold.crossed)
        except TimeoutError:
            stream.close()
            raise self._failed(f"no answer within {_DEADLINE:g} s") from None
        except (Closed, ValueError) as closed:
            stream.close()
            raise self._failed(str(closed)) from None
        except BaseException:
            stream.close()
            raise
        return threshold.hand_over(stream), port

    def _failed(self, why: str) -> RouteError:
        return RouteError(
            f"the door of {self._place} cannot be reached from the login host: {one_line(why)[-300:]}",
            "A firewall between login host and nodes would do that; other ways are tried",
        )


def _script(mark: str, host: str, numbers: Sequence[int]) -> str:
    return _SCRIPT.format(
        pythons=" ".join(map(shlex.quote, PYTHONS)),
        relay=shlex.quote(_RELAY),
        mark=mark,
        host=shlex.quote(host),
        ports=" ".join(map(str, numbers)),
    )
