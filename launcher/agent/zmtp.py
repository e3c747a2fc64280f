"""ZMTP 3.0 and 3.1 with the NULL mechanism, without I/O: bytes in, events and bytes out.

Used by the agent (client roles: it connects to a kernel's sockets) and by the local end (server roles: front
ends connect to us).  References: https://rfc.zeromq.org/spec/23/ (ZMTP 3.0) and
https://rfc.zeromq.org/spec/37/ (3.1).

Nothing here trusts the other side: every size is bounded, and a violation raises `ZmtpError`, after which the
connection is of no more use.
"""

import struct
from typing import Dict, FrozenSet, List, NamedTuple, Optional, Sequence, Tuple, Union

Buffer = Union[bytes, bytearray, memoryview]

MORE = 0x01
LONG = 0x02
COMMAND = 0x04

#: Frames up to this size are copied together with their headers; larger ones are passed on by reference.
COPY_LIMIT = 8192
MAX_MESSAGE = 1 << 30
MAX_FRAMES = 16384
MAX_COMMAND = 65536

_SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
_GREETING_SIZE = 64
#: signature, version 3.1, mechanism NULL, as-server 0, filler
GREETING = _SIGNATURE + b"\x03\x01" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)

#: Which socket types may talk to which (spec 23, "The Socket-Type Property").
_PARTNERS: Dict[str, FrozenSet[str]] = {
    "DEALER": frozenset(("REP", "DEALER", "ROUTER")),
    "SUB": frozenset(("PUB", "XPUB")),
    "ROUTER": frozenset(("REQ", "DEALER", "ROUTER")),
    "XPUB": frozenset(("SUB", "XSUB")),
    "REP": frozenset(("REQ", "DEALER")),
}

_LONG_HEADER = struct.Struct(">BQ")


class ZmtpError(Exception):
    """The other side broke the protocol, or refused us; the text says how."""


Command = NamedTuple("Command", [("name", bytes), ("body", bytes)])
Peer = NamedTuple(
    "Peer", [("minor", int), ("socket_type", str), ("identity", bytes), ("metadata", Dict[str, bytes])]
)
Event = Union[List[bytes], Command]  # a message is the list of its frames


# -- encoding


def _size_of(frame: Buffer) -> int:
    return frame.nbytes if isinstance(frame, memoryview) else len(frame)


def encode_frame_header(size: int, flags: int = 0) -> bytes:
    if size < 256:
        return bytes((flags, size))
    return _LONG_HEADER.pack(flags | LONG, size)


def encode_message(frames: Sequence[Buffer]) -> List[Buffer]:
    """One multipart message as buffers to write one after the other.

    Frames over `COPY_LIMIT` are in the result by reference: they must not change until they are written.
    A message of small frames is one `bytes`.
    """
    if not frames:
        raise ValueError("a message has at least one frame")
    buffers = []  # type: List[Buffer]
    small = []  # type: List[Buffer]
    last = len(frames) - 1
    for index, frame in enumerate(frames):
        size = _size_of(frame)
        small.append(encode_frame_header(size, MORE if index < last else 0))
        if size <= COPY_LIMIT:
            small.append(frame)
        else:
            buffers.append(b"".join(small))
            small = []
            is_foreign = isinstance(frame, memoryview) and frame.format != "B"
            buffers.append(memoryview(frame).cast("B") if is_foreign else frame)
    if small:
        buffers.append(b"".join(small))
    return buffers


def encode_command(name: bytes, body: bytes = b"") -> bytes:
    content = bytes((len(name),)) + name + body
    return encode_frame_header(len(content), COMMAND) + content


def encode_subscription(topic: bytes, minor: int, subscribe: bool = True) -> bytes:
    """What a SUB sends: a command to a 3.1 peer, a message to a 3.0 peer (`Peer.minor`)."""
    if minor >= 1:
        return encode_command(b"SUBSCRIBE" if subscribe else b"CANCEL", topic)
    return b"".join(encode_message([(b"\x01" if subscribe else b"\x00") + topic]))


def encode_error(reason: str) -> bytes:
    text = reason.encode("ascii", "replace")[:255]
    return encode_command(b"ERROR", bytes((len(text),)) + text)


def answer_to(command: Command) -> Optional[bytes]:
    """What must be written at once in answer to a command: PONG with the context of a PING, else nothing.

    An ERROR raises.  Commands that we do not know are ignored, as spec 37 wants it.
    """
    if command.name == b"PING":
        if len(command.body) < 2 or len(command.body) > 18:  # ttl, context of at most 16 octets
            raise ZmtpError("PING of %d bytes" % len(command.body))
        return encode_command(b"PONG", command.body[2:])
    if command.name == b"ERROR":
        raise ZmtpError("the peer says: " + _error_reason(command.body))
    return None


