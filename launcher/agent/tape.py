"""Crash-proof record of the byte stream that one of a kernel's sockets sends (docs/architecture.md §5).

Bytes go from the socket straight into mapped files.  Before each `recv` of exactly the bytes that FIONREAD
promised, the intent is stored, and a sentinel in the last bytes of the area; a successor sees by the sentinel
whether the bytes came. So a SIGKILL at any instruction neither loses nor doubles a byte, as long as somebody
(the guard) holds the socket.
"""

import array
import bisect
import fcntl
import os
import socket
import termios
import time
from typing import List, NamedTuple, Optional, Tuple

from . import segments
from .segments import HEADER, Segment
from .words import (
    DROP_BYTES,
    DROP_FIRST,
    DROP_LAST,
    END,
    INTENT_POSITION,
    INTENT_SIZE,
    LAST_BYTE,
    LAST_NUMBER,
    RECEIVED,
    SENTINEL,
    STREAM,
    Words,
)
from .zmtp import Command, Scanner, ZmtpError, parse_command

PAGE = 4096
LARGEST_RECEIVE = 1 << 20
#: From this size on the sentinel is random; below, the bytes are looked at first (MSG_PEEK), and it differs
#: from them.
SHORT = 64
#: What a tape may hold in memory when there is no room on the disk.
MEMORY_BOUND = 32 << 20

Dropped = NamedTuple("Dropped", [("first", int), ("last", int), ("bytes", Optional[int])])
_UNKNOWN = (1 << 64) - 1
_AVAILABLE = array.array("i", [0])


