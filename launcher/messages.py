"""Jupyter messages on the wire: taken apart, verified, changed as little as possible, put together.

https://jupyter-client.readthedocs.io/en/stable/messaging.html#the-wire-protocol

A message that passes through us is parsed no further than its header; the other parts stay the bytes that
they were. Nothing that comes from outside is trusted: whatever is wrong with it raises `MessageError` and
nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from .agent.zmtp import Buffer
from .errors import FarkernelError

DELIMITER = b"<IDS|MSG>"
PROTOCOL_VERSION = "5.4"

JsonObject = dict[str, Any]

_MAX_IDENTITIES = 16
_EMPTY = b"{}"
# They are kept: json.dumps with separators makes a new one on every call, json.loads guesses encodings.  Encoded as
# ASCII only, so that a lone surrogate in somebody's header goes through instead of failing to encode.
_decode = json.JSONDecoder().decode
_encode = json.JSONEncoder(separators=(",", ":")).encode
_PLAIN = re.compile(r"[\w-]+").fullmatch


class MessageError(FarkernelError):
    """A message that is not a Jupyter message, or not signed with this kernel's key."""

    kind: ClassVar[str] = "message"

    def __init__(self, what: str) -> None:
        super().__init__(f"A message was refused: {what}", "If this goes on, restart the kernel.")


