"""What a kernel printed while nobody watched is not lost: said in the first cell, and put under its cells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import nbformat
import pytest

from farkernel.launcher.cli.schemas import SCHEMAS

from ..sites.engine import DEADLINE, Engine, wait_until
from ..sites.notebook_server import NotebookServer, Session

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

LINES = 10_000
FLOOD = f"""
import pathlib, time
for number in range({LINES}):
    print('line', number)
    if number == 200:
        print(flush=True, end='')
        pathlib.Path('begun').touch()
        while not pathlib.Path('go').exists():
            time.sleep(0.01)
pathlib.Path('done').touch()
"""


def farkernel(*arguments: str, status: int = 0) -> str:
    command = [sys.executable, "-P", "-m", "farkernel", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == status, ended.stderr
    return ended.stdout


def in_cell(session: Session, code: str, cell: str) -> str:
    """Execute as JupyterLab does, with the cell's id in the metadata."""
    content = {
        "code": code,
        "silent": False,
        "store_history": True,
        "allow_stdin": False,
        "stop_on_error": True,
    }
    return session.send(
        "shell", "execute_request", {**content, "user_expressions": {}}, metadata={"cellId": cell}
    )


def notebook(path: Path, cells: Sequence[tuple[str, str]]) -> bytes:
    """Written in another style than nbformat's, which must stay."""
    content = {
        "nbformat_minor": 5,
        "nbformat": 4,
        "metadata": {"z": "ä", "a": [1, 2.50, {}]},
        "cells": [
            {"id": "text", "cell_type": "markdown", "source": ["# Title"], "metadata": {}},
            *(
                {
                    "id": name,
                    "cell_type": "code",
                    "metadata": {},
                    "execution_count": None,
                    "source": code,
                    "outputs": [],
                }
                for name, code in cells
            ),
        ],
    }
    path.write_text(json.dumps(content, indent=3, ensure_ascii=False) + "\n\n")
    path.chmod(0o640)
    return path.read_bytes()


@pytest.fixture(autouse=True)
def entry(engine: Engine) -> None:
    engine.target("here", kernel="python3", keep="5m")
    engine.entry("here", "here")


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_ten_thousand_lines_while_the_server_is_away(engine: Engine, home: Path, end: str) -> None:
    file = home / "a.ipynb"
    before = notebook(file, [("set", "x = 41"), ("flood", FLOOD)])
    with NotebookServer(home) as server:
        with server.session("a.ipynb", "here") as session:
            session.collect(in_cell(session, "x = 41", "set"))
            in_cell(session, FLOOD, "flood")
            wait_until((home / "begun").exists, "the flood to begin")
        getattr(server, end)()
    (process,) = engine.far_processes()
    (home / "go").touch()
    wait_until((home / "done").exists, "the flood to end")
    with NotebookServer(home) as server, server.session("a.ipynb", "here") as session:
        outcome = session.run("import os; print(x + 1, os.getpid())")
        texts = {name: said(outcome.outputs, name) for name in ("stdout", "stderr")}
        assert texts["stdout"] == f"42 {process.pid}\n"
        assert texts["stderr"].startswith("[farkernel] while nobody watched, this kernel made ")
        (row,) = engine.kernels()
        kernel = row["kernel"][:8]
        assert f"farkernel output {kernel} --into NOTEBOOK.ipynb" in texts["stderr"]
        assert said(session.run("1 + 1").outputs, "stderr") == ""  # once is enough
        made = json.loads(farkernel("output", kernel, "--into", str(file), "--json"))
        server.rest("DELETE", f"api/sessions/{session.id}")
    jsonschema.validate(made, SCHEMAS["output --into"])
    assert (made["written"], made["cells"], made["dropped"]) == (True, 2, 0)
    after = nbformat.read(file, as_version=4)
    nbformat.validate(after)
    assert after.cells[2].outputs[0]["text"] == "".join(f"line {number}\n" for number in range(LINES))
    assert [cell.execution_count for cell in after.cells[1:]] == [1, 2]
    assert file.stat().st_mode & 0o777 == 0o640
    assert without_outputs(file.read_bytes()) == before


def said(outputs: list[dict[str, Any]], name: str) -> str:
    return "".join(each["content"]["text"] for each in outputs if each["content"].get("name") == name)


def without_outputs(content: bytes) -> bytes:
    from farkernel.launcher.notebook_file import Filling, parse

    parsed = parse("test", content.decode())
    return parsed.filled({index: Filling([], None) for index in range(len(parsed.cells))}).encode()


