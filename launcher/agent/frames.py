"""Frames of the link: header, checks, HELLO, and a reader that takes bytes in any portions.

The format is docs/architecture.md §2.  Nothing here trusts what it reads: whatever the bytes, the reader
gives well-formed frames or raises `LinkViolation`, and an endless frame is refused at its header.
"""

import json
import re
import struct
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Union

Buffer = Union[bytes, bytearray, memoryview]

VERSIONS = (1,)
HEADER = struct.Struct(">IBBHQ")  # payload length, type, flags, channel, sequence number
NUMBER = struct.Struct(">Q")
MOST_NUMBER = (1 << 63) - 1  # of sequence numbers and credit: far out of reach, far from overflow

HELLO, DATA, CREDIT, CLOSE, ACK, PING, PONG, BYE = range(1, 9)

# Flags of DATA.  FIRST without LAST: the payload begins with the message's size (u64).
FIRST, LAST = 1, 2
WANT = 4  # this piece used up the channel's credit and more is waiting
HURRY = 8  # acknowledge at once: the sender's window is filling
_DATA_FLAGS = FIRST | LAST | WANT | HURRY

MAX_PIECE = 256 * 1024
MAX_FRAME = HEADER.size + NUMBER.size + MAX_PIECE
MAX_HELLO = 16 * 1024
MAX_BYE = 4 * 1024
_GATHER = 2048  # payloads up to this are copied together with their headers: fewer pieces for writev

_HELLO_KEYS = ("version", "session", "life", "received", "resumed", "max_message", "about")
_LIFE = re.compile(r"([0-9a-f]{16})?\Z")
_SESSION = re.compile(r"[0-9a-f]{32}\Z")

# type: (shortest payload, longest payload, permitted flags, sequenced, of a channel)
_RULES = {
    HELLO: (2, MAX_HELLO, 0, False, False),
    DATA: (0, NUMBER.size + MAX_PIECE, _DATA_FLAGS, True, True),
    CREDIT: (8, 8, 0xFF, True, True),  # flags: which life of the channel's number, modulo 256
    CLOSE: (0, 0, 0, True, True),
    ACK: (8, 8, 0, False, False),
    PING: (8, 8, 0, False, False),
    PONG: (8, 8, 0, False, False),
    BYE: (2, MAX_BYE, 0, False, False),
}


class LinkError(Exception):
    """Base of the link's errors, with the words that every error of ours carries (`launcher.errors`)."""

    kind = "link"

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what, advice)
        self.what = what
        self.advice = advice

    def __str__(self) -> str:
        return "{}. {}".format(self.what, self.advice)

    def as_dict(self) -> Dict[str, str]:
        return {"kind": self.kind, "what": self.what, "advice": self.advice}


class LinkViolation(LinkError):
    """The far end sent what the link's rules forbid; the link is of no use any more."""

    kind = "link-violation"

    def __init__(self, detail: str) -> None:
        super().__init__(
            "The far end broke the rules of the link: {}".format(detail),
            "Its kernels are not touched. If it happens again, something changes the bytes on their way: "
            "`farkernel doctor` shows where",
        )


class NoCommonVersion(LinkViolation):
    """The two ends speak no version of the link in common."""

    kind = "link-version"

    def __init__(self, far_end: str, ours: Sequence[int], theirs: Sequence[int]) -> None:
        LinkError.__init__(
            self,
            "This side speaks version {} of the link, the {} speaks version {}".format(
                _listed(ours), far_end, _listed(theirs)
            ),
            "If the keeper is the older one, run `farkernel keeper restart`; an older agent ends when its "
            "kernels do, and the next one is of the keeper's version",
        )
        self.ours = tuple(ours)
        self.theirs = tuple(theirs)


class Frame(NamedTuple):
    """One frame as it came in; `payload` is valid only until the reader is fed again."""

    kind: int
    flags: int
    channel: int
    number: int
    payload: Buffer


def encode(kind: int, payload: bytes = b"", flags: int = 0, channel: int = 0, number: int = 0) -> bytes:
    """One whole small frame."""
    return HEADER.pack(len(payload), kind, flags, channel, number) + payload


