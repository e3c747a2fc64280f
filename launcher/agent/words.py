"""A page of 64-bit words in a mapped file: what must be right after a SIGKILL at any instruction.

A word is stored by one instruction, and the kernel keeps the page whatever becomes of the process.  So a
change that takes several words is made by storing the parts first and then the one word that makes them
count.
"""

import errno
import mmap
import os

SIZE = 4096

# The words of one tape.
END = 0  # stream offset after the last byte received
INTENT_SIZE = 1  # a recv of that many bytes is about to be, or was, made …
INTENT_POSITION = 2  # … at this offset
SENTINEL = 3  # two words: what stands in the last 16 bytes of the area before a recv
LAST_BYTE = 5  # … and in the last byte before a short one
STREAM = 6  # offset where the present connection's stream begins
LAST_NUMBER = 7  # of the messages that came
RECEIVED = 8  # the keeper has safely dealt with messages up to this number
DROP_FIRST = 9  # messages lost since the keeper was told …
DROP_LAST = 10
DROP_BYTES = 11
# The words of one outbox.
OUT_END = 16  # offset after the last byte given to it
OUT_NEXT = 17  # OUT_END once the request NEXT_TAKEN is in
NEXT_TAKEN = 18
TAKEN = 19  # the last request that is in
UNSAFE = 20  # bytes are being written that are not in the file
OUT_START = 21  # where the present file begins


def reserve(descriptor: int, size: int) -> None:
    """Give a file all its blocks; OSError when there is no room for them."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        # A file system that cannot, under a C library that does not do it by writing.
        for position in range(os.fstat(descriptor).st_size, size, SIZE):
            os.pwrite(descriptor, bytes(min(SIZE, size - position)), position)


class Words(object):
    """The words of one file, made (with its blocks: a full disk shows here, as OSError) or opened again."""

    def __init__(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            reserve(descriptor, SIZE)
            self._map = mmap.mmap(descriptor, SIZE)
        finally:
            os.close(descriptor)
        self._words = memoryview(self._map).cast("Q")

    def __getitem__(self, index: int) -> int:
        return self._words[index]

    def __setitem__(self, index: int, value: int) -> None:
        self._words[index] = value