def as_subscription(event: Event) -> Optional[Tuple[bool, bytes]]:
    """(subscribe, topic) if the event is a subscription or its cancellation, in the words of 3.1 or 3.0."""
    if isinstance(event, Command):
        if event.name == b"SUBSCRIBE":
            return True, event.body
        if event.name == b"CANCEL":
            return False, event.body
        return None
    if len(event) == 1 and event[0][:1] in (b"\x00", b"\x01"):
        return event[0][:1] == b"\x01", event[0][1:]
    return None


# -- decoding


def parse_command(content: Buffer) -> Command:
    """The content of a command frame."""
    data = bytes(content)
    if not data or len(data) < 1 + data[0] or not data[0]:
        raise ZmtpError("command without a name")
    return Command(data[1 : 1 + data[0]], data[1 + data[0] :])


def _error_reason(body: bytes) -> str:
    reason = body[1 : 1 + body[0]] if body else b""
    return "".join(chr(octet) if 32 <= octet < 127 else "?" for octet in reason)


def _parse_metadata(body: bytes) -> Dict[str, bytes]:
    metadata = {}  # type: Dict[str, bytes]
    position = 0
    while position < len(body):
        name_end = position + 1 + body[position]
        value_start = name_end + 4
        if not body[position] or value_start > len(body):
            raise ZmtpError("READY with broken metadata")
        value_end = value_start + int.from_bytes(body[name_end:value_start], "big")
        if value_end > len(body):
            raise ZmtpError("READY with broken metadata")
        # names are case-insensitive (spec 23, "Connection Metadata")
        metadata[body[position + 1 : name_end].decode("latin-1").lower()] = body[value_start:value_end]
        position = value_end
    return metadata


def _check_header(flags: int, size: int) -> None:
    if flags > 7 or flags & (COMMAND | MORE) == COMMAND | MORE:
        raise ZmtpError("frame with flags 0x%02x" % flags)
    if flags & COMMAND and size > MAX_COMMAND:
        raise ZmtpError("command of %d bytes" % size)


class Handshake(object):
    """Greeting and READY of one connection.

    Write `start()`, then pass what is read to `receive()` and write what it returns, until `done`.  `wanted`
    says how many bytes may be read without taking any that lies after the handshake; whoever reads more finds
    the rest, untouched, in `surplus`.
    """

    def __init__(self, socket_type: str, identity: bytes = b"") -> None:
        self.socket_type = socket_type
        self.done = False
        self.surplus = b""
        self._partners = _PARTNERS[socket_type]
        self._identity = identity
        self._received = bytearray()
        self._minor = -1
        self._peer = None  # type: Optional[Peer]

    def __repr__(self) -> str:
        state = "done" if self.done else "greeting" if self._minor < 0 else "ready expected"
        return "<Handshake %s %s>" % (self.socket_type, state)

    @property
    def peer(self) -> Peer:
        """What the other side said of itself; once `done`."""
        if self._peer is None:
            raise ValueError("the handshake is not done")
        return self._peer

    @property
    def wanted(self) -> int:
        if self.done:
            return 0
        have = len(self._received)
        if self._minor < 0:
            return _GREETING_SIZE - have
        if have < 2:
            return 2 - have
        header = 9 if self._received[0] & LONG else 2
        if have < header:
            return header - have
        return header + self._announced_size() - have

    def start(self) -> bytes:
        return GREETING

    def receive(self, data: Buffer) -> bytes:
        position = 0
        output = b""
        while not self.done:
            step = self.wanted
            taken = data[position : position + step]
            if not len(taken):
                return output
            self._received += taken
            position += len(taken)
            output += self._advance()
        self.surplus += bytes(data[position:])
        return output

    def _announced_size(self) -> int:
        if self._received[0] & LONG:
            return int.from_bytes(self._received[1:9], "big")
        return self._received[1]

    def _advance(self) -> bytes:
        if self._minor < 0:
            self._check_greeting()
            if self._minor < 0:
                return b""
            del self._received[:]
            return encode_command(b"READY", self._metadata())
        if len(self._received) >= 1 and self._received[0] not in (COMMAND, COMMAND | LONG):
            raise ZmtpError("a command was expected in the handshake")
        if len(self._received) >= 2 and (not self._received[0] & LONG or len(self._received) >= 9):
            _check_header(self._received[0], self._announced_size())
            if not self.wanted:
                self._finish()
        return b""

    def _metadata(self) -> bytes:
        properties = [(b"Socket-Type", self.socket_type.encode("ascii"))]
        if self.socket_type in ("DEALER", "ROUTER"):
            properties.append((b"Identity", self._identity))
        return b"".join(
            bytes((len(name),)) + name + struct.pack(">I", len(value)) + value for name, value in properties
        )

    def _check_greeting(self) -> None:
        greeting = self._received
        # Checked byte by byte as it comes: noise is found at once and not after 64 bytes of it.
        if bytes(greeting[:1]) not in (b"", b"\xff") or bytes(greeting[9:10]) not in (b"", b"\x7f"):
            raise ZmtpError("this is not ZMTP")
        if len(greeting) > 10 and greeting[10] < 3:
            raise ZmtpError("the peer speaks ZMTP %d, 3 is needed" % greeting[10])
        if len(greeting) == _GREETING_SIZE:
            mechanism = bytes(greeting[12:32]).rstrip(b"\0")
            if mechanism != b"NULL":
                raise ZmtpError("mechanism %s instead of NULL" % ascii(mechanism.decode("latin-1")))
            self._minor = greeting[11] if greeting[10] == 3 else 1

    def _finish(self) -> None:
        header = 9 if self._received[0] & LONG else 2
        command = parse_command(memoryview(self._received)[header:])
        if command.name == b"ERROR":
            raise ZmtpError("the peer says: " + _error_reason(command.body))
        if command.name != b"READY":
            raise ZmtpError("%s instead of READY" % ascii(command.name.decode("latin-1")))
        metadata = _parse_metadata(command.body)
        socket_type = metadata.get("socket-type", b"").decode("latin-1")
        if socket_type not in self._partners:
            raise ZmtpError("socket type %s cannot talk to %s" % (ascii(socket_type), self.socket_type))
        identity = metadata.get("identity", b"")
        if len(identity) > 255:
            raise ZmtpError("identity of %d bytes" % len(identity))
        self._peer = Peer(self._minor, socket_type, identity, metadata)
        self.done = True