def check_header(length: int, kind: int, flags: int, channel: int, number: int) -> None:
    """Raise `LinkViolation` unless a frame may begin so."""
    rule = _RULES.get(kind)
    if rule is None:
        raise LinkViolation("a frame of unknown type {}".format(kind))
    shortest, longest, permitted, sequenced, of_channel = rule
    if not shortest <= length <= longest:
        raise LinkViolation("a frame of type {} with {} bytes".format(kind, length))
    if flags & ~permitted:
        raise LinkViolation("a frame of type {} with flags {:#x}".format(kind, flags))
    if channel and not of_channel:
        raise LinkViolation("a frame of type {} on channel {}".format(kind, channel))
    if sequenced != (0 < number <= MOST_NUMBER) or (number and not sequenced):
        raise LinkViolation("a frame of type {} with sequence number {}".format(kind, number))


class FrameReader:
    """Cuts a stream of bytes into frames, however it was portioned.

    A frame that does not come in whole is put together in one place that serves for all: what is taken anew for each
    frame costs more than filling it.
    """

    def __init__(self) -> None:
        self._head = bytearray()
        self._space = memoryview(bytearray(_GATHER))
        self._filled = 0
        self._missing = 0  # bytes of the payload that are still to come, once the header is there

    @property
    def held(self) -> int:
        """Bytes of a frame that has not come in whole."""
        return len(self._head) + self._filled

    def feed(self, data: Buffer) -> Iterator[Frame]:
        """The frames that are whole now.  Those before a violation are given before it is raised."""
        view = memoryview(data)
        position = 0
        if self._head:
            position = self._go_on(view)
            if position < 0:
                return
            fields = HEADER.unpack(self._head)
            size, self._filled = self._filled, 0
            self._head = bytearray()
            yield Frame(fields[1], fields[2], fields[3], fields[4], self._space[:size])
        end = len(view)
        small = data if type(data) is bytes else view  # slices of bytes are cheaper while they are small
        unpack, size, longest = HEADER.unpack_from, HEADER.size, NUMBER.size + MAX_PIECE
        while end - position >= size:
            length, kind, flags, channel, number = unpack(view, position)
            if kind != DATA or length > longest or flags > _DATA_FLAGS or not 0 < number <= MOST_NUMBER:
                check_header(length, kind, flags, channel, number)
            start = position + size
            if start + length > end:
                break
            position = start + length
            source = small if length <= _GATHER else view
            yield Frame(kind, flags, channel, number, source[start:position])
        if position < end:
            self._begin(view[position:])

    def _begin(self, rest: memoryview) -> None:
        """Keep (a copy of) the part of a frame at the end of what came in."""
        size = HEADER.size
        self._head += rest[:size]
        if len(self._head) == size:
            self._missing = HEADER.unpack(self._head)[0]
            self._add(rest[size:])

    def _go_on(self, view: memoryview) -> int:
        """Add to the frame begun earlier; how much of `view` that took, or -1 if it is still not whole."""
        position = 0
        lacking = HEADER.size - len(self._head)
        if lacking:
            position = min(lacking, len(view))
            self._head += view[:position]
            if position < lacking:
                return -1
            fields = HEADER.unpack(self._head)
            check_header(*fields)
            self._missing = fields[0]
        piece = view[position : position + self._missing]
        self._add(piece)
        return -1 if self._missing else position + len(piece)

    def _add(self, piece: memoryview) -> None:
        end = self._filled + len(piece)
        if not self._filled and self._missing > len(self._space):
            self._space = memoryview(bytearray(NUMBER.size + MAX_PIECE))
        self._space[self._filled : end] = piece
        self._filled = end
        self._missing -= len(piece)