def test_displays_errors_and_what_belongs_to_no_cell(engine: Engine, home: Path) -> None:
    file = home / "a.ipynb"
    notebook(file, [("one", ""), ("two", ""), ("three", "")])
    with NotebookServer(home) as server, server.session("a.ipynb", "here") as session:

        def cell(code: str, name: str) -> None:
            session.collect(in_cell(session, code, name))

        show = "from IPython.display import display, clear_output\nh = display('first', display_id='d')"
        cell(show, "one")
        cell("print('gone'); clear_output(wait=True); print('stays'); h.update('changed'); 6 * 7", "two")
        cell("1 / 0", "three")
        cell("print('nobody has this cell')", "removed")
        text = farkernel("output", session.kernel)
        assert "[2] " in text
        assert "ZeroDivisionError: division by zero" in text
        assert "\x1b" not in text
        said = farkernel("output", session.kernel, "--into", str(file))
        assert "3 cells of" in said
        assert "No cell was found for the output of" in said
        assert "print('nobody has this cell')" in said
        found = json.loads(farkernel("output", session.kernel, "--json"))
        jsonschema.validate(found, SCHEMAS["output"])
        assert {cell["cell"] for cell in found["cells"]} == {"one", "two", "three", "removed"}
        assert farkernel("output", session.kernel, "--since", "0s") == "It printed nothing since then.\n"
        assert "had all that already" in farkernel("output", session.kernel, "--into", str(file))
        server.rest("DELETE", f"api/sessions/{session.id}")
    one, two, three = nbformat.read(file, as_version=4).cells[1:]
    assert one.outputs[0]["data"]["text/plain"] == "'changed'"
    assert [each["output_type"] for each in two.outputs] == ["stream", "execute_result"]
    assert (two.outputs[0]["text"], two.outputs[1]["data"]["text/plain"]) == ("stays\n", "42")
    assert three.outputs[0]["ename"] == "ZeroDivisionError"


def test_the_cells_are_remembered_by_a_keeper_that_was_killed(engine: Engine, home: Path) -> None:
    file = home / "a.ipynb"
    notebook(file, [("one", "")])
    with NotebookServer(home) as server, server.session("a.ipynb", "here") as session:
        session.collect(in_cell(session, "print('kept')", "one"))
        os.kill(engine.keeper_pid(), 9)
        farkernel("output", session.kernel, "--into", str(file))
        server.rest("DELETE", f"api/sessions/{session.id}")
    assert nbformat.read(file, as_version=4).cells[1].outputs[0]["text"] == "kept\n"


def test_without_the_requests_the_code_finds_the_cell(engine: Engine, home: Path) -> None:
    file = home / "a.ipynb"
    notebook(file, [("one", "print('mine')"), ("two", "print('twice')"), ("three", "print('twice')")])
    with NotebookServer(home) as server, server.session("a.ipynb", "here") as session:
        session.run("print('mine')")
        session.run("print('twice')")
        said = farkernel("output", session.kernel, "--into", str(file))
        assert "No cell was found" in said
        server.rest("DELETE", f"api/sessions/{session.id}")
    cells = nbformat.read(file, as_version=4).cells[1:]
    assert [len(cell.outputs) for cell in cells] == [1, 0, 0]


def test_a_journal_that_was_too_small_says_so(engine: Engine, home: Path) -> None:
    engine.target("here", kernel="python3", journal="1M")
    file = home / "a.ipynb"
    notebook(file, [("flood", "")])
    with NotebookServer(home) as server, server.session("a.ipynb", "here") as session:
        session.collect(
            in_cell(session, "for n in range(60):\n    print(str(n) * 50_000, flush=True)", "flood")
        )
        command = [sys.executable, "-P", "-m", "farkernel", "output", session.kernel, "--into", str(file)]
        ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE)
        server.rest("DELETE", f"api/sessions/{session.id}")
    assert "oldest messages are no longer in the journal, which holds 1.0 MiB" in ended.stderr
    (output, *_) = nbformat.read(file, as_version=4).cells[1].outputs
    assert output["text"].startswith("[farkernel] the beginning of this output is no longer")


def test_an_ended_kernel_has_no_journal(engine: Engine, home: Path) -> None:
    with NotebookServer(home) as server, server.session("a.ipynb", "here") as session:
        session.run("1")
        server.rest("DELETE", f"api/sessions/{session.id}")
        command = [sys.executable, "-P", "-m", "farkernel", "output", session.kernel]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE)
    assert ended.returncode == 1
    assert "has ended, and its journal went with it" in ended.stderr