class Tape(object):
    """What came from one socket, as numbered messages.

    `bound`: how many bytes are kept (a message that is larger is still kept, alone).  `first_size`, `size`:
    of the first file and of those after it.
    """

    def __init__(self, directory: str, name: str, bound: int, first_size: int, size: int) -> None:
        self.name = name
        self.bound = bound
        self.words = Words(os.path.join(directory, name + ".words"))
        self.in_memory = False
        #: Messages up to this number are on their way to a keeper, and no loss if they go from here.
        self.passed_on = 0
        #: What came between the messages, to be answered (PING) and taken away by the caller.
        self.commands: List[Command] = []
        #: The stream's next byte is not known any more: the connection it came from is of no use.
        self.broken = False
        self._directory = directory
        self._size = min(size, max(bound // 4 // PAGE, 1) * PAGE)
        self._next_size = min(first_size, self._size)
        self._serial = 0
        self._segments: List[Segment] = []
        self._retired: List[Segment] = []
        self._scanner = Scanner()
        self._unit = 0  # where the message begins that is coming in
        self._scanned = 0
        self._recover()
        self._sentinel = os.urandom(16)
        high, low = array.array("Q", self._sentinel)
        self.words[SENTINEL], self.words[SENTINEL + 1] = high, low

    def __repr__(self) -> str:
        return "<Tape %s: messages %d-%d, %d bytes%s>" % (
            self.name,
            self.first,
            self.last,
            self.end,
            ", broken" if self.broken else "",
        )

    # -- what is there
    # ------------------------------------------------------------------------------------------

    @property
    def end(self) -> int:
        return self.words[END]

    @property
    def last(self) -> int:
        """The newest message's number; 0 when none has come."""
        return self._number_in(self._segments[-1]) - 1 if self._segments else self.words[LAST_NUMBER]

    @property
    def first(self) -> int:
        """The oldest number that is still held; `last + 1` when none is."""
        for segment in self._segments:
            if segment.starts:
                # Of messages that ended in the oldest file, the first may have begun in one that is gone.
                gone = bisect.bisect_left(segment.starts, self._segments[0].base)
                if gone < len(segment.starts):
                    return segment.number + gone
        return self.last + 1

    @property
    def received(self) -> int:
        return self.words[RECEIVED]

    @received.setter
    def received(self, number: int) -> None:
        if number > self.words[RECEIVED]:
            self.words[RECEIVED] = min(number, self.last)

    def message(self, number: int) -> Tuple[int, List[memoryview]]:
        """(time in µs, the bytes as views of the mapping); raises KeyError when it is not held."""
        segment = self._segment_of(number)
        place = number - segment.number
        start, end = segment.starts[place], segment.ends[place]
        if start < self._segments[0].base:
            raise KeyError(number)
        return segment.times[place], self._views(start, end)

    def first_since(self, when: int) -> int:
        """The first number that came at that time (µs) or later; `last + 1` when none did."""
        for segment in self._segments:
            place = bisect.bisect_left(segment.times, when)
            if place < len(segment.times):
                return segment.number + place
        return self.last + 1

    def size_of(self, number: int) -> int:
        return self._segment_of(number).size_of(number)

    def dropped(self) -> Optional[Dropped]:
        """What went away before the keeper had it."""
        if not self.words[DROP_LAST] or self.words[DROP_LAST] <= self.received:
            return None
        lost = self.words[DROP_BYTES]
        return Dropped(self.words[DROP_FIRST], self.words[DROP_LAST], None if lost == _UNKNOWN else lost)

    def dropped_told(self) -> None:
        self.words[DROP_LAST] = 0

    # -- receiving
    # ----------------------------------------------------------------------------------------------

    def receive(self, source: socket.socket) -> int:
        """Take what is there, up to 1 MiB, and give numbers to the messages that are complete.

        0: nothing there now.  Raises EOFError at the stream's end, `ZmtpError` when it makes no sense,
        OSError from recv.
        """
        size = available(source)
        if not size:
            try:
                if not source.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                    raise EOFError
            except BlockingIOError:
                return 0
            size = available(source)
        segment = self._room()
        place = self.words[END] - segment.base + HEADER
        size = min(size, len(segment.map) - place, LARGEST_RECEIVE)
        self._intend(source, segment, place, size)
        got = source.recv_into(segment.view[place : place + size], size)
        self.words[END] += got
        self.words[INTENT_SIZE] = 0
        self._scan()
        return got

    def _intend(self, source: socket.socket, segment: Segment, place: int, size: int) -> None:
        words = self.words
        words[INTENT_POSITION] = words[END]
        if size < SHORT:
            coming = source.recv(size, socket.MSG_PEEK)
            segment.map[place + size - 1] = words[LAST_BYTE] = coming[-1] ^ 0xFF
        else:
            if size > PAGE:
                segment.touch(place, size)
            segment.map[place + size - 16 : place + size] = self._sentinel
        words[INTENT_SIZE] = size

    def _room(self) -> Segment:
        if self._segments and self.words[END] < self._segments[-1].end:
            return self._segments[-1]
        size = self._next_size
        self._next_size = self._size
        # The message that is coming in may be larger than the bound; it is not what has to go.
        coming = self.words[END] - self._unit
        while self._held() + size > self.bound + coming and self._can_drop():
            self._drop_oldest()
        while True:
            try:
                made = self._create(size)
            except OSError:
                self.in_memory = True
                held = sum(segment.capacity for segment in self._segments if segment.in_memory)
                if held + size > MEMORY_BOUND:
                    if not self._can_drop():
                        raise ZmtpError(
                            "no room on the disk for a message of over %d bytes" % coming
                        ) from None
                    self._drop_oldest()  # if it was a file, there is room on the disk again
                    continue
                made = segments.create_in_memory(size, self.words[END], self._unit, self.last + 1)
            self._segments.append(made)
            return made

    def _can_drop(self) -> bool:
        """Whether the oldest file holds nothing of the message that is coming in."""
        return len(self._segments) > 1 and self._segments[1].base <= self._unit

    def _create(self, size: int) -> Segment:
        path = os.path.join(self._directory, "%s.%08d%s" % (self.name, self._serial + 1, segments.SUFFIX))
        made = self._again(path) if size == self._size else None
        if made is None:
            made = segments.create(path, size, self.words[END], self._unit, self.last + 1)
        self._serial += 1
        self.in_memory = False
        return made

    def _again(self, path: str) -> Optional[Segment]:
        """One that is not needed any more, as a new one."""
        made: Optional[Segment] = None
        while made is None and self._retired:
            retired = self._retired.pop()
            try:
                made = segments.again(retired, path, self.words[END], self._unit, self.last + 1)
            finally:
                if made is None:
                    retired.remove()
        return made

    def _held(self) -> int:
        return sum(segment.capacity for segment in self._segments)

    # -- finding messages
    # ---------------------------------------------------------------------------------------

    def _scan(self) -> None:
        end = self.words[END]
        now = int(time.time() * 1000000)
        while self._scanned < end:
            segment = self._segment_at(self._scanned)
            stop = min(end, segment.end)
            already = len(segment.starts)
            try:
                self._scan_segment(segment, stop, now)
            finally:
                if len(segment.starts) > already:
                    segment.save(already)
                    self.words[LAST_NUMBER] = segment.number + len(segment.starts) - 1

    def _scan_segment(self, segment: Segment, stop: int, now: int) -> None:
        shift = HEADER - segment.base
        while self._scanned < stop:
            found = self._scanner.feed(segment.view, self._scanned + shift, stop + shift)
            if found is None:
                self._scanned = stop
                return
            self._scanned = found - shift
            for offset, size in self._scanner.commands:
                body = b"".join(self._views(self._unit + offset, self._unit + offset + size))
                self.commands.append(parse_command(body))
            if not self._scanner.is_command:
                segment.add(self._unit, self._scanned, now)
            self._unit = self._scanned

    def new_stream(self) -> None:
        """Another connection takes the place of the former: an unfinished message of that one is void."""
        self.words[STREAM] = self._unit = self._scanned = self.words[END]
        self._scanner = Scanner()
        self.broken = False

    # -- letting go
    # ---------------------------------------------------------------------------------------------

    def _drop_oldest(self) -> None:
        first = max(self.first, self.received + 1, self.passed_on + 1)
        oldest = self._segments.pop(0)
        gone = range(first, self.first)
        if gone:
            # The last of them may have begun in the file that goes, and ended in another.
            last_here = oldest.number + len(oldest.starts)
            size = sum(
                oldest.size_of(number) if number < last_here else self.size_of(number) for number in gone
            )
            self._lost(gone[0], gone[-1], size)
        if oldest.in_memory or HEADER + oldest.capacity != self._size:
            oldest.remove()
            return
        oldest.retire()
        self._retired.append(oldest)
        # A message of 50 MB takes a dozen files, and lets go of as many when it is through.
        if len(self._retired) > max(self.bound // self._size // 4, 1):
            self._retired.pop(0).remove()

    def _lost(self, first: int, last: int, size: Optional[int]) -> None:
        words = self.words
        told = words[DROP_LAST] == 0
        if told:
            words[DROP_FIRST], words[DROP_BYTES] = first, 0
        words[DROP_BYTES] = (
            _UNKNOWN if size is None or words[DROP_BYTES] == _UNKNOWN else words[DROP_BYTES] + size
        )
        words[DROP_LAST] = last

    # -- taking over
    # --------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        words = self.words
        for path in segments.found(self._directory, self.name):
            self._segments.append(segments.load(path))
            self._serial = max(self._serial, int(path[: -len(segments.SUFFIX)].rpartition(".")[2]))
            self._next_size = self._size
        self._settle_intent()
        end, numbered = words[END], words[LAST_NUMBER]
        self._remove_islands()
        if end and (not self._segments or self._segments[-1].end < end):
            # The newest bytes were in the memory of a process that is gone, because the disk was full.
            self._start_anew(numbered)
            return
        if not self._segments:
            return
        newest = self._segments[-1]
        self._unit = newest.ends[-1] if newest.ends else newest.unit
        self._unit = max(self._unit, words[STREAM])
        if self._unit < self._segments[0].base:
            self._start_anew(numbered)
            return
        self._scanned = self._unit
        try:
            self._scan()
        except ZmtpError:
            self.broken = True
        words[LAST_NUMBER] = self.last

    def _settle_intent(self) -> None:
        words = self.words
        size = words[INTENT_SIZE]
        if size and words[INTENT_POSITION] == words[END]:
            segment = self._segments[-1] if self._segments else None
            if segment is not None and segment.base <= words[END] and words[END] + size <= segment.end:
                place = words[END] - segment.base + HEADER
                if self._bytes_came(segment, place, size):
                    words[END] += size
        words[INTENT_SIZE] = 0

    def _bytes_came(self, segment: Segment, place: int, size: int) -> bool:
        if size < SHORT:
            return segment.map[place + size - 1] != self.words[LAST_BYTE]
        sentinel = array.array("Q", [self.words[SENTINEL], self.words[SENTINEL + 1]]).tobytes()
        return segment.map[place + size - 16 : place + size] != sentinel

    def _remove_islands(self) -> None:
        """Of files with a hole between them (it was in memory), only the last unbroken run is of use."""
        for place in range(len(self._segments) - 1, 0, -1):
            one, other = self._segments[place - 1], self._segments[place]
            # (A gap in the numbers: the disk was too full for the records of messages that are there.)
            if one.end != other.base or self._number_in(one) != other.number:
                before = self._segments[:place]
                self._segments = self._segments[place:]
                first = max(before[0].number, self.received + 1)
                if first < self._segments[0].number:
                    self._lost(first, self._segments[0].number - 1, None)
                for segment in before:
                    segment.remove()
                return

    def _start_anew(self, numbered: int) -> None:
        """Nothing that is left can be continued: keep the numbers, forget the bytes."""
        first = max(min([segment.number for segment in self._segments] + [numbered + 1]), self.received + 1)
        for segment in self._segments:
            segment.remove()
        self._segments = []
        if first <= numbered:
            self._lost(first, numbered, None)
        self.new_stream()
        self.broken = True

    # -- places
    # -------------------------------------------------------------------------------------------------

    @staticmethod
    def _number_in(segment: Segment) -> int:
        return segment.number + len(segment.starts)

    def _segment_of(self, number: int) -> Segment:
        for segment in reversed(self._segments):
            if segment.number <= number:
                if number < self._number_in(segment):
                    return segment
                break
        raise KeyError(number)

    def _segment_at(self, position: int) -> Segment:
        for segment in reversed(self._segments):
            if segment.base <= position:
                return segment
        raise KeyError(position)

    def _views(self, start: int, end: int) -> List[memoryview]:
        views = []
        while start < end:
            segment = self._segment_at(start)
            stop = min(end, segment.end)
            views.append(segment.view[start - segment.base + HEADER : stop - segment.base + HEADER])
            start = stop
        return views


def available(source: socket.socket) -> int:
    """How many bytes can be read at once."""
    fcntl.ioctl(source.fileno(), termios.FIONREAD, _AVAILABLE)
    return _AVAILABLE[0]