class Gathered:
    """Buffers on their way to `os.writev`: headers and small payloads joined, large payloads by reference."""

    def __init__(self) -> None:
        self.size = 0
        self._buffers: List[Buffer] = []
        self._small: List[Buffer] = []

    def add(self, header: bytes, parts: Sequence[Buffer], size: int) -> None:
        """One frame: its header and the parts of its payload, `size` bytes in all."""
        self.size += len(header) + size
        small = self._small
        small.append(header)
        if size <= _GATHER:
            small.extend(parts)
            return
        for part in parts:
            if len(part) <= _GATHER:
                small.append(part)
            else:
                self._flush()
                self._buffers.append(part)

    def buffers(self) -> List[Buffer]:
        self._flush()
        return self._buffers

    def _flush(self) -> None:
        small = self._small
        if small:
            self._buffers.append(small[0] if len(small) == 1 else b"".join(small))
            small.clear()


# -- HELLO and BYE


def check_session(session: str) -> str:
    """A session's name as given by our own side; raises ValueError."""
    if not _SESSION.match(session):
        raise ValueError("a session is named by 32 hex digits, not {!r}".format(session))
    return session


def encode_hello(
    session: str, life: str, received: int, resumed: bool, max_message: int, about: Dict[str, Any]
) -> bytes:
    """The whole HELLO frame; raises ValueError if `about` is too large."""
    hello = {
        "version": list(VERSIONS),
        "session": session,
        "life": life,
        "received": received,
        "resumed": resumed,
        "max_message": max_message,
        "about": about,
    }
    payload = _write_json(hello)
    if len(payload) > MAX_HELLO:
        raise ValueError("what this side says about itself is too long: {} bytes".format(len(payload)))
    return encode(HELLO, payload)


def open_hello(frame: Buffer) -> Dict[str, Any]:
    """The checked content of one whole HELLO frame: it tells an agent which session a connection is for."""
    frames = list(FrameReader().feed(frame))
    if len(frames) != 1 or frames[0].kind != HELLO:
        raise LinkViolation("the connection does not begin with one HELLO")
    return read_hello(frames[0].payload)


def read_hello(payload: Buffer) -> Dict[str, Any]:
    """Every key checked; keys that we do not know are left out."""
    hello = _read_json(payload)
    _must(_is_versions(hello.get("version")), "version")
    session = hello.get("session")
    _must(isinstance(session, str) and bool(_SESSION.match(session)), "session")
    life = hello.get("life")
    _must(isinstance(life, str) and bool(_LIFE.match(life)), "life")
    _must(_is_number(hello.get("received"), 0), "received")
    _must(type(hello.get("resumed")) is bool, "resumed")
    _must(_is_number(hello.get("max_message"), 1), "max_message")
    _must(isinstance(hello.get("about"), dict), "about")
    return {key: hello[key] for key in _HELLO_KEYS}


def encode_bye(reason: str) -> bytes:
    """The whole BYE frame; an overlong reason is cut."""
    return encode(BYE, _write_json({"reason": reason[:500]}))


def read_bye(payload: Buffer) -> str:
    reason = _read_json(payload).get("reason")
    if not isinstance(reason, str):
        raise LinkViolation("a BYE without a reason")
    return reason


def _write_json(content: Dict[str, Any]) -> bytes:
    """Names of files and hosts may hold lone surrogates, which the other side would refuse."""
    text = json.dumps(content, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    return text.encode("utf-8", "replace")


def _read_json(payload: Buffer) -> Dict[str, Any]:
    try:
        content = json.loads(bytes(payload).decode("utf-8"), parse_constant=_no_constant)
        # Lone surrogates and 1e999 come through json.loads and would fail wherever they are written later.
        json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise LinkViolation("unreadable JSON") from None
    if not isinstance(content, dict):
        raise LinkViolation("JSON that is no object")
    return content


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _is_versions(versions: Any) -> bool:
    return (
        isinstance(versions, list)
        and 1 <= len(versions) <= 16
        and all(_is_number(version, 1) and version < 1 << 16 for version in versions)
    )


def _is_number(value: Any, least: int) -> bool:
    return type(value) is int and least <= value <= MOST_NUMBER  # a bool is no number here


def _must(good: bool, key: str) -> None:
    if not good:
        raise LinkViolation("a HELLO whose {} is not as it should be".format(key))


def _listed(versions: Sequence[int]) -> str:
    return " or ".join(str(version) for version in versions)
