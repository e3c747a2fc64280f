"""Sessions over a connection that an ssh program holds (ControlMaster), spoken as OpenSSH's PROTOCOL.mux says.

Speaking it ourselves needs no process per session, and says exactly whether a session was opened: the ssh program
itself would silently log in once more where MaxSessions is reached.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Sequence

from .contract import Receiver, RouteError
from .process_stream import PipeStream
from .ssh_connections import Done
from .ssh_errors import Cut, NoMoreSessions
from .ssh_settling import Settling

_HELLO, _VERSION = 0x00000001, 4
_NEW_SESSION, _ALIVE_CHECK = 0x10000002, 0x10000004
_DENIED, _FAILURE, _ALIVE, _OPENED = 0x80000002, 0x80000003, 0x80000005, 0x80000006
_NO_ESCAPE = 0xFFFFFFFE
_LARGEST = 256 * 1024
_DEADLINE = 10.0
_LAST_WORD = 1.0


class MuxError(Exception):
    """The master does not speak as it should; seen by `MuxConnection` only."""


# -- messages ----------------------------------------------------------------------------------------------


def encode(kind: int, *fields: int | bytes) -> bytes:
    """Length, type, then numbers as u32 and strings with their length."""
    body = struct.pack(">I", kind)
    for field in fields:
        body += struct.pack(">I", field) if isinstance(field, int) else struct.pack(">I", len(field)) + field
    return struct.pack(">I", len(body)) + body


def hello() -> bytes:
    return encode(_HELLO, _VERSION)


def new_session(request: int, command: str) -> bytes:
    """No terminal, no X11, no agent, no subsystem, no escape character."""
    return encode(_NEW_SESSION, request, b"", 0, 0, 0, 0, _NO_ESCAPE, b"", command.encode())


def decode(body: bytes) -> tuple[int, int, bytes]:
    """Type, the first number, and what follows it; raises `MuxError`."""
    if len(body) < 8:
        raise MuxError("a message is too short")
    kind, number = struct.unpack_from(">II", body)
    return kind, number, body[8:]


def reason(rest: bytes) -> str:
    """The string that a refusal carries."""
    (length,) = struct.unpack_from(">I", rest) if len(rest) >= 4 else (0,)
    return rest[4 : 4 + length].decode("utf-8", "replace")


# -- a connection ------------------------------------------------------------------------------------------


class Control:
    """One connection to the master's socket: one session, or a question."""

    def __init__(self, plug: socket.socket) -> None:
        self.plug = plug
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def open(cls, path: str) -> Control:
        """Connect and exchange hellos; raises OSError or `MuxError`."""
        plug = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        plug.setblocking(False)
        try:
            control = cls(plug)
            await control._loop.sock_connect(plug, path)
            await control._loop.sock_sendall(plug, hello())
            kind, version, _ = await control.read()
            if (kind, version) != (_HELLO, _VERSION):
                raise MuxError(f"it speaks version {version}")
            return control
        except BaseException:
            plug.close()
            raise

    async def read(self) -> tuple[int, int, bytes]:
        (length,) = struct.unpack(">I", await self._exactly(4))
        if length > _LARGEST:
            raise MuxError("a message is too long")
        return decode(await self._exactly(length))

    async def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = await self._loop.sock_recv(self.plug, count - len(data))
            if not piece:
                raise MuxError("it hung up")
            data += piece
        return data

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.plug, data)

    def send_descriptors(self, descriptors: Sequence[int]) -> None:
        """Each with a byte of its own, as the master takes them (three bytes: the socket's buffer has room)."""
        for descriptor in descriptors:
            socket.send_fds(self.plug, [b"\0"], [descriptor])

    def close(self) -> None:
        self.plug.close()


async def find_master(path: str) -> Control | None:
    """A connection to the master that listens there, if one does and answers."""
    try:
        async with asyncio.timeout(_DEADLINE):
            control = await Control.open(path)
    except (OSError, MuxError, TimeoutError):
        return None
    try:
        async with asyncio.timeout(_DEADLINE):
            await control.send(encode(_ALIVE_CHECK, 0))
            kind, _, _ = await control.read()
    except (OSError, MuxError, TimeoutError):
        kind = 0
    except BaseException:  # nobody waits for it any more
        control.close()
        raise
    if kind == _ALIVE:
        return control
    control.close()
    return None


class _Ending:
    """A receiver that is told why the stream ended: the master says whether the command did, or dies with it."""

    def __init__(self, receiver: Receiver, control: Control) -> None:
        self.data_received = receiver.data_received
        self.writable = receiver.writable
        self._receiver = receiver
        self._control = control
        self._task: asyncio.Task[None] | None = None
        self.wanted = False

    def closed(self, said: str) -> None:
        if self.wanted:
            self._control.close()
            self._receiver.closed(said)
            return
        self._task = asyncio.get_running_loop().create_task(self._close(said))

    async def _close(self, said: str) -> None:
        try:
            async with asyncio.timeout(_LAST_WORD):
                await self._control.read()
        except TimeoutError:
            pass  # the command left something behind that holds the session
        except (OSError, MuxError):
            said = said or "the ssh master lost its connection"
        finally:
            self._control.close()
            self._receiver.closed(said)


class MuxStream(PipeStream):
    """The pipes of one session."""

    def __init__(self, ending: _Ending, pipes: Sequence[int], on_end: Done) -> None:
        super().__init__(ending, pipes[0], pipes[1], pipes[2], on_end)
        self._ending = ending

    def close(self, dead: bool = False) -> None:
        self._ending.wanted = True
        super().close(dead)


class MuxSessions:
    """Opens commands over one master."""

    def __init__(self, path: str, host: str) -> None:
        self.path = path
        self._host = host
        self._numbers = 0
        self._settling = Settling()

    async def open(self, command: str, receiver: Receiver, done: Done) -> PipeStream:
        """Raises `NoMoreSessions`, or `Cut` when the master is gone."""
        try:
            control = await Control.open(self.path)
        except (OSError, MuxError) as error:
            raise Cut(self._host, f"its ssh master has gone ({error})") from error
        ours: list[int] = []
        theirs: list[int] = []
        try:
            for number in range(3):
                read, write = os.pipe()
                ours.append(read if number else write)
                theirs.append(write if number else read)
            self._numbers += 1
            await control.send(new_session(self._numbers, command))
            control.send_descriptors(theirs)
            await self._opened(control)
        except BaseException as error:
            control.close()
            _close(ours)
            if isinstance(error, asyncio.CancelledError):
                self._settling.note()
            if isinstance(error, OSError | MuxError):
                raise Cut(self._host, f"its ssh master has gone ({error})") from error
            raise
        finally:
            _close(theirs)

        def ended(dead: bool) -> None:
            self._settling.note()
            done(dead)

        return MuxStream(_Ending(receiver, control), ours, ended)

    async def _opened(self, control: Control) -> None:
        kind, _, rest = await control.read()
        if kind in (_FAILURE, _DENIED):
            raise self._refusal(reason(rest))
        if kind != _OPENED:
            raise MuxError(f"it answered with {kind:#x}")

    def _refusal(self, why: str) -> RouteError:
        return NoMoreSessions(self._host, why)

    async def settle(self) -> bool:
        return await self._settling.wait()


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
