"""One piece of a tape: a file that is mapped, and a list of the messages that ended in it."""

import array
import mmap
import os
import struct
from typing import List, Optional

from .words import reserve

HEADER = 64
RECORD = struct.Struct("=QQQ")  # start and end of a message in the stream, time in µs since 1970
_FIELDS = struct.Struct("=QQQ")  # base, unit, number: see Segment
SUFFIX = ".tape"
NEW = ".new"  # behind the name of a file that is not, or not any more, part of a tape
_POPULATE_WRITE = 23  # madvise(2): many faults at the price of one


class Segment(object):
    """Bytes `base` … `base + capacity` of the stream.

    `unit`: where in the stream the first message begins that ends in this segment; `number`: that message's
    number.
    """

    def __init__(
        self, data: mmap.mmap, base: int, unit: int, number: int, path: Optional[str], index: Optional[int]
    ) -> None:
        self.map = data
        self.view = memoryview(data)
        self.base = base
        self.unit = unit
        self.number = number
        self.path = path
        self.capacity = len(data) - HEADER
        self.end = base + self.capacity
        self.starts = array.array("Q")
        self.ends = array.array("Q")
        self.times = array.array("Q")
        self._index = index
        self._populates = hasattr(data, "madvise")  # Python 3.8; the advice itself: Linux 5.14

    def __repr__(self) -> str:
        where = self.path or "memory"
        return "<Segment %s %d-%d, messages from %d: %d>" % (
            where,
            self.base,
            self.end,
            self.number,
            len(self.starts),
        )

    @property
    def in_memory(self) -> bool:
        return self.path is None

    def touch(self, place: int, size: int) -> None:
        """Have these pages there: a fault inside recv could be broken off by a signal halfway."""
        if self._populates:
            first = place - place % mmap.PAGESIZE
            try:
                self.map.madvise(_POPULATE_WRITE, first, place + size - first)  # type: ignore[attr-defined,unused-ignore]
                return
            except OSError:
                self._populates = False
        self.map[place : place + size : mmap.PAGESIZE] = bytes(-(-size // mmap.PAGESIZE))

    def add(self, start: int, end: int, time: int) -> None:
        self.starts.append(start)
        self.ends.append(end)
        self.times.append(time)

    def size_of(self, number: int) -> int:
        place = number - self.number
        return self.ends[place] - self.starts[place]

    def save(self, first: int) -> None:
        """Write the records from the `first` in this segment on; without them a successor only loses the times."""
        if self._index is None:
            return
        triples = zip(self.starts[first:], self.ends[first:], self.times[first:])
        try:
            os.write(self._index, b"".join(RECORD.pack(*triple) for triple in triples))
        except OSError:
            os.close(self._index)
            self._index = None  # the rest has to be found by scanning

    def remove(self) -> None:
        """Unlink it.  The mapping lives on as long as somebody, such as the link, holds a view of it."""
        if self.path is not None:
            self._remove_index(self.path)
            _unlink(self.path)

    def retire(self) -> None:
        """It is not part of the tape any more, but `again` may make another of it.  Raises OSError."""
        if self.path is not None:
            self._remove_index(self.path)
            retired = self.path + NEW
            os.rename(self.path, retired)
            self.path = retired

    def _remove_index(self, path: str) -> None:
        if self._index is not None:
            os.close(self._index)
            self._index = None
        if not path.endswith(NEW):
            _unlink(index_path(path))


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def index_path(path: str) -> str:
    return path[: -len(SUFFIX)] + ".index"


def create(path: str, size: int, base: int, unit: int, number: int) -> Segment:
    """A new file with all its blocks: a full disk is an OSError here, and not a SIGBUS in the middle of a recv."""
    temporary = path + NEW
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        reserve(descriptor, size)
        os.write(descriptor, _FIELDS.pack(base, unit, number))
        data = mmap.mmap(descriptor, size)
        index = _new_index(path)
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
    finally:
        os.close(descriptor)
    return Segment(data, base, unit, number, path, index)


def again(old: Segment, path: str, base: int, unit: int, number: int) -> Optional[Segment]:
    """A new one out of one that was retired: its pages are there already, which is half of a large message's price.

    None: somebody, such as the link, still holds a view of it.  Raises OSError.
    """
    if old.path is None:
        return None
    old.view.release()
    try:
        old.map.resize(len(old.map))  # refused as long as there is a view
    except BufferError:
        return None
    old.map[: _FIELDS.size] = _FIELDS.pack(base, unit, number)
    index = _new_index(path)
    try:
        os.rename(old.path, path)
    except OSError:
        os.close(index)
        raise
    return Segment(old.map, base, unit, number, path, index)


def _new_index(path: str) -> int:
    return os.open(
        index_path(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600
    )


def create_in_memory(size: int, base: int, unit: int, number: int) -> Segment:
    return Segment(mmap.mmap(-1, size), base, unit, number, None, None)


def load(path: str) -> Segment:
    """A file that another process wrote, with the records that reached its index."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        data = mmap.mmap(descriptor, 0)
    finally:
        os.close(descriptor)
    base, unit, number = _FIELDS.unpack_from(data, 0)
    index = os.open(index_path(path), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    segment = Segment(data, base, unit, number, path, index)
    with open(index, "rb", closefd=False) as stream:
        content = stream.read()
    whole = len(content) - len(content) % RECORD.size
    if whole != len(content):
        os.ftruncate(index, whole)
    for start, end, time in RECORD.iter_unpack(content[:whole]):
        segment.add(start, end, time)
    return segment


def found(directory: str, name: str) -> List[str]:
    """The files of a tape, oldest first; what was being made, or had been let go, when somebody died is removed."""
    paths = []
    for entry in os.listdir(directory):
        if entry.startswith(name + "."):
            path = os.path.join(directory, entry)
            if entry.endswith(SUFFIX):
                paths.append(path)
            elif entry.endswith(NEW):
                os.unlink(path)
    return sorted(paths)
