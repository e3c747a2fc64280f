"""Runs the parts of a probe side by side, each in a process of its own with a deadline.

A driver that hangs, or crashes whoever calls it, costs its own part and nothing else; what that part had found
by then is kept.
"""

import json
import os
import select
import signal
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple

Found = Dict[str, Any]
#: ``look`` yields pieces of the document: lists are put together, objects too, anything else is set.  The key
#: "at" says what it looks at now, for the case that it hangs; "problem" what it could not find out.
Section = NamedTuple("Section", [("name", str), ("look", Callable[[], Iterator[Found]])])
_LARGEST = 4 << 20


def merge(document: Found, piece: Found) -> None:
    for key, value in piece.items():
        there = document.get(key)
        if isinstance(value, list) and isinstance(there, list):
            there.extend(value)
        elif isinstance(value, dict) and isinstance(there, dict):
            merge(there, value)
        else:
            document[key] = value


class Running(object):
    """One part in its process."""

    def __init__(self, section: Section) -> None:
        self.name = section.name
        self.pieces: List[Found] = []
        self.at = ""
        self.problems: List[str] = []
        self._rest = b""
        self._size = 0
        self.descriptor, its_end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _be(section, its_end)
        os.close(its_end)

    def readable(self) -> bool:
        """Whether there may be more."""
        data = os.read(self.descriptor, 65536)
        self._size += len(data)
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            self._take(json.loads(line.decode("ascii")))
        return bool(data) and self._size < _LARGEST

    def _take(self, piece: Found) -> None:
        self.at = piece.pop("at", self.at)
        problem = piece.pop("problem", None)
        if problem:
            self.problems.append(problem)
        if piece:
            self.pieces.append(piece)

    def over(self) -> None:
        """It has said all that it has to say."""
        os.close(self.descriptor)
        _, status = os.waitpid(self.pid, 0)
        if os.WIFSIGNALED(status):
            self.problems.append("it crashed (signal %d)%s" % (os.WTERMSIG(status), self._where()))

    def late(self, patience: float) -> None:
        """A process that hangs in a driver cannot even be killed: its end is not waited for."""
        self.problems.append("no answer within %g s%s" % (patience, self._where()))
        os.kill(self.pid, signal.SIGKILL)
        os.close(self.descriptor)

    def _where(self) -> str:
        return " (%s)" % self.at if self.at else ""


def run(sections: List[Section], patience: float) -> Found:
    """The document; `problems` says what is missing in it and why."""
    document: Found = {"problems": []}
    running = [Running(section) for section in sections]
    waiting = {one.descriptor: one for one in running}
    poll = select.poll()
    for descriptor in waiting:
        poll.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + patience
    while waiting:
        left = deadline - time.monotonic()
        for descriptor, _ in poll.poll(left * 1000) if left > 0 else []:
            if not waiting[descriptor].readable():
                poll.unregister(descriptor)
                waiting.pop(descriptor).over()
        if left <= 0:
            break
    for one in waiting.values():
        one.late(patience)
    for one in running:
        for piece in one.pieces:
            merge(document, piece)
        document["problems"] += [{"part": one.name, "what": what} for what in one.problems]
    return document


def _be(section: Section, output: int) -> None:
    """In the child; does not return."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # drivers like to print
        os.dup2(nothing, descriptor)
    try:
        for piece in section.look():
            _say(output, piece)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong in one part is said, and the others go on
        _say(output, {"problem": "%s: %s" % (type(error).__name__, error)})
    finally:
        os._exit(0)


def _say(output: int, piece: Found) -> None:
    data = json.dumps(piece).encode("ascii") + b"\n"
    while data:
        data = data[os.write(output, data) :]
