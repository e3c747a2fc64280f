"""From a kernel's messages to the outputs of cells, as a notebook would have them (nbformat 4).

https://jupyter-client.readthedocs.io/en/stable/messaging.html#messages-on-the-iopub-pub-sub-channel
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .notebook_file import Filling, Notebook

Output = dict[str, Any]
_SPLIT_TOO = ("application/javascript", "image/svg+xml")
_GONE = "[farkernel] the beginning of this output is no longer in the kernel's journal\n"


@dataclass
class Execution:
    """One request, with what came of it."""

    msg_id: str
    cell: str | None = None  # the cell's id, where it is known
    line: str = ""  # the first of its code
    code: str | None = None  # all of it; None: the kernel's echo is not in the journal any more
    count: int | None = None
    began: float = 0.0
    newest: float = 0.0
    outputs: list[Output] = field(default_factory=list)
    _clear: bool = False  # clear_output(wait=True): at the next output

    @property
    def is_whole(self) -> bool:
        return self.code is not None

    def add(self, output: Output) -> None:
        self._clear_if_due()
        last = self.outputs[-1] if self.outputs else {}
        if output["output_type"] == "stream" == last.get("output_type") and output["name"] == last["name"]:
            last["text"].append(output["text"][0])
        else:
            self.outputs.append(output)

    def clear(self, wait: bool) -> None:
        self._clear = True
        if not wait:
            self._clear_if_due()

    def _clear_if_due(self) -> None:
        if self._clear:
            self._clear = False
            self.outputs.clear()


class Collection:
    """All executions of a journal, in the order of their requests as far as it is known."""

    def __init__(self, cells: Iterable[Mapping[str, Any]] = ()) -> None:
        self._executions: dict[str, Execution] = {}
        self._displays: dict[str, list[Output]] = {}
        self._cells = {str(cell.get("msg_id")): cell for cell in cells}

    def __iter__(self) -> Iterator[Execution]:
        return iter(self._executions.values())

    def take(self, message: Mapping[str, Any]) -> None:
        """A message of iopub, as the keeper tells it (`launcher.keeper.journal`)."""
        content = message.get("content")
        if not isinstance(content, dict):
            return
        kind = message.get("msg_type")
        if kind == "update_display_data":
            self._update(content)
            return
        execution = self._execution(str(message.get("parent", "")), message)
        if kind == "execute_input":
            execution.code = str(content.get("code", ""))
            execution.count = _whole(content.get("execution_count"))
            lines = execution.code.strip().splitlines()
            execution.line = execution.line or (lines[0] if lines else "")
        elif kind == "clear_output":
            execution.clear(bool(content.get("wait")))
        else:
            output = as_output(str(kind), content)
            if output is not None:
                execution.add(output)
                self._remember_display(content, output)

    def _execution(self, msg_id: str, message: Mapping[str, Any]) -> Execution:
        when = message.get("time")
        moment = float(when) if isinstance(when, int | float) else 0.0
        execution = self._executions.get(msg_id)
        if execution is None:
            cell = self._cells.get(msg_id, {})
            name = cell.get("cell")
            execution = self._executions[msg_id] = Execution(
                msg_id,
                name if isinstance(name, str) else None,
                str(cell.get("line", "")),
                began=float(cell.get("time") or moment),
            )
        execution.newest = max(execution.newest, moment)
        return execution

    def _remember_display(self, content: Mapping[str, Any], output: Output) -> None:
        name = _display_id(content)
        if name is not None:
            self._displays.setdefault(name, []).append(output)

    def _update(self, content: Mapping[str, Any]) -> None:
        """A display is changed wherever it was shown, also in other cells."""
        changed = as_output("display_data", content)
        for output in self._displays.get(_display_id(content) or "", []):
            if changed is not None:
                output["data"], output["metadata"] = changed["data"], changed["metadata"]


def _display_id(content: Mapping[str, Any]) -> str | None:
    transient = content.get("transient")
    name = transient.get("display_id") if isinstance(transient, dict) else None
    return name if isinstance(name, str) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def as_output(kind: str, content: Mapping[str, Any]) -> Output | None:
    """An output as notebooks have it; its texts are lists of what came.  None for what is no output."""
    if kind == "stream":
        return {
            "output_type": "stream",
            "name": str(content.get("name", "stdout")),
            "text": [str(content.get("text", ""))],
        }
    if kind == "error":
        lines = content.get("traceback")
        return {
            "output_type": "error",
            "ename": str(content.get("ename", "")),
            "evalue": str(content.get("evalue", "")),
            "traceback": [str(line) for line in lines] if isinstance(lines, list) else [],
        }
    if kind not in ("display_data", "execute_result"):
        return None
    data, metadata = content.get("data"), content.get("metadata")
    output: Output = {
        "output_type": kind,
        "data": data if isinstance(data, dict) else {},
        "metadata": metadata if isinstance(metadata, dict) else {},
    }
    if kind == "execute_result":
        output["execution_count"] = _whole(content.get("execution_count"))
    return output


def stored(output: Output) -> Output:
    """As it stands in a file: long texts as lists of lines."""
    if output["output_type"] == "stream":
        return {**output, "text": "".join(output["text"]).splitlines(keepends=True)}
    if "data" not in output:
        return output
    return {**output, "data": {mime: _lines(mime, value) for mime, value in output["data"].items()}}


def _lines(mime: str, value: Any) -> Any:
    if isinstance(value, str) and (mime.startswith("text/") or mime in _SPLIT_TOO):
        return value.splitlines(keepends=True)
    return value


# -- into a notebook -------------------------------------------------------------------------------------------


class Placed:
    """Which execution goes under which cell; of several for one cell the last."""

    def __init__(self, notebook: Notebook, executions: Iterable[Execution]) -> None:
        self.chosen: dict[int, Execution] = {}
        self.homeless: list[Execution] = []
        ids = {cell.id: index for index, cell in enumerate(notebook.cells) if cell.id is not None}
        sources: dict[str, list[int]] = {}
        for index, cell in enumerate(notebook.cells):
            sources.setdefault(cell.source.strip(), []).append(index)
        for execution in executions:
            same = sources.get(execution.code.strip(), []) if execution.code is not None else []
            if execution.cell in ids and execution.cell is not None:
                self.chosen[ids[execution.cell]] = execution
            elif execution.cell is None and len(same) == 1:
                self.chosen[same[0]] = execution  # the request is not known, but only one cell has this code
            elif execution.outputs:
                self.homeless.append(execution)

    def fillings(self) -> dict[int, Filling]:
        return {index: filling(execution) for index, execution in self.chosen.items()}


def filling(execution: Execution) -> Filling:
    outputs = [stored(output) for output in execution.outputs]
    if not execution.is_whole:
        outputs.insert(0, {"output_type": "stream", "name": "stderr", "text": [_GONE]})
    return Filling(outputs, execution.count)


# -- as text ---------------------------------------------------------------------------------------------------


def header(execution: Execution) -> str:
    """One line that says what the outputs below it belong to."""
    count = execution.count if execution.count is not None else " "
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(execution.began)) if execution.began else ""
    line = execution.line if execution.msg_id else "(outside of any cell)"
    return f"[{count}] {clock}  {line}".rstrip()


def text_of(output: Output) -> str:
    """What a terminal can show of an output."""
    kind = output["output_type"]
    if kind == "stream":
        return overwritten("".join(output["text"]))
    if kind == "error":
        return "\n".join(output["traceback"]) or f"{output['ename']}: {output['evalue']}"
    text = output["data"].get("text/plain")
    if isinstance(text, list):
        text = "".join(map(str, text))
    return str(text) if text is not None else f"({', '.join(sorted(output['data'])) or 'nothing'})"


def overwritten(text: str) -> str:
    """Progress bars write one line again and again: what was to be seen last."""
    if "\r" not in text:
        return text
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(next((part for part in reversed(line.split("\r")) if part), "") for line in lines)
