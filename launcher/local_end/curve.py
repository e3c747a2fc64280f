"""The local end's sockets with CurveZMQ, made by pyzmq: for connection files that carry Curve keys.

The connection file's key pair is the server's; whoever has the file has the public key, without which nobody
gets in (jupyter_client ≥ 8.9 and ipykernel do the same).

pyzmq and not our own servers: libsodium's box is not in the standard library.  The price: libzmq does not say
what was written to whom.  So `written` is what libzmq has taken, after a kill the messages inside it are
gone, and all subscribers are one `Subscriber`.

libzmq's descriptor is edge-triggered and stands for the socket's mailbox, not for messages: after it fires,
and also after each call of our own, ZMQ_EVENTS must be read again until it says that there is nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import zmq

from ..agent.zmtp import Buffer
from . import contract
from .contract import BindError, Channel, ConnectionInfo, LocalSockets
from .endpoints import bind
from .positions import PositionFile
from .publisher import PublishLimits

log = logging.getLogger(__name__)

_TURN = 100  # messages read before others have their turn
_RETRY = 0.05


class _Socket:
    """A zmq socket in the event loop: reads whatever comes."""

    def __init__(
        self, kind: int, connection: ConnectionInfo, channel: Channel, limits: PublishLimits
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.channel = channel
        self.limits = limits
        self.zmq: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
        self._set(
            (zmq.LINGER, 1000),  # the last reply still goes out
            (zmq.MAXMSGSIZE, limits.message),
            (zmq.HANDSHAKE_IVL, int(limits.handshake * 1000)),
            (zmq.IPV6, int(":" in connection.ip)),
            (zmq.CURVE_SECRETKEY, connection.curve_secretkey or b""),
            (zmq.CURVE_PUBLICKEY, connection.curve_publickey or b""),
            (zmq.CURVE_SERVER, 1),
        )
        self._path: str | None = None
        self._scheduled = False
        self.configure()
        try:
            self.port = self._bind(connection)
        except BaseException:
            self.zmq.close()
            raise
        self._descriptor: int = self.zmq.FD
        self.loop.add_reader(self._descriptor, self.pump)
        self.pump_soon()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.channel} curve>"

    def configure(self) -> None:
        """Options of this kind of socket."""

    def _set(self, *options: tuple[int, int | bytes]) -> None:
        for option, value in options:
            self.zmq.setsockopt(option, value)

    def _readable(self) -> bool:
        return bool(int(self.zmq.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    def _bind(self, connection: ConnectionInfo) -> int:
        endpoint = connection.endpoint(self.channel)
        # The same checks (directory, stale file, length) and sentences as for our own servers.
        probe = bind(connection, self.channel)
        port = probe.port
        probe.close()
        if connection.transport == "tcp":
            endpoint = endpoint.rpartition(":")[0] + f":{port}"
        try:
            self.zmq.bind(endpoint)
        except zmq.ZMQError as error:
            raise BindError(endpoint, error.strerror or str(error), "Start the kernel again.") from None
        if connection.transport == "ipc":
            self._path = endpoint.removeprefix("ipc://")
            os.chmod(self._path, 0o600)
        return port

    def received(self, frames: list[bytes]) -> None:
        raise NotImplementedError

    def pump(self) -> None:
        """Reads what is there."""
        self._scheduled = False
        if self.zmq.closed:
            return
        for _ in range(_TURN):
            if not self._readable():
                return
            try:
                frames = self.zmq.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                continue
            try:
                self.received(frames)
            except Exception as error:  # noqa: BLE001
                # A fault in whoever uses us must not take the messages that come after it.
                self.loop.call_exception_handler({"message": f"in a handler of {self!r}", "exception": error})
            if self.zmq.closed:
                return
        self.pump_soon()

    def pump_soon(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self.pump)

    def try_send(self, frames: Sequence[Buffer]) -> bool:
        """False: not now.  Raises zmq.ZMQError for anything else."""
        try:
            self.zmq.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        finally:
            if self._readable():
                self.pump_soon()  # sending has eaten the edge
        return True

    def close(self) -> None:
        if self.zmq.closed:
            return
        self.loop.remove_reader(self._descriptor)
        self.zmq.close()
        if self._path is not None:
            # libzmq's own thread removes it as well, at some later time.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)


class CurveRouter(_Socket):
    """ROUTER (contract.RouterSocket)."""

    def __init__(self, connection: ConnectionInfo, channel: Channel, limits: PublishLimits) -> None:
        self.on_message: Callable[[bytes, list[bytes]], None] = _ignore_message
        super().__init__(zmq.ROUTER, connection, channel, limits)

    def configure(self) -> None:
        # MANDATORY: an unknown identity is an error instead of nothing.
        self._set((zmq.ROUTER_HANDOVER, 1), (zmq.ROUTER_MANDATORY, 1))

    def received(self, frames: list[bytes]) -> None:
        self.on_message(frames[0], frames[1:])

    def send(self, identity: bytes, frames: Sequence[Buffer]) -> bool:
        try:
            if self.try_send([identity, *frames]):
                return True
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return False
        log.warning("%r: a client does not read, a message for it is dropped", self)
        return False


class CurveHeartbeat(_Socket):
    """Echo: as a ROUTER, so that a REQ gets its empty frame back and a DEALER what it sent."""

    def __init__(self, connection: ConnectionInfo, limits: PublishLimits) -> None:
        super().__init__(zmq.ROUTER, connection, "hb", limits)

    def configure(self) -> None:
        self._set((zmq.MAXMSGSIZE, 65536))

    def received(self, frames: list[bytes]) -> None:
        self.try_send(frames)


class CurveSubscriber:
    """All subscribers together: libzmq does not tell them apart."""

    pid = 0

    def __init__(self) -> None:
        self.missed = 0


class CurvePublisher(_Socket):
    """XPUB (contract.PublishSocket)."""

    def __init__(self, connection: ConnectionInfo, limits: PublishLimits) -> None:
        self.on_subscribe: Callable[[contract.Subscriber, bytes], None] = _ignore_subscription
        self.on_gone: Callable[[contract.Subscriber], None] = _ignore_gone
        self.on_drained: Callable[[], None] = _ignore_drained
        self.full = False
        self.written = 0
        self.subscribers = 0
        self.everyone = CurveSubscriber()
        self._queue: deque[tuple[Sequence[Buffer], int, int]] = deque()
        self._waiting = 0
        self._last_taken = 0.0
        self._retry: asyncio.TimerHandle | None = None
        super().__init__(zmq.XPUB, connection, "iopub", limits)

    def configure(self) -> None:
        # VERBOSER passes on every unsubscription too, also of a subscriber that went away: so they are
        # counted. libzmq's queue is counted in messages (SNDHWM), ours, behind it, in bytes.
        self._set((zmq.XPUB_VERBOSER, 1), (zmq.XPUB_NODROP, 1), (zmq.SNDHWM, 1000))

    def received(self, frames: list[bytes]) -> None:
        topic = frames[0][1:]
        if frames[0][:1] == b"\x01":
            self.subscribers += 1
            self.on_subscribe(self.everyone, topic)
        elif frames[0][:1] == b"\x00":
            self.subscribers = max(0, self.subscribers - 1)
            self.on_gone(self.everyone)

    def pump(self) -> None:
        super().pump()
        self._send_waiting()

    def flush(self) -> None:
        """It was written when it was published."""

    def publish(self, frames: Sequence[Buffer], number: int, more: bool = False) -> int:
        size = sum(memoryview(frame).nbytes for frame in frames)
        if not self._queue:
            self._last_taken = self.loop.time()
        self._queue.append((frames, number, size))
        self._waiting += size
        self._send_waiting()
        self.full = self.full or self._waiting > self.limits.high
        return self.subscribers

    def send_to(self, subscriber: contract.Subscriber, frames: Sequence[Buffer]) -> None:
        """To all who have subscribed to its topic: a welcome may be seen by others too."""
        self.publish(frames, 0)

    def _send_waiting(self) -> None:
        if self.zmq.closed:
            return
        while self._queue:
            frames, number, size = self._queue[0]
            if not self.try_send(frames) and not self._send_to_those_who_read(frames):
                break
            self._queue.popleft()
            self._waiting -= size
            self.written = max(self.written, number)
            self._last_taken = self.loop.time()
        if self._queue and self._retry is None:
            # The mailbox tells when a subscriber has room again; this is for the case that it does not.
            self._retry = self.loop.call_later(_RETRY, self._try_again)
        if self.full and self._waiting < self.limits.low:
            self.full = False
            self.loop.call_soon(self._drained)

    def _send_to_those_who_read(self, frames: Sequence[Buffer]) -> bool:
        """Somebody has taken nothing for too long: without him."""
        if self.loop.time() - self._last_taken < self.limits.stall:
            return False
        if not self.everyone.missed:
            log.warning("a subscriber has taken nothing for %.0f s: it is not waited for", self.limits.stall)
        self.everyone.missed += 1
        self._drop_when_full(True)
        try:
            return self.try_send(frames)
        finally:
            self._drop_when_full(False)
            self._last_taken = self.loop.time() - self.limits.stall

    def _drop_when_full(self, drop: bool) -> None:
        self._set((zmq.XPUB_NODROP, int(not drop)))

    def _try_again(self) -> None:
        self._retry = None
        self._send_waiting()

    def _drained(self) -> None:
        if not self.full and not self.zmq.closed:
            self.on_drained()

    def close(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        super().close()


def _ignore_message(identity: bytes, frames: list[bytes]) -> None:
    return


def _ignore_subscription(subscriber: contract.Subscriber, topic: bytes) -> None:
    return


def _ignore_gone(subscriber: contract.Subscriber) -> None:
    return


def _ignore_drained() -> None:
    return


async def open_curve_sockets(
    connection: ConnectionInfo,
    positions: Path | PositionFile | None = None,
    limits: PublishLimits | None = None,
) -> LocalSockets:
    """As `sockets.open_sockets`.  `positions` is not used: see above."""
    if isinstance(positions, PositionFile):
        positions.close()  # noqa: ASYNC240 (it is not a Path)
    limits = limits or PublishLimits()
    if not zmq.has("curve"):
        raise BindError(
            connection.endpoint("shell"),
            "the connection file has Curve keys, and this pyzmq was built without Curve",
            "Install a pyzmq from PyPI or conda-forge, or set transport_encryption to disabled.",
        )
    opened: dict[Channel, _Socket] = {}
    try:
        shell = opened["shell"] = CurveRouter(connection, "shell", limits)
        control = opened["control"] = CurveRouter(connection, "control", limits)
        stdin = opened["stdin"] = CurveRouter(connection, "stdin", limits)
        iopub = opened["iopub"] = CurvePublisher(connection, limits)
        heartbeat = opened["hb"] = CurveHeartbeat(connection, limits)
    except BaseException:
        for one in opened.values():
            one.close()
        raise
    if connection.transport == "tcp":
        connection = connection.with_ports({channel: one.port for channel, one in opened.items()})
    return LocalSockets(connection, shell, control, stdin, iopub, heartbeat)
