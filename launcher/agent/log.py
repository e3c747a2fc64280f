"""The agent's own log: a file of bounded size that people can read.  No keys, no values of variables."""

import os
import time

LARGEST = 512 * 1024


class Log(object):
    """Lines to stderr, which is the file at `path` once `take_stderr` was called; guard and worker share it."""

    def __init__(self, path: str, who: str) -> None:
        self.path = path
        self.who = who

    def __call__(self, text: str) -> None:
        line = "%s %s %d: %s\n" % (time.strftime("%Y-%m-%d %H:%M:%S"), self.who, os.getpid(), text)
        try:
            self._keep_small()
            os.write(2, line.encode("utf-8", "replace"))
        except OSError:
            pass  # a full disk must not end the agent

    def failure(self, doing: str) -> None:
        """The exception being handled is a mistake of ours: where it happened goes into the log."""
        import traceback

        self("while %s: %s" % (doing, traceback.format_exc().rstrip()))

    def take_stderr(self) -> None:
        """Send stdout and stderr, Python's own last words included, to the file."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self.path, flags, 0o600)
        except OSError:
            return
        for number in (1, 2):
            os.dup2(descriptor, number)
        if descriptor > 2:
            os.close(descriptor)

    def _keep_small(self) -> None:
        mine = os.fstat(2)
        try:
            theirs = os.stat(self.path)
        except FileNotFoundError:
            return
        if (mine.st_dev, mine.st_ino) != (theirs.st_dev, theirs.st_ino):
            if mine.st_nlink == 0 or mine.st_size > LARGEST:
                self.take_stderr()  # the other process began a new file
        elif mine.st_size > LARGEST:
            os.replace(self.path, self.path + ".1")
            self.take_stderr()
