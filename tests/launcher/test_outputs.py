"""From messages to outputs, and which cell they belong to."""

from __future__ import annotations

import itertools
import json
from typing import Any

from farkernel.launcher.notebook_file import Notebook, parse
from farkernel.launcher.outputs import Collection, Execution, Placed, filling, header, overwritten, text_of

_numbers = itertools.count(1)


def message(msg_type: str, parent: str = "m", **content: Any) -> dict[str, Any]:
    number = next(_numbers)
    return {
        "number": number,
        "time": 1000.0 + number,
        "msg_type": msg_type,
        "parent": parent,
        "content": content,
    }


def stream(text: str, name: str = "stdout", parent: str = "m") -> dict[str, Any]:
    return message("stream", parent, name=name, text=text)


def asked(code: str, count: int, parent: str = "m") -> dict[str, Any]:
    return message("execute_input", parent, code=code, execution_count=count)


def collected(*messages: dict[str, Any], cells: list[dict[str, Any]] | None = None) -> list[Execution]:
    collection = Collection(cells or [])
    for each in messages:
        collection.take(each)
    return list(collection)


def notebook(*cells: tuple[str | None, str]) -> Notebook:
    made: list[dict[str, Any]] = [
        {"cell_type": "code", "source": code, "outputs": [], "execution_count": None}
        | ({"id": name} if name else {})
        for name, code in cells
    ]
    return parse("x", json.dumps({"cells": made, "nbformat": 4}))


def test_streams_are_joined() -> None:
    (execution,) = collected(asked("x", 3), stream("a\nb"), stream("c\n"), stream("!", "stderr"), stream("d"))
    assert filling(execution).outputs == [
        {"output_type": "stream", "name": "stdout", "text": ["a\n", "bc\n"]},
        {"output_type": "stream", "name": "stderr", "text": ["!"]},
        {"output_type": "stream", "name": "stdout", "text": ["d"]},
    ]
    assert filling(execution).count == 3


def test_clear_output() -> None:
    (now,) = collected(asked("x", 1), stream("a"), message("clear_output", wait=False), stream("b"))
    (wait,) = collected(asked("x", 1), stream("a"), message("clear_output", wait=True))
    (then,) = collected(asked("x", 1), stream("a"), message("clear_output", wait=True), stream("b"))
    assert [text_of(output) for each in (now, wait, then) for output in each.outputs] == ["b", "a", "b"]


def test_a_display_is_changed_wherever_it_was_shown() -> None:
    def show(kind: str, text: str, parent: str) -> dict[str, Any]:
        return message(kind, parent, data={"text/plain": text}, metadata={}, transient={"display_id": "d"})

    one, two = collected(
        show("display_data", "old", "1"),
        show("display_data", "old", "2"),
        show("update_display_data", "new", "3"),
        message("update_display_data", "3", data={}, transient={"display_id": "unknown"}),
    )
    assert (
        one.outputs
        == two.outputs
        == [{"output_type": "display_data", "data": {"text/plain": "new"}, "metadata": {}}]
    )


def test_texts_are_split_as_in_a_file() -> None:
    data = {
        "text/html": "a\nb",
        "image/png": "QQ\n",
        "application/json": {"a": "x\ny"},
        "image/svg+xml": "<s>\n</s>",
    }
    (execution,) = collected(
        asked("x", 1), message("execute_result", data=data, metadata={}, execution_count=1)
    )
    assert filling(execution).outputs[0]["data"] == {
        "text/html": ["a\n", "b"],
        "image/png": "QQ\n",
        "application/json": {"a": "x\ny"},
        "image/svg+xml": ["<s>\n", "</s>"],
    }


def test_by_cell_id_the_last_execution_wins() -> None:
    cells = [{"msg_id": name, "cell": "a", "time": 5.0, "line": "code"} for name in ("1", "2")]
    executions = collected(asked("x", 1, "1"), stream("old", parent="1"), asked("y", 2, "2"), cells=cells)
    placed = Placed(notebook(("b", "x"), ("a", "z")), executions)
    assert {index: each.msg_id for index, each in placed.chosen.items()} == {1: "2"}
    assert placed.homeless == []


def test_by_code_only_where_it_is_unique_and_the_request_unknown() -> None:
    executions = collected(
        asked("x\n", 1, "1"), asked("y", 2, "2"), stream("?", parent="2"), asked("z", 3, "3")
    )
    placed = Placed(notebook((None, "x"), (None, "y"), (None, "y")), executions)
    assert {index: each.msg_id for index, each in placed.chosen.items()} == {0: "1"}
    assert [each.msg_id for each in placed.homeless] == ["2"]  # "3" has no outputs to be missed
    known = [{"msg_id": "1", "cell": "removed", "time": 5.0, "line": "x"}]
    placed = Placed(notebook(("a", "x")), collected(asked("x", 1, "1"), stream("!", parent="1"), cells=known))
    assert placed.chosen == {}


def test_an_output_without_its_beginning_says_so() -> None:
    cells = [{"msg_id": "m", "cell": "a", "time": 5.0, "line": "code"}]
    (execution,) = collected(stream("end"), cells=cells)
    assert "no longer in the kernel's journal" in filling(execution).outputs[0]["text"][0]
    assert header(execution).endswith("code")


def test_nonsense_of_a_kernel_is_survived() -> None:
    nonsense: dict[str, Any] = {"data": 3, "metadata": None, "traceback": "x", "text": None, "transient": []}
    kinds = ("stream", "error", "display_data", "execute_result", "execute_input", "clear_output", "other")
    for kind in kinds:
        for execution in collected(message(kind), message(kind, **nonsense)):
            assert all(isinstance(text_of(output), str) for output in execution.outputs)


def test_progress_bars() -> None:
    assert overwritten("0%\r50%\r100%\ndone\r\n") == "100%\ndone\n"
