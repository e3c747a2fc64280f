"""What a board asks of a folder of this side (`mount_code`): taken out of what it prints, answered on its stdin."""

from __future__ import annotations

import ast
import base64
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from .shared_folder import SharedFolder

log = logging.getLogger(__name__)

MARK = b"\x1efs:"
_LONGEST = 8 * 1024


class Request(NamedTuple):
    number: int
    wanted: str
    arguments: tuple[Any, ...]


class RequestReader:
    """Sans-I/O: bytes in, output and requests out, in their order; what is no request after all is output."""

    def __init__(self) -> None:
        self._pending = b""  # begins with what is, or may become, a mark

    def feed(self, data: bytes) -> list[bytes | Request]:
        if not self._pending and MARK[:1] not in data:
            return [data]
        found: list[bytes | Request] = []
        rest, self._pending = self._pending + data, b""
        while rest:
            start = rest.find(MARK[:1])
            output, rest = (rest, b"") if start < 0 else (rest[:start], rest[start:])
            if rest and not rest.startswith(MARK[: len(rest)]):
                output, rest = output + rest[:1], rest[1:]
            if output:
                found.append(output)
            if not rest.startswith(MARK[: len(rest)]) or not rest:
                continue
            line, end, after = rest.partition(b"\n")
            if not end and len(rest) <= _LONGEST:
                self._pending = rest
                break
            request = parse(line[len(MARK) :]) if end else None
            found.append(request if request is not None else line + end)
            rest = after
        return found


def parse(line: bytes) -> Request | None:
    """What follows the mark; None: the program has printed something of its own."""
    try:
        number, wanted, *arguments = ast.literal_eval(line.decode().rstrip("\r"))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    if type(number) is not int or not isinstance(wanted, str):
        return None
    return Request(number, wanted, tuple(arguments))


def answer(number: int, value: Any) -> bytes:
    """A line of printable ASCII: no interrupt can be in it.  The line before it ends what an interrupt has cut off."""
    if isinstance(value, OSError):
        kind, text = "e", str(value.errno or 5)
    elif isinstance(value, bytes):
        kind, text = "d", base64.b64encode(value).decode()
    else:
        kind, text = "v", ascii(value).replace(", ", ",")
    return f"\n{number} {kind} {len(text)} {text}\n".encode()


class FolderServer:
    """Between a board's output and whoever it is for.  ``send`` takes what is for its stdin."""

    def __init__(self, folder: SharedFolder, send: Callable[[bytes], None]) -> None:
        self.folder = folder
        self._send = send
        self._reader = RequestReader()

    def __repr__(self) -> str:
        return f"<FolderServer {self.folder!r}>"

    def begin(self) -> None:
        """Another program: half a request of one that was interrupted is none of its own."""
        self._reader = RequestReader()

    def feed(self, data: bytes) -> bytes:
        """What is left when the requests are taken out."""
        output = []
        for found in self._reader.feed(data):
            if isinstance(found, bytes):
                output.append(found)
            else:
                self._do(found)
        return b"".join(output)

    def _do(self, request: Request) -> None:
        try:
            value = self.folder.ask(request.wanted, request.arguments)
        except OSError as error:
            log.debug("%s: %s", request, error)
            value = error
        if value is not None:
            self._send(answer(request.number, value))
