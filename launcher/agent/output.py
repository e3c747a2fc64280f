"""What a kernel writes on stdout and stderr: read from its pipe into two files of bounded size."""

import os
from typing import Optional

from .loop import Loop
from .reasons import last_lines

LARGEST = 512 * 1024
_PIECE = 65536


class Output(object):
    """`log` and `log.1` (the older part) in the kernel's directory."""

    def __init__(self, loop: Loop, directory: str) -> None:
        self._path = os.path.join(directory, "log")
        self._loop = loop
        self._pipe: Optional[int] = None
        self._begin = 0
        self._answered: Optional[int] = None

    def begin_life(self) -> None:
        """The tail that explains an end is that of this life only."""
        self._answered = None
        self._begin = self._size()

    def kernel_answers(self) -> None:
        """What it wrote until now was about its start; it explains no later end, if anything comes that does."""
        if self._answered is None:
            self._read()  # a pipe's content at most: it may go on writing
            self._answered = self._size()

    def _size(self) -> int:
        try:
            return os.path.getsize(self._path)
        except OSError:
            return 0

    def watch(self, pipe: int) -> None:
        self._pipe = pipe
        os.set_blocking(pipe, False)
        self._loop.watch(pipe, self._readable)

    def drain(self) -> None:
        while self._pipe is not None and self._read():
            pass

    def close(self) -> None:
        if self._pipe is not None:
            self._loop.forget(self._pipe)
            os.close(self._pipe)
            self._pipe = None

    def tail(self, size: int) -> bytes:
        content = b""
        for path in (self._path + ".1", self._path):
            try:
                with open(path, "rb") as stream:
                    content += stream.read()
            except OSError:
                continue
        return content[-size:] if size > 0 else b""

    def last_lines(self) -> str:
        try:
            with open(self._path, "rb") as stream:
                start = max(self._begin, os.fstat(stream.fileno()).st_size - _PIECE)
                stream.seek(start)
                content = stream.read(_PIECE)
        except OSError:
            return ""
        later = b"" if self._answered is None else content[max(self._answered - start, 0) :]
        return last_lines(later) or last_lines(content)

    def _readable(self) -> None:
        self._read()

    def _read(self) -> bool:
        pipe = self._pipe
        if pipe is None:
            return False
        try:
            data = os.read(pipe, _PIECE)
        except BlockingIOError:
            return False
        if not data:
            self.close()
            return False
        try:
            self._write(data)
        except OSError:
            pass  # the kernel must not be held up by a full disk
        return True

    def _write(self, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o600)
        try:
            os.write(descriptor, data)
            if os.fstat(descriptor).st_size > LARGEST:
                os.replace(self._path, self._path + ".1")
                self._begin = 0
                if self._answered is not None:
                    self._answered = 0
        finally:
            os.close(descriptor)
