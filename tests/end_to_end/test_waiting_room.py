"""A kernel that takes its time: front ends run on, held cells run afterwards, interrupt and shutdown work."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from ..sites.engine import DEADLINE, Engine, collect, run_cell, wait_until
from ..sites.notebook_server import NotebookServer

pytestmark = [pytest.mark.servers]

# The short wait shows the mechanism; three minutes are longer than every deadline that front ends have (60 s and 120 s).
WAITS = [
    pytest.param(8, marks=pytest.mark.timeout(120), id="8s"),
    pytest.param(180, marks=[pytest.mark.long, pytest.mark.timeout(400)], id="180s"),
]


@pytest.fixture
def slow(engine: Engine, request: pytest.FixtureRequest) -> int:
    wait = int(request.param)
    engine.target("slow", kernel="python3", before=f"sleep {wait}")
    engine.entry("slow", "slow")
    return wait


def notebook(path: Path) -> Path:
    cells = [
        nbformat.v4.new_code_cell(code) for code in ("x = 20", "print(x + 22)", "import sys; print('done')")
    ]
    node = nbformat.v4.new_notebook(cells=cells)
    node.metadata["kernelspec"] = {"name": "slow", "display_name": "slow", "language": "python"}
    nbformat.write(node, path)
    return path


def texts(path_or_node: Path | nbformat.NotebookNode) -> list[str]:
    node = nbformat.read(path_or_node, as_version=4) if isinstance(path_or_node, Path) else path_or_node
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in node.cells]


@pytest.mark.parametrize("slow", WAITS, indirect=True)
def test_four_front_ends_wait_and_run_on(slow: int, home: Path) -> None:
    """All at once, so that the long form takes three minutes and not twelve."""
    began = time.monotonic()
    source = notebook(home / "in.ipynb")
    papermill = subprocess.Popen(
        [sys.executable, "-m", "papermill", str(source), str(home / "out.ipynb"), "--no-progress-bar"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    # nbclient, as a command of its own
    notebook(home / "executed.ipynb")
    execute = [sys.executable, "-m", "jupyter", "execute", "--inplace", f"--timeout={slow + 60}"]
    executed = subprocess.Popen([*execute, str(home / "executed.ipynb")])
    console = subprocess.Popen(
        [sys.executable, "-m", "jupyter_console", "--kernel", "slow", "--simple-prompt"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert console.stdin is not None
    console.stdin.write(b"print(6 * 7, 'from the console')\nexit\n")
    console.stdin.close()
    with NotebookServer(home) as server, server.session("waiting.ipynb", "slow") as session:
        cell = session.execute("print(input('how? '), 'thanks')", allow_stdin=True)
        # Reading all the while, as a page does: the server hangs up on one that answers no pings.
        session.answer_input("well", deadline=slow + 60)
        outcome = session.collect(cell, deadline=slow + 60)
        assert outcome.text.endswith("well thanks\n")
        assert outcome.reply["content"]["status"] == "ok"
    assert executed.wait(slow + 60) == 0
    assert texts(home / "executed.ipynb") == ["", "42\n", "done\n"]
    assert papermill.wait(slow + 60) == 0, papermill.stdout and papermill.stdout.read()
    assert texts(home / "out.ipynb") == ["", "42\n", "done\n"]
    assert console.stdout is not None
    assert papermill.stdout is not None
    said = console.stdout.read().decode()
    assert "42 from the console" in said, said
    assert console.wait(10) == 0
    console.stdout.close()
    papermill.stdout.close()
    assert time.monotonic() - began >= slow


@pytest.fixture
def held(engine: Engine) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    """A kernel that will not come within the test, and a client of it."""
    engine.target("never", kernel="python3", before="sleep 1000")
    engine.entry("never", "never")
    manager = KernelManager(kernel_name="never")
    manager.start_kernel()
    client = BlockingKernelClient()
    client.load_connection_file(manager.connection_file)
    client.start_channels()
    yield manager, client
    client.stop_channels()
    if manager.has_kernel:
        manager.shutdown_kernel(now=True)


@pytest.mark.timeout(60)
def test_the_held_cell_says_what_it_waits_for(held: tuple[KernelManager, BlockingKernelClient]) -> None:
    _, client = held
    client.wait_for_ready(timeout=DEADLINE)
    msg_id = client.execute("1")
    while (message := client.get_iopub_msg(timeout=DEADLINE))["msg_type"] != "stream":
        pass
    assert message["parent_header"]["msg_id"] == msg_id
    assert message["content"]["text"].startswith("never: starting (waiting since ")


@pytest.mark.timeout(60)
def test_interrupt_while_waiting(held: tuple[KernelManager, BlockingKernelClient]) -> None:
    manager, client = held
    client.wait_for_ready(timeout=DEADLINE)
    first, second = client.execute("1"), client.execute("2")
    while client.get_iopub_msg(timeout=DEADLINE)["parent_header"].get("msg_id") != second:
        pass
    manager.interrupt_kernel()
    assert "interrupted while waiting" in collect(client, first).error
    assert collect(client, second).reply["content"]["status"] == "aborted"


@pytest.mark.timeout(60)
def test_shutdown_while_waiting(engine: Engine, held: tuple[KernelManager, BlockingKernelClient]) -> None:
    manager, _ = held
    wait_until(engine.far_or_before, "the kernel's shell lines to run")
    began = time.monotonic()
    manager.shutdown_kernel()
    assert time.monotonic() - began < 5
    wait_until(lambda: not engine.far_or_before(), "what had been started to end")
    assert [row["state"] for row in engine.kernels()] == ["ended"]


@pytest.mark.timeout(90)
def test_restart_while_waiting(engine: Engine, held: tuple[KernelManager, BlockingKernelClient]) -> None:
    manager, client = held
    engine.target("never", kernel="python3")  # what kept it waiting is mended
    manager.restart_kernel()
    client.wait_for_ready(timeout=DEADLINE)
    assert run_cell(client, "print('at last')").text == "at last\n"