class MessageParser(object):
    """What follows the handshake, in pieces of any size, to complete messages and commands."""

    def __init__(self, max_message: int = MAX_MESSAGE, max_frames: int = MAX_FRAMES) -> None:
        self.max_message = max_message
        self.max_frames = max_frames
        self._rest = b""  # an incomplete header, or an incomplete small frame with its header
        self._large = bytearray()  # the frame that comes in, if it is a large one …
        self._missing = 0  # … and what it lacks
        self._flags = 0
        self._frames = []  # type: List[bytes]
        self._size = 0

    def __repr__(self) -> str:
        return "<MessageParser %d frames, %d bytes of a message>" % (len(self._frames), self._size)

    def feed(self, data: Buffer) -> List[Event]:
        """What became complete.  Raises ZmtpError, also when a limit is passed."""
        events = []  # type: List[Event]
        data = bytes(data)
        position = 0
        if self._missing:
            position = min(self._missing, len(data))
            self._large += memoryview(data)[:position]
            self._missing -= position
            if self._missing:
                return events
            frame = bytes(self._large)
            self._large = bytearray()
            self._complete(self._flags, frame, events)
        elif self._rest:
            data = self._rest + data
        self._parse(data, position, events)
        return events

    def _parse(self, data: bytes, position: int, events: List[Event]) -> None:
        end = len(data)
        while end - position >= 2:
            flags = data[position]
            if flags & ~(MORE | LONG):
                _check_header(flags, 0)  # before the size has come
            if flags & LONG:
                if end - position < 9:
                    break
                start = position + 9
                size = int.from_bytes(data[position + 1 : start], "big")
            else:
                start = position + 2
                size = data[position + 1]
            if flags & ~(MORE | LONG):
                _check_header(flags, size)
            elif self._size + size > self.max_message or len(self._frames) >= self.max_frames:
                raise ZmtpError("message over %d bytes or %d frames" % (self.max_message, self.max_frames))
            stop = start + size
            if stop > end:
                if size > COPY_LIMIT:
                    self._flags = flags
                    self._large = bytearray(data[start:])
                    self._missing = stop - end
                    position = end
                break
            self._complete(flags, data[start:stop], events)
            position = stop
        self._rest = data[position:]

    def _complete(self, flags: int, frame: bytes, events: List[Event]) -> None:
        if flags & COMMAND:
            events.append(parse_command(frame))
            return
        self._frames.append(frame)
        if flags & MORE:
            self._size += len(frame)
        else:
            events.append(self._frames)
            self._frames = []
            self._size = 0


