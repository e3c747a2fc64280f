"""The kernel's sockets: verified requests in, signed messages out."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from functools import partial
from typing import Literal

from ..local_end.contract import ConnectionInfo, LocalSockets, Subscriber
from ..local_end.sockets import open_sockets
from ..messages import Composer, Message, MessageError, Signer

log = logging.getLogger(__name__)

Channel = Literal["shell", "control", "stdin"]
OnRequest = Callable[[Channel, Message], None]


class Wire:
    """Five sockets with one signer; `open` binds them."""

    def __init__(self, sockets: LocalSockets, on_request: OnRequest) -> None:
        self._sockets = sockets
        self._on_request = on_request
        connection = sockets.connection
        self._signer = Signer(connection.key, connection.signature_scheme)
        self.composer = Composer(self._signer, uuid.uuid4().hex)
        sockets.shell.on_message = partial(self._receive, "shell")
        sockets.control.on_message = partial(self._receive, "control")
        sockets.stdin.on_message = partial(self._receive, "stdin")
        sockets.iopub.on_subscribe = self._welcome

    @classmethod
    async def open(cls, connection: ConnectionInfo, on_request: OnRequest) -> Wire:
        """Raises `BindError`."""
        return cls(await open_sockets(connection), on_request)

    @property
    def connection(self) -> ConnectionInfo:
        return self._sockets.connection

    def publish(self, message: Message) -> None:
        self._sockets.iopub.publish(message.frames(), 0)

    def reply(self, channel: Channel, message: Message) -> None:
        """To the client that the message's identities name: the first is its address on our socket."""
        socket = {
            "shell": self._sockets.shell,
            "control": self._sockets.control,
            "stdin": self._sockets.stdin,
        }[channel]
        identity, *others = message.identities
        without = Message(others, message.signature, message.parts, message.buffers)
        socket.send(identity, without.frames())

    def close(self) -> None:
        self._sockets.close()

    def _receive(self, channel: Channel, identity: bytes, frames: list[bytes]) -> None:
        try:
            message = Message.split(frames)
            self._signer.verify(message)
            _ = message.header  # raises if there is none
        except MessageError as error:
            log.warning("on %s: %s", channel, error)
            return
        message.identities = [identity, *message.identities]
        self._on_request(channel, message)

    def _welcome(self, subscriber: Subscriber, topic: bytes) -> None:
        message = self.composer.iopub_welcome(topic)
        message.identities = message.identities or [b"iopub_welcome"]
        self._sockets.iopub.send_to(subscriber, message.frames())
