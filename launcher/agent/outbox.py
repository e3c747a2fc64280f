"""Crash-proof way of bytes into a kernel's socket.

Bytes are appended to a file, and `sendfile` without an offset moves them from there into the socket: the
system call itself advances the position of the open file, which the guard shares.  So whoever takes over
knows exactly how far it came. A request's number and its bytes become valid by the store of one word
(OUT_END).
"""

import os
import socket
from typing import List, Optional, Sequence, Union

from .words import NEXT_TAKEN, OUT_END, OUT_NEXT, OUT_START, TAKEN, UNSAFE, Words

Buffer = Union[bytes, bytearray, memoryview]
#: When all has been sent and the file has grown over this, its blocks are given back.
KEPT = 1 << 20
MOST_BUFFERS = 1000  # IOV_MAX is 1024


def create(path: str, words: Words) -> int:
    """A new, empty file that begins where the stream stands now; the descriptor is shared with the guard."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.lseek(descriptor, words[OUT_END], os.SEEK_SET)
    words[OUT_START] = words[OUT_END]
    words[UNSAFE] = 0
    return descriptor


class Outbox(object):
    """What goes to one socket of a kernel."""

    def __init__(self, words: Words, descriptor: int) -> None:
        self.words = words
        self.descriptor = descriptor
        self._kept_from = words[OUT_END]
        self._position = os.lseek(descriptor, 0, os.SEEK_CUR)  # from now on only we move it
        self._unsaved: List[memoryview] = []  # what the disk had no room for
        if words[OUT_NEXT] == words[OUT_END]:
            words[TAKEN] = max(words[TAKEN], words[NEXT_TAKEN])

    def __repr__(self) -> str:
        return "<Outbox taken %d, %d bytes waiting>" % (self.taken, self.waiting)

    @property
    def taken(self) -> int:
        """The number of the last request that will reach the kernel."""
        return self.words[TAKEN]

    @property
    def waiting(self) -> int:
        on_disk = self.words[OUT_END] - self._position
        return on_disk + sum(len(piece) for piece in self._unsaved)

    @property
    def broken(self) -> bool:
        """A predecessor died with bytes in its memory: the connection is of no use."""
        return bool(self.words[UNSAFE]) and not self._unsaved

    @property
    def is_clean(self) -> bool:
        """Nothing was sent yet, or everything that there is."""
        return not self.words[UNSAFE] and self._position in (self.words[OUT_START], self.words[OUT_END])

    def add(self, buffers: Sequence[Buffer], number: Optional[int] = None) -> bool:
        """Append a message; False: a request with this number is there already."""
        if number is not None and number <= self.words[TAKEN]:
            return False
        pieces = [memoryview(buffer).cast("B") for buffer in buffers]
        if self._unsaved or not self._save(pieces, number):
            # The disk is full.  From here on a SIGKILL would tear the stream: a successor sees it by this
            # word.
            self.words[UNSAFE] = 1
            self._unsaved.extend(memoryview(bytes(piece)) for piece in pieces)
            if number is not None:
                self.words[TAKEN] = number
        return True

    def _save(self, pieces: List[memoryview], number: Optional[int]) -> bool:
        words = self.words
        position = words[OUT_END]
        try:
            for place in range(0, len(pieces), MOST_BUFFERS):
                position = self._write(pieces[place : place + MOST_BUFFERS], position)
        except OSError:
            return False
        words[OUT_NEXT] = position
        words[NEXT_TAKEN] = words[TAKEN] if number is None else number
        words[OUT_END] = position
        words[TAKEN] = words[NEXT_TAKEN]
        return True

    def _write(self, pieces: List[memoryview], position: int) -> int:
        for piece in pieces:
            while len(piece):
                written = os.pwrite(self.descriptor, piece, position)
                position += written
                piece = piece[written:]
        return position

    def send(self, target: socket.socket) -> bool:
        """Write what can be written now; True when nothing is left.  Raises OSError when the connection is gone."""
        end = self.words[OUT_END]
        try:
            while self._position < end:
                sent = os.sendfile(target.fileno(), self.descriptor, None, end - self._position)
                if not sent:
                    break
                self._position += sent
            while self._unsaved:
                sent = target.send(self._unsaved[0])
                self._unsaved[0] = self._unsaved[0][sent:]
                if not self._unsaved[0]:
                    del self._unsaved[0]
        except BlockingIOError:
            return False
        self.words[UNSAFE] = 0
        if end - self._kept_from > KEPT:
            # A hole takes the place of what was sent: offsets stay as they are, so this needs no care of its
            # own.
            os.ftruncate(self.descriptor, 0)
            self._kept_from = end
        return True