def decode_message(data: Buffer) -> List[Buffer]:
    """The frames of one whole encoded message (as `Scanner` found it); commands amid its frames are left out.

    Frames up to `COPY_LIMIT` are `bytes`, larger ones are memoryviews into `data`.
    """
    view = memoryview(data)
    end = len(view)
    # Slices of bytes are cheaper while they are small.
    source = bytes(view) if end <= COPY_LIMIT else view  # type: Buffer
    frames = []  # type: List[Buffer]
    position = 0
    more = True
    while position < end:
        flags = source[position]
        start = position + (9 if flags & LONG else 2)
        if start > end:
            raise ZmtpError("encoded message that ends in a frame's header")
        size = int.from_bytes(source[position + 1 : start], "big") if flags & LONG else source[position + 1]
        if flags > LONG | MORE:
            _check_header(flags, size)
        position = start + size
        if position > end or not more:
            raise ZmtpError("encoded message of a wrong length")
        if not flags & COMMAND:
            frame = source[start:position]
            frames.append(bytes(frame) if size <= COPY_LIMIT else frame)
            more = bool(flags & MORE)
    if more:
        raise ZmtpError("encoded message without its last frame")
    return frames


class Scanner(object):
    """Finds where messages end in a stream, looking at nothing but frame headers; for the tape.

    A unit is a whole multipart message, or a command that stands between messages.  Commands amid the frames
    of a message (libzmq puts a PING there) belong to the message's unit and are listed.  The state is
    relative to the unit's first byte, so the stream may come in buffers that are not contiguous, and may be
    moved between calls.

    After `feed` or `scan` returned an offset: `is_command`; `commands`, the (offset, size) of the content of
    each command, counted from the unit's start (for `parse_command`); `unit_size`.
    """

    def __init__(self, max_message: int = MAX_MESSAGE, max_frames: int = MAX_FRAMES) -> None:
        self.max_message = max_message
        self.max_frames = max_frames
        self.is_command = False
        self.commands = []  # type: List[Tuple[int, int]]
        self.unit_size = 0
        self._commands = []  # type: List[Tuple[int, int]]
        self._header = b""  # the part of a header that has come
        self._body = 0  # what the present frame lacks
        self._size = 0  # bytes of the unit seen so far
        self._frames = 0
        self._last = False  # the unit ends with the present frame

    def __repr__(self) -> str:
        return "<Scanner %d bytes, %d frames into a unit>" % (self._size, self._frames)

    @property
    def seen(self) -> int:
        """How many bytes of the present, incomplete unit have been looked at."""
        return self._size

    def feed(self, buffer: Buffer, start: int, end: int) -> Optional[int]:
        """`buffer[start:end]` follows what was given before.  The offset after a unit's last byte, from which
        to go on, or None: everything was taken and the unit is not complete."""
        position = start
        while True:
            step = min(self._body, end - position)
            position += step
            self._body -= step
            self._size += step
            if self._body:
                return None
            if self._last:
                self._finish()
                return position
            header_end = self._read_header(buffer, position, end)
            if header_end is None:
                return None
            position = header_end

    def _read_header(self, buffer: Buffer, position: int, end: int) -> Optional[int]:
        have = len(self._header)
        if have == 0 and end - position >= 2 and not buffer[position] & LONG:
            self._size += 2
            self._begin_frame(buffer[position], buffer[position + 1])
            return position + 2
        if have == 0 and position < end:
            self._header = bytes(buffer[position : position + 1])
            position += 1
            have = 1
            self._size += 1
        if have == 0:
            return None
        flags = self._header[0]
        _check_header(flags, 0)
        wanted = 9 if flags & LONG else 2
        step = min(wanted - have, end - position)
        self._header += bytes(buffer[position : position + step])
        self._size += step
        if have + step < wanted:
            return None
        size = int.from_bytes(self._header[1:], "big")
        self._header = b""
        self._begin_frame(flags, size)
        return position + step

    def _begin_frame(self, flags: int, size: int) -> None:
        if flags > MORE:
            _check_header(flags, size)
        if flags & COMMAND:
            self._commands.append((self._size, size))
            self._last = self._frames == 0
        else:
            self._frames += 1
            self._last = not flags & MORE
        if self._size + size > self.max_message or self._frames + len(self._commands) > self.max_frames:
            raise ZmtpError("message over %d bytes or %d frames" % (self.max_message, self.max_frames))
        self._body = size

    def _finish(self) -> None:
        self.is_command = self._frames == 0
        self.commands = self._commands
        self.unit_size = self._size
        self._commands = []
        self._size = 0
        self._frames = 0
        self._last = False


def scan(buffer: Buffer, start: int, end: int, scanner: Scanner) -> Optional[int]:
    """The end of the unit that begins at `start` of a flat buffer filled up to `end`, or None.

    To be called again with the same `scanner` when `end` has grown: what was seen is not looked at
    again.  (When the buffer was moved in between, `start` is the unit's new place.)
    """
    return scanner.feed(buffer, start + scanner.seen, end)