def parse_object(part: Buffer, name: str = "part") -> JsonObject:
    """A JSON object out of one part of a message."""
    try:
        value = _decode(str(part, "utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:  # ValueError: also bad UTF-8, and integers of 5,000 digits
        raise MessageError(f"its {name} is not JSON ({type(error).__name__})") from None
    if not isinstance(value, dict):
        raise MessageError(f"its {name} is not a JSON object")
    return value


def pack(value: Mapping[str, Any]) -> bytes:
    return _encode(value).encode("ascii")


class Message:
    """One message in its parts.  `parts` are header, parent header, metadata and content, as bytes.

    The parsed views (`header`, `parent`, `metadata`, `content`) are made when first asked for; changing them
    does not change the parts.
    """

    __slots__ = ("_parsed", "buffers", "identities", "parts", "signature")

    def __init__(
        self,
        identities: Sequence[bytes],
        signature: bytes,
        parts: Sequence[bytes],
        buffers: Sequence[Buffer] = (),
    ) -> None:
        self.identities = list(identities)
        self.signature = signature
        self.parts = list(parts)
        self.buffers = list(buffers)
        self._parsed: list[JsonObject | None] = [None, None, None, None]

    @classmethod
    def split(cls, frames: Sequence[Buffer]) -> Message:
        """From a ZeroMQ message's frames: identities or topic, delimiter, signature, four parts, buffers."""
        try:
            index = frames.index(DELIMITER, 0, _MAX_IDENTITIES + 1)
        except ValueError:
            raise MessageError("it has no delimiter") from None
        fixed = [frame if isinstance(frame, bytes) else bytes(frame) for frame in frames[: index + 6]]
        if len(fixed) < index + 6:
            raise MessageError(f"it has {len(fixed) - index - 1} parts after the delimiter instead of 5")
        return cls(fixed[:index], fixed[index + 1], fixed[index + 2 :], frames[index + 6 :])

    def frames(self) -> list[Buffer]:
        """What `split` takes; buffers by reference."""
        return [*self.identities, DELIMITER, self.signature, *self.parts, *self.buffers]

    @property
    def header(self) -> JsonObject:
        """The header; its `msg_id`, `msg_type` and `session` are strings."""
        header = self._parsed[0]
        if header is None:
            header = parse_object(self.parts[0], "header")
            for name in ("msg_id", "msg_type", "session"):
                if not isinstance(header.get(name), str):
                    raise MessageError(f"its header has no {name}")
            self._parsed[0] = header
        return header

    @property
    def parent(self) -> JsonObject:
        """The parent header, which may be empty."""
        return self._part(1, "parent header")

    @property
    def metadata(self) -> JsonObject:
        return self._part(2, "metadata")

    @property
    def content(self) -> JsonObject:
        return self._part(3, "content")

    @property
    def msg_type(self) -> str:
        msg_type: str = self.header["msg_type"]
        return msg_type

    @property
    def msg_id(self) -> str:
        msg_id: str = self.header["msg_id"]
        return msg_id

    def _part(self, index: int, name: str) -> JsonObject:
        value = self._parsed[index]
        if value is None:
            value = self._parsed[index] = parse_object(self.parts[index], name)
        return value

    def __repr__(self) -> str:
        try:
            name = ascii(self.msg_type[:40])
        except MessageError:
            name = "unreadable"
        return f"<Message {name}, {len(self.identities)} identities, {len(self.buffers)} buffers>"


class Signer:
    """Signs and verifies with one kernel's key; an empty key means no signatures at all."""

    def __init__(self, key: bytes, scheme: str = "hmac-sha256") -> None:
        name = scheme.removeprefix("hmac-")
        if name == scheme or name not in hashlib.algorithms_available or name.startswith("shake"):
            raise MessageError(f"the signature scheme {scheme[:40]!r} is not known here")
        self.scheme = scheme
        self._template = hmac.new(key, digestmod=name) if key else None

    def __repr__(self) -> str:  # never the key
        return f"<Signer {self.scheme}{'' if self._template else ', no key'}>"

    def sign(self, parts: Sequence[bytes]) -> bytes:
        if self._template is None:
            return b""
        digest = self._template.copy()
        # One update of the joined parts is quicker than four, as long as there is little to copy.
        if len(parts[3]) < 16384:
            digest.update(b"".join(parts))
        else:
            for part in parts:
                digest.update(part)
        return digest.hexdigest().encode("ascii")

    def verify(self, message: Message) -> None:
        """Raises MessageError unless the message carries the right signature."""
        if self._template is None:
            return
        if not hmac.compare_digest(self.sign(message.parts), message.signature):
            raise MessageError("its signature is wrong" if message.signature else "it is not signed")

    def with_session(self, message: Message, session: str, resent: bool = False) -> Message:
        """The same message in another session, signed anew; other parts and buffers are the same objects."""
        header = {**message.header, "session": session}
        encoded = None
        if resent:
            # jupyter_client refuses the same signature twice, and a notebook server whose stream meets that error
            # reads no further: what may have been sent before must not be quite the same.
            header["resent"] = True
        else:
            encoded = _with_text_replaced(message.parts[0], message.header["session"], session)
        parts = [encoded or pack(header), *message.parts[1:]]
        changed = Message(message.identities, self.sign(parts), parts, message.buffers)
        changed._parsed[0] = header
        return changed

    def resign(self, message: Message) -> Message:
        """With a signature by this key in place of another; nothing else changes."""
        return Message(message.identities, self.sign(message.parts), message.parts, message.buffers)


def _with_text_replaced(part: bytes, old: str, new: str) -> bytes | None:
    """The JSON text with one string put for another: a third of what encoding it again takes.

    None: it cannot be told where that string stands.  Without a backslash each string is written just as it is, and a
    string of letters and digits between quotes is nothing else, not the end of one and the beginning of another.
    """
    quoted = b'"%b"' % old.encode("utf-8", "surrogatepass")
    if b"\\" in part or part.count(quoted) != 1 or not _PLAIN(old):
        return None
    return part.replace(quoted, b'"%b"' % new.encode("ascii"))


class Composer:
    """Makes messages of our own in one session (DESIGN §4: one `header.session` for one kernel's life).

    `parent` is the message that caused the new one, or None.  The results are signed and complete: those for
    iopub carry their topic, replies carry the identities of the request.
    """

    def __init__(self, signer: Signer, session: str, username: str = "kernel") -> None:
        self.signer = signer
        self.session = session
        self.username = username
        # Message ids must never come twice, not from a keeper that was started again either.
        self._prefix = os.urandom(8).hex()
        self._count = 0

    def compose(
        self,
        msg_type: str,
        content: Mapping[str, Any],
        parent: Message | None = None,
        identities: Sequence[bytes] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> Message:
        self._count += 1
        header = {
            "msg_id": f"{self.session}_{self._prefix}_{self._count}",
            "msg_type": msg_type,
            "username": self.username,
            "session": self.session,
            "date": datetime.fromtimestamp(time.time(), UTC).isoformat().replace("+00:00", "Z"),
            "version": PROTOCOL_VERSION,
        }
        parts = [
            pack(header),
            parent.parts[0] if parent is not None else _EMPTY,
            pack(metadata) if metadata else _EMPTY,
            pack(content),
        ]
        return Message(identities, self.signer.sign(parts), parts)

    # -- iopub

    def status(self, state: str, parent: Message | None = None) -> Message:
        return self.compose("status", {"execution_state": state}, parent, [b"status"])

    def stream(self, text: str, parent: Message | None = None, name: str = "stdout") -> Message:
        return self.compose("stream", {"name": name, "text": text}, parent, [b"stream." + name.encode()])

    def clear_output(self, parent: Message, wait: bool = False) -> Message:
        return self.compose("clear_output", {"wait": wait}, parent, [b"clear_output"])

    def error(self, parent: Message, ename: str, evalue: str, traceback: Sequence[str]) -> Message:
        return self.compose("error", _error_content(ename, evalue, traceback), parent, [b"error"])

    def execute_input(self, parent: Message, code: str, execution_count: int) -> Message:
        content = {"code": code, "execution_count": execution_count}
        return self.compose("execute_input", content, parent, [b"execute_input"])

    def display_data(
        self, parent: Message, data: Mapping[str, str], display_id: str, update: bool = False
    ) -> Message:
        """A display that can be changed later: the same `display_id` with `update`."""
        msg_type = "update_display_data" if update else "display_data"
        content = {"data": data, "metadata": {}, "transient": {"display_id": display_id}}
        return self.compose(msg_type, content, parent, [msg_type.encode()])

    def iopub_welcome(self, subscription: bytes) -> Message:
        """For one subscriber; the topic is its subscription (JEP 65), so that its filter lets it through."""
        content = {"subscription": subscription.decode("utf-8", "replace")}
        return self.compose("iopub_welcome", content, None, [subscription] if subscription else [])

    # -- replies

    def reply(self, request: Message, content: Mapping[str, Any], msg_type: str = "") -> Message:
        """To any request; the type is the request's with `_reply` unless it is given."""
        name = msg_type or request.msg_type.removesuffix("_request") + "_reply"
        return self.compose(name, content, request, request.identities)

    def kernel_info_reply(self, request: Message, content: Mapping[str, Any]) -> Message:
        return self.reply(request, {"status": "ok", **content}, "kernel_info_reply")

    def interrupt_reply(self, request: Message) -> Message:
        return self.reply(request, {"status": "ok"}, "interrupt_reply")

    def shutdown_reply(self, request: Message, restart: bool) -> Message:
        return self.reply(request, {"status": "ok", "restart": restart}, "shutdown_reply")

    def error_reply(
        self, request: Message, ename: str, evalue: str, traceback: Sequence[str] = ()
    ) -> Message:
        return self.reply(request, {"status": "error", **_error_content(ename, evalue, traceback)})

    def execute_reply_error(
        self,
        request: Message,
        ename: str,
        evalue: str,
        traceback: Sequence[str] = (),
        execution_count: int = 0,
    ) -> Message:
        content = {
            "status": "error",
            "execution_count": execution_count,
            "user_expressions": {},
            "payload": [],
            **_error_content(ename, evalue, traceback),
        }
        return self.reply(request, content, "execute_reply")

    def execute_reply_aborted(self, request: Message) -> Message:
        return self.reply(request, {"status": "aborted"}, "execute_reply")

    # -- requests

    def input_request(self, parent: Message, prompt: str, password: bool = False) -> Message:
        """Goes to the stdin channel of whoever sent `parent` (same identities: DESIGN §4)."""
        content = {"prompt": prompt, "password": password}
        return self.compose("input_request", content, parent, parent.identities)

    def request(self, msg_type: str, content: Mapping[str, Any], identities: Sequence[bytes] = ()) -> Message:
        """A request of ours to a kernel: kernel_info_request, interrupt_request, shutdown_request."""
        return self.compose(msg_type, content, None, identities)


def _error_content(ename: str, evalue: str, traceback: Sequence[str]) -> JsonObject:
    return {"ename": ename, "evalue": evalue, "traceback": list(traceback)}
