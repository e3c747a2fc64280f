"""A route through a command that the far shell becomes: srun into a job, ssh to a node."""

from __future__ import annotations

import asyncio
import secrets
import shlex
from collections.abc import Sequence

from ...launcher.text import one_line
from ..contract import Receiver, Route, RouteError, Stream
from .contract import WayIn

_DEADLINE = 60.0
_MOST_NOISE = 64 * 1024


class CommandRoute:
    """Runs a command of the scheduler where its commands are, and in it what is asked for, inside the job.

    The far shell gets the script that starts it on its stdin and has nothing to quote.  Whatever is printed before the
    command is inside is skipped up to a mark; only then the stream is given out, so that nothing is read ahead.
    """

    def __init__(self, door: Route, preparation: str, way: WayIn, place: str) -> None:
        self._door = door
        self._preparation = preparation
        self._command = way.command
        self._joins_words = way.joins_words
        self._place = place

    def __repr__(self) -> str:
        return f"<CommandRoute by {self._command[0]} into {self._place}>"

    async def open(self, command: Sequence[str], receiver: Receiver) -> Stream:
        mark = secrets.token_hex(16)
        threshold = Threshold(mark.encode(), receiver)
        stream = await self._door.open(("/bin/sh", "-s"), threshold)
        try:
            stream.write([self.script(mark, command).encode()])
            async with asyncio.timeout(_DEADLINE):
                await threshold.crossed
        except TimeoutError:
            stream.close()
            raise self._failed(f"nothing came back within {_DEADLINE:g} s") from None
        except Closed as closed:
            stream.close()
            raise self._failed(str(closed)) from None
        except BaseException:
            stream.close()
            raise
        return threshold.hand_over(stream)

    def script(self, mark: str, command: Sequence[str]) -> str:
        """The last thing that the outer shell does is to become the scheduler's command."""
        inner = f"echo {mark}; exec {shlex.join(command)}"
        words = ["/bin/sh", "-c", inner]
        if self._joins_words:
            # For a login shell that nobody knows: no backslash, and single quotes around what has none (DESIGN §4).
            words = [f"exec /bin/sh -c {shlex.quote(inner)}"]
        outer = shlex.join([*self._command, *words])
        return f"{self._preparation}\nexec {outer}\n"

    def _failed(self, why: str) -> RouteError:
        return RouteError(
            f"{self._command[0]} does not get into {self._place}: {one_line(why)[:300]}",
            "Try it by hand where the job was submitted: " + shlex.join([*self._command, "hostname"]),
        )


class Closed(Exception):
    """The stream ended before the mark had come."""


class Threshold:
    """Reads up to the line with the mark, then passes everything on; ``crossed`` is what else the line said."""

    def __init__(self, mark: bytes, receiver: Receiver) -> None:
        self._mark = mark
        self._receiver = receiver
        self._seen = bytearray()
        self._inside = False
        self._over = False
        self._early: list[bytes] = []
        self._ended: str | None = None
        self.crossed: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def hand_over(self, stream: Stream) -> Stream:
        """The receiver may be called from now on."""
        self._inside = True
        for data in self._early:
            self._receiver.data_received(data)
        if self._ended is not None:
            self._receiver.closed(self._ended)
        return stream

    def data_received(self, data: bytes) -> None:
        if self._inside:
            self._receiver.data_received(data)
        elif self.crossed.done():
            self._early.append(data)
        else:
            self._look(data)

    def _look(self, data: bytes) -> None:
        self._seen += data
        place = self._seen.find(self._mark)
        end = self._seen.find(b"\n", place)
        if place >= 0 and end >= 0:
            rest = bytes(self._seen[end + 1 :])
            self._early += [rest] if rest else []
            line = self._seen[place + len(self._mark) : end]
            self.crossed.set_result(line.decode("ascii", "replace").strip())
        elif len(self._seen) > _MOST_NOISE:
            self.crossed.set_exception(Closed("it printed more than 64 KiB before it was inside"))

    def writable(self) -> None:
        if self._inside:
            self._receiver.writable()

    def closed(self, said: str) -> None:
        if self._inside:
            self._receiver.closed(said)
        elif self.crossed.done():
            self._ended = said
        else:
            self.crossed.set_exception(Closed(said or self._seen[-300:].decode("utf-8", "replace")))
