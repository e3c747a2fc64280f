"""What one cell shows: streams gathered into fewer messages, displays, the result, errors."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ..messages import Composer, Message
from .records import Clear, Display, Result

# A program that prints a word at a time must not become a message for each: what comes within this time goes out
# together; the first word sooner.  The end of a cell waits for neither.
GATHER, GATHER_FIRST = 0.03, 0.01
_LARGEST_STREAM = 64 * 1024

Publish = Callable[[Message], None]
JsonObject = dict[str, Any]


class Filter(Protocol):
    """Something between the board's text and the notebook: a plot, a capture."""

    def feed(self, text: str) -> str:
        """What is to be shown of it."""

    def finish(self) -> str:
        """The run has ended; what is still to be shown."""


class Shown(Protocol):
    """Where a run's output goes."""

    def write(self, text: str, name: str = "stdout") -> None: ...
    def show(self, data: Mapping[str, Any], display_id: str | None = None, update: bool = False) -> None: ...
    def result(self, data: Mapping[str, Any]) -> None: ...
    def clear(self, wait: bool = False) -> None: ...
    def flush(self) -> None: ...


class CellOutput:
    """The output of the cell that `parent` asked to run."""

    def __init__(
        self, composer: Composer, publish: Publish, parent: Message, count: int = 0, silent: bool = False
    ) -> None:
        self.count = count
        self.last_result = ""
        self._composer = composer
        self._publish = publish
        self._parent = parent
        self._silent = silent
        self._name = "stdout"
        self._pieces: list[str] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._quiet_until = 0.0

    def write(self, text: str, name: str = "stdout") -> None:
        if not text:
            return
        if name != self._name:
            self.flush()
            self._name = name
        self._pieces.append(text)
        self._size += len(text)
        loop = asyncio.get_running_loop()
        if self._size > _LARGEST_STREAM:
            self.flush()
        elif self._timer is None:
            self._timer = loop.call_at(max(self._quiet_until, loop.time() + GATHER_FIRST), self.flush)

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pieces:
            text = "".join(self._pieces)
            self._pieces, self._size = [], 0
            self._quiet_until = asyncio.get_running_loop().time() + GATHER
            self._publish(self._composer.stream(text, self._parent, self._name))

    def show(self, data: Mapping[str, Any], display_id: str | None = None, update: bool = False) -> None:
        transient = {"display_id": display_id} if display_id else {}
        content = {"data": dict(data), "metadata": {}, "transient": transient}
        self._send("update_display_data" if update else "display_data", content)

    def result(self, data: Mapping[str, Any]) -> None:
        self.last_result = str(data.get("text/plain", ""))
        if not self._silent:
            content = {"execution_count": self.count, "data": dict(data), "metadata": {}}
            self._send("execute_result", content)

    def clear(self, wait: bool = False) -> None:
        self._send("clear_output", {"wait": wait})

    def error(self, ename: str, evalue: str, traceback: Sequence[str]) -> None:
        self._send("error", {"ename": ename, "evalue": evalue, "traceback": list(traceback)})

    def _send(self, msg_type: str, content: JsonObject) -> None:
        self.flush()
        self._publish(self._composer.compose(msg_type, content, self._parent, identities=[msg_type.encode()]))


class FilteredOutput:
    """Another output behind a filter: for `%%plot`, `%%capture`, and each of several boards."""

    def __init__(self, target: Shown, text: Filter) -> None:
        self._target = target
        self._filter = text

    def write(self, text: str, name: str = "stdout") -> None:
        self._target.write(self._filter.feed(text) if name == "stdout" else text, name)

    def finish(self) -> None:
        self._target.write(self._filter.finish())

    def flush(self) -> None:
        self._target.flush()

    def show(self, data: Mapping[str, Any], display_id: str | None = None, update: bool = False) -> None:
        self._target.show(data, display_id, update)

    def result(self, data: Mapping[str, Any]) -> None:
        self._target.result(data)

    def clear(self, wait: bool = False) -> None:
        self._target.clear(wait)


class LinePrefix:
    """Puts a name before each line: for output of several boards."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._line = ""

    def feed(self, text: str) -> str:
        *whole, self._line = (self._line + text).split("\n")
        return "".join(f"{self._prefix}{line}\n" for line in whole)

    def finish(self) -> str:
        rest, self._line = self._line, ""
        return f"{self._prefix}{rest}\n" if rest else ""


def show_record(output: Shown, event: Display | Result | Clear) -> None:
    """A record that only shows something."""
    if isinstance(event, Clear):
        output.clear(event.wait)
    elif isinstance(event, Result):
        output.result({"text/plain": event.text})
    else:
        output.show(mime_bundle(event.mime, event.data), event.display_id, event.update)


def mime_bundle(mime: str, data: str | bytes) -> JsonObject:
    """As notebooks hold it: binary kinds in base64, JSON as values; with a plain text for those that show no more."""
    if mime.endswith("json"):
        try:
            return {mime: json.loads(data), "text/plain": f"<{mime}>"}
        except (ValueError, RecursionError):
            mime = "text/plain"
    if mime.startswith("text/") or mime in ("image/svg+xml", "application/javascript"):
        text = data if isinstance(data, str) else data.decode("utf-8", "replace")
        return {mime: text} if mime == "text/plain" else {mime: text, "text/plain": f"<{mime}>"}
    content = data if isinstance(data, bytes) else data.encode("latin-1", "replace")
    plain = f"<{mime}, {len(content):,} bytes>"
    return {mime: base64.b64encode(content).decode("ascii"), "text/plain": plain}
